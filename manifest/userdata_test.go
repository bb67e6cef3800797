package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckUserData_mistakes_areFoundWhereTheyAre(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string // "line:column: beginning of the message", w before a warning
	}{
		{"cloud-config", "#cloud-config\npackages: [nginx]\nruncmd:\n  - [touch, /x]\n", nil},
		{"cloud-config with a comment behind", "#cloud-config # mine\npackages: [nginx]\n", nil},
		{"script", "#!/bin/sh\n\techo tabs are fine here\n", nil},
		{"include", "#include\nhttps://example.org/x\n", nil},
		{"template", "## template: jinja\n#cloud-config\n{% if x %}\n\tfoo\n{% endif %}\n", nil},
		{"mail", "Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n", nil},
		{"compressed", "\x1f\x8b\x08\x00", nil},
		{"a tab within a block of text", "#cloud-config\nwrite_files:\n  - path: /Makefile\n    content: |\n      all:\n      \ttrue\n", nil},
		{"windows lines", "#cloud-config\r\npackages: [nginx]\r\n", nil},

		{"empty", " \n", []string{"1:1: the user-data is empty"}},
		{"no header", "packages: [nginx]\n", []string{"1:1: the first line is no header"}},
		{"header with a space", "# cloud-config\npackages: []\n", []string{`1:1: the first line is not exactly "#cloud-config"`}},
		{"header in capitals", "#Cloud-Config\n", []string{`1:1: the first line is not exactly`}},
		{"header below", "\n# mine\n#cloud-config\npackages: []\n", []string{"3:1: the header is not in the first line"}},
		{"no cloud-config", "#cloud-configuration\n", []string{"1:1: the first line is no header"}},
		{"byte order mark", "\ufeff#cloud-config\n", []string{"1:1: begins with a byte order mark"}},
		{"script with windows lines", "#!/bin/sh\r\ntrue\r\n", []string{"1:10: the script has line ends of Windows"}},
		{"tab that indents", "#cloud-config\nruncmd:\n\t- ls\n", []string{"3:1: not YAML"}},
		{"tab behind a key", "#cloud-config\npackages:\t[nginx]\n", []string{"2:10: a tab"}},
		{"tab behind a dash", "#cloud-config\npackages:\n  -\tnginx\n", []string{"3:4: not YAML: found character that cannot start any token; a tab cannot indent"}},
		{"tab before a mapping of a list", "#cloud-config\nusers:\n  - \tname: me\n", []string{"3:5: not YAML: found character that cannot start any token; a tab cannot indent"}},
		{"syntax", "#cloud-config\npackages: [nginx\nruncmd: []\n", []string{"2:1: not YAML"}},
		{"not UTF-8", "#cloud-config\npassword: \xff\n", []string{"2:11: byte 0xff"}},
		{"list", "#cloud-config\n- packages\n", []string{"2:1: a cloud-config is a mapping, not a list"}},
		{"text", "#cloud-config\nhello\n", []string{"2:1: a cloud-config is a mapping, not a text"}},
		{"two documents", "#cloud-config\npackages: []\n---\nruncmd: []\n", []string{"3:1: a second document"}},
		{"nothing", "#cloud-config\n", []string{"w 1:1: the cloud-config holds nothing"}},
		{"unknown key", "#cloud-config\npakages: []\n  \nfoo_bar_baz: 1\n", []string{`w 2:1: "pakages" is no key`, `w 4:1: "foo_bar_baz" is no key`}},
		{"network", "#cloud-config\nnetwork: {version: 2}\n", []string{"w 2:1: cloud-init takes no network configuration"}},
		{"key twice", "#cloud-config\nruncmd: [a]\nruncmd: [b]\n", []string{`w 3:1: the key "runcmd" is given a second time`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range CheckUserData("user-data", []byte(tt.text)) {
				text := strings.TrimPrefix(e.Error(), "user-data:")
				if e.Warning {
					text = "w " + text
				}
				got = append(got, text)
				if e.Position.File != "user-data" {
					t.Errorf("%v is in the file %q", e, e.Position.File)
				}
			}
			if len(got) != len(tt.want) {
				t.Fatalf("found %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("found %q, want %q", got[i], want)
				}
			}
		})
	}
}

func TestCheckUserData_textWithoutAHeader_isNotRepeated(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, text := range []string{secret + "\n", "\n" + secret, "#cloud-config\n" + secret, "#cloud-config\n- " + secret, "#cloud-config\na: b: " + secret} {
		for _, e := range CheckUserData("f", []byte(text)) {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("%q is told: %v", text, e)
			}
		}
	}
}

// cloudInitManifest is a machine whose cloudInit is given in lines with an
// indentation of four.
func cloudInitManifest(lines string) string {
	return "apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: web}\nspec:\n  cloudInit:\n" + lines
}

func TestLoad_userDataFile_isFoundAtItsOwnPlace(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("web.yaml", cloudInitManifest("    userDataFile: ./web.cloud-config\n")+"---\n"+
		"apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: db}\nspec: {}\n")
	write("web.cloud-config", "#cloud-config\nruncmd:\n\t- ls\n")
	set, err := Load(t.Context(), []string{dir}, LoadOptions{})
	var faults Errors
	if !errors.As(trimDir(err, dir), &faults) || len(faults) != 1 || faults[0].Position != (Position{"web.cloud-config", 3, 1}) {
		t.Fatalf("faults are %v, want one at web.cloud-config:3:1", err)
	}
	// It is the fault of one machine: the others of the file are as good as ever.
	if diff := cmp.Diff([]ObjectKey{{KindVirtualMachine, "web"}}, faults[0].Conflict); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if set.Complete || set.VM("db") == nil || set.VM("web") != nil {
		t.Errorf("complete %v, db %v, web %v", set.Complete, set.VM("db"), set.VM("web"))
	}

	write("web.cloud-config", "#cloud-config\npakages: []\n")
	set, err = Load(t.Context(), []string{dir}, LoadOptions{})
	if err != nil || len(set.Warnings) != 1 || filepath.Base(set.Warnings[0].Position.String()) != "web.cloud-config:2:1" {
		t.Fatalf("error %v, warnings %v", err, set.Warnings)
	}
	if got := set.VM("web").Spec.CloudInit.UserDataFile; got != filepath.Join(dir, "web.cloud-config") {
		t.Errorf("the path is %s", got)
	}
}

func TestLoad_userDataFileThatIsNone_isAFaultOfTheManifest(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"missing", "."} {
		file := filepath.Join(dir, "web.yaml")
		if err := os.WriteFile(file, []byte(cloudInitManifest("    userDataFile: "+name+"\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(t.Context(), []string{file}, LoadOptions{})
		var faults Errors
		if !errors.As(trimDir(err, dir), &faults) || len(faults) != 1 || faults[0].Position != (Position{"web.yaml", 6, 19}) || !strings.Contains(faults[0].Error(), "cannot be read") {
			t.Errorf("%s: faults are %v", name, err)
		}
	}
}
