package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// fakeVirtiofsd is a program that says of itself what it is given, in a folder of its own.
func fakeVirtiofsd(t *testing.T, help string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), virtiofsdName)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nprintf '%s\\n' '"+help+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVirtiofsd_eachKind_isToldByItsHelpAndHasItsOptions(t *testing.T) {
	const folder = `/srv/a,b\c`
	for _, c := range []struct {
		name, help string
		readOnly   bool
		view       bool
		want       []string
	}{
		{
			name: "of QEMU 7.2", help: "-o source=PATH  shared directory tree\n--fd=FDNUM  fd number of vhost-user socket",
			readOnly: true, view: true,
			want: []string{"--fd=3", "-o", `source=/srv/a\,b\\c,sandbox=namespace,announce_submounts,log_level=warn`},
		},
		{
			name: "of its own, early", help: "--shared-dir <SHARED_DIR>", readOnly: true, view: true,
			want: []string{"--fd=3", "--shared-dir", folder, "--sandbox", "namespace", "--log-level", "warn"},
		},
		{
			name: "of its own", help: "--shared-dir <SHARED_DIR>\n--readonly", readOnly: true,
			want: []string{"--fd=3", "--shared-dir", folder, "--sandbox", "namespace", "--log-level", "warn", "--readonly"},
		},
		{
			name: "of its own, writable", help: "--shared-dir <SHARED_DIR>\n--readonly",
			want: []string{"--fd=3", "--shared-dir", folder, "--sandbox", "namespace", "--log-level", "warn"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := fakeVirtiofsd(t, c.help)
			t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
			l := layout.Layout{State: t.TempDir(), Run: t.TempDir()}
			v, problem, err := NewProber(l, timing.Default(), filelock.New()).virtiofsd(t.Context())
			if err != nil || problem.Msg != "" || v.path != path {
				t.Fatalf("found %+v, problem %+v, error %v", v, problem, err)
			}
			argv := v.argv(folder, c.readOnly && !c.view, firstFile)
			if !slices.Equal(argv[1:], c.want) || argv[0] != path {
				t.Errorf("command line %q, want %q", argv, c.want)
			}
			if f := (&manifest.Filesystem{ReadOnly: c.readOnly}); v.needsView(f) != c.view {
				t.Errorf("needs a view: %v, want %v", v.needsView(f), c.view)
			}
			// Nobody but root can make such a view.
			for euid, refused := range map[int]bool{0: false, 1000: c.view} {
				problem := v.unsharable(&manifest.Filesystem{ReadOnly: c.readOnly}, nil, euid)
				if (problem.Path == ".readOnly") != refused {
					t.Errorf("as user %d: %+v", euid, problem)
				}
			}
		})
	}
}

func TestFindVirtiofsd_descriptors_firstUsableIsTaken(t *testing.T) {
	program := fakeVirtiofsd(t, "")
	first, second := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(first, "10-off.json"):   "",
		filepath.Join(second, "10-off.json"):  `{"type": "fs", "binary": "/bin/true"}`, // switched off above
		filepath.Join(second, "20-gpu.json"):  `{"type": "gpu", "binary": "/bin/true"}`,
		filepath.Join(second, "30-gone.json"): `{"type": "fs", "binary": "/nowhere/virtiofsd"}`,
		filepath.Join(second, "40-rel.json"):  `{"type": "fs", "binary": "sh"}`,
		filepath.Join(second, "50-this.json"): `{"type": "fs", "binary": "` + program + `"}`,
	} {
		writeTestFile(t, path, []byte(text))
	}
	t.Setenv("PATH", t.TempDir())
	for _, c := range []struct {
		folders []string
		want    string
	}{
		{[]string{first, second}, program},
		{[]string{first}, ""},
		{[]string{filepath.Join(first, "none")}, ""},
	} {
		if got, err := findVirtiofsd(c.folders); got != c.want || err != nil {
			t.Errorf("in %v: %q, error %v, want %q", c.folders, got, err, c.want)
		}
	}
}

func TestVirtiofsd_thatCannotBeAsked_isNamed(t *testing.T) {
	path := fakeVirtiofsd(t, "")
	for script, want := range map[string]string{
		"exit 3":        path + " cannot be run: exit status 3",
		"exec sleep 60": path + " --help does not end within 200ms",
	} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", filepath.Dir(path)+":/usr/bin:/bin")
		table := timing.Default()
		if err := table.Set("probe=200ms"); err != nil {
			t.Fatal(err)
		}
		if script == "exit 3" {
			table = timing.Default()
		}
		l := layout.Layout{State: t.TempDir(), Run: t.TempDir()}
		_, problem, err := NewProber(l, table, filelock.New()).virtiofsd(t.Context())
		if err != nil || problem.Msg != want || !strings.Contains(problem.Hint, "virtiofsd") {
			t.Errorf("problem %+v, error %v, want %q", problem, err, want)
		}
	}
}

// TestInView_folder_cannotBeWrittenToThereOnly writes from within and from without.
func TestInView_folder_cannotBeWrittenToThereOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	touch := func() error {
		f, err := os.OpenFile(filepath.Join(dir, "x"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	if err := inView(dir, touch); !os.IsPermission(err) && !strings.Contains(err.Error(), unix.EROFS.Error()) {
		t.Errorf("within, writing says %v", err)
	}
	if err := touch(); err != nil {
		t.Errorf("without, writing says %v", err)
	}
	if err := inView(filepath.Join(dir, "none"), touch); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a folder that is not there: %v", err)
	}
}
