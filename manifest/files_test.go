package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes files in a new folder; a value beginning with "->" is a link.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// vmNamed is a small machine whose kernel shows the folder paths resolve against.
func vmNamed(name string) string {
	return vmText(name, "boot: {kernel: {image: ./vmlinuz}}")
}

func TestLoad_folders_readWhatIsManifest(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string // machine names with the folder of their kernel
	}{
		{
			"three endings, recursively, in order",
			map[string]string{"b.yml": vmNamed("b"), "sub/deep/a.yaml": vmNamed("a"), "c.json": `{"apiVersion":"maqet.io/v1alpha1","kind":"VirtualMachine","metadata":{"name":"c"},"spec":{}}`, "README.md": "# x", "d.yaml.orig": "x"},
			[]string{"a sub/deep", "b .", "c"},
		},
		{"hidden names are skipped", map[string]string{"a.yaml": vmNamed("a"), ".b.yaml": "x", ".git/c.yaml": "x"}, []string{"a ."}},
		{"links into ..data are read", map[string]string{"..2024/a.yaml": vmNamed("a"), "..data": "->..2024", "a.yaml": "->..data/a.yaml"}, []string{"a ."}},
		{"loops of links end", map[string]string{"sub/a.yaml": vmNamed("a"), "sub/loop": "->..", "loop": "->."}, []string{"a sub"}},
		{"a file reached twice is read once", map[string]string{"a.yaml": vmNamed("a"), "b.yaml": "->a.yaml", "z": "->.", "zz/c.yaml": "->../a.yaml"}, []string{"a ."}},
		{"a link to a folder is followed", map[string]string{".hidden/a.yaml": vmNamed("a"), "vms": "->.hidden"}, []string{"a vms"}},
		{"dangling links can be ignored", map[string]string{".maqetignore": "result\n", "a.yaml": vmNamed("a"), "result": "->/nowhere"}, []string{"a ."}},
		{"ignored files and folders", map[string]string{
			".maqetignore": "# comment\n\nvalues.yaml\n/charts/\n*.gen.yaml\n!keep.gen.yaml\n[!a]x.yaml\r\n", "a.yaml": vmNamed("a"), "values.yaml": "x", "sub/values.yaml": "x",
			"charts/x.yaml": "x", "b.gen.yaml": "x", "keep.gen.yaml": vmNamed("keep"), "bx.yaml": "x", "sub/charts/b.yaml": vmNamed("b"),
		}, []string{"a .", "b sub/charts", "keep ."}},
		{"ignore file of a subfolder", map[string]string{"sub/.maqetignore": "a.yaml", "sub/a.yaml": "x", "a.yaml": vmNamed("a")}, []string{"a ."}},
		{"empty", map[string]string{"README": ""}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, tt.files)
			set, err := Load(context.Background(), []string{dir}, LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !set.Complete || !cmp.Equal(set.Roots, []string{dir}) {
				t.Errorf("complete %v, roots %v", set.Complete, set.Roots)
			}
			var got []string
			for _, vm := range set.VMs() {
				line := vm.Metadata.Name
				if vm.Spec.Boot != nil {
					rel, err := filepath.Rel(dir, filepath.Dir(vm.Spec.Boot.Kernel.Image))
					if err != nil {
						t.Fatal(err)
					}
					line += " " + rel
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLoad_whatCannotBeRead_isAFaultAndIncomplete(t *testing.T) {
	big := strings.Repeat("#", 2000)
	tests := []struct {
		name  string
		files map[string]string
		path  string
		want  string
	}{
		{"path does not exist", nil, "nowhere", "nowhere: cannot be read: no such file or directory; check the path; nothing is deleted because of a path that cannot be read"},
		{"dangling link to a folder", map[string]string{"a.yaml": vmNamed("a"), "sub": "->/nowhere"}, "", "sub: cannot be read: no such file or directory; repair or remove it, or list it in .maqetignore"},
		{"dangling link", map[string]string{"a.yaml": "->gone.yaml"}, "", "a.yaml: cannot be read: no such file or directory; repair or remove it, or list it in .maqetignore"},
		{"link to itself", map[string]string{"a.yaml": "->a.yaml"}, "", "a.yaml: cannot be read: too many levels of symbolic links; repair or remove it, or list it in .maqetignore"},
		{"too large", map[string]string{"a.yaml": big}, "", "a.yaml: cannot be read: larger than 1000, the most a manifest may be; check the file and its permissions"},
		{"bad pattern", map[string]string{".maqetignore": "ok\n[a"}, "", `.maqetignore:2:1: "[a" is no pattern: syntax error in pattern; use the syntax of gitignore`},
		{"ignore file is a folder", map[string]string{".maqetignore/x": ""}, "", ".maqetignore: cannot be read: is a directory; make it readable or remove it"},
		{"kustomization without kind", map[string]string{"kustomization.yaml": "resources: [a.yaml]"}, "", "kustomization.yaml:1:1: this is a file of kustomize, which maqet does not run; give maqet what it builds: kustomize build . | maqet apply -f -"},
		{"two files with one name", map[string]string{"a.yaml": vmNamed("a"), "b.yaml": vmNamed("a")}, "", "b.yaml:4:18: metadata.name: vm/a is declared a second time; the first is at a.yaml:2:1; rename or remove one of them"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(tree(t, tt.files))
			path := "."
			if tt.path != "" {
				path = tt.path
			}
			set, err := Load(context.Background(), []string{path}, LoadOptions{MaxFile: 1000})
			if err == nil || set.Complete {
				t.Fatalf("err %v, set %+v", err, set)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLoad_unreadableSubfolder_isIncomplete(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every folder")
	}
	dir := tree(t, map[string]string{"a.yaml": vmNamed("a"), "sub/b.yaml": vmNamed("b")})
	sub := filepath.Join(dir, "sub")
	if err := os.Chmod(sub, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(sub, 0o700) })
	set, err := Load(context.Background(), []string{dir}, LoadOptions{})
	if !errors.Is(err, fs.ErrPermission) || set.Complete || set.VM("a") == nil {
		t.Errorf("err %v, set %+v", err, set)
	}
}

func TestLoad_specialFileInFolder_isAFault(t *testing.T) {
	dir := tree(t, nil)
	if err := syscall.Mkfifo(filepath.Join(dir, "a.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := Load(context.Background(), []string{dir}, LoadOptions{})
	if err == nil || !strings.Contains(err.Error(), "a.yaml: is no regular file") || set.Complete {
		t.Errorf("err %v", err)
	}
}

func TestLoad_givenPaths_readAnyEndingAndEachFileOnce(t *testing.T) {
	dir := tree(t, map[string]string{"vm.txt": vmNamed("a"), ".hidden": vmNamed("b"), "link": "->vm.txt"})
	t.Chdir(dir)
	set, err := Load(context.Background(), []string{"vm.txt", "./vm.txt", filepath.Join(dir, "link"), ".hidden"}, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"vm.txt", ".hidden"}, set.Files); diff != "" {
		t.Errorf("files: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{dir + "/vm.txt", dir + "/link", dir + "/.hidden"}, set.Roots); diff != "" {
		t.Errorf("roots: -want +got:\n%s", diff)
	}
}

func TestLoad_stdin_resolvesAgainstTheWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	opt := LoadOptions{Stdin: strings.NewReader(vmNamed("a") + "---\nkind: x\n")}
	set, err := Load(context.Background(), []string{"-", "-"}, opt)
	want := "<stdin>:9:1: apiVersion: required key is missing; add apiVersion: maqet.io/v1alpha1"
	if err == nil || err.Error() != want {
		t.Errorf("err %v", err)
	}
	if got := set.VM("a").Spec.Boot.Kernel.Image; got != dir+"/vmlinuz" {
		t.Errorf("image %s", got)
	}
}

func TestLoad_stdinThatNeverEnds_heedsTheContext(t *testing.T) {
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = fmt.Fprintln(w, "# the reader is reading") // returns once it is read
		cancel()
	}()
	set, err := Load(ctx, []string{"-"}, LoadOptions{Stdin: r})
	if !errors.Is(err, context.Canceled) || set != nil {
		t.Errorf("err %v, set %v", err, set)
	}
}

func TestLoad_manyFiles_areInAStableOrder(t *testing.T) {
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("f%02d.yaml", i)] = vmNamed(fmt.Sprintf("vm-%02d", 49-i)) + "---\nnot: ours\n"
	}
	dir := tree(t, files)
	var first string
	for range 3 {
		set, err := Load(context.Background(), []string{dir}, LoadOptions{})
		if err == nil || len(set.Objects) != 50 {
			t.Fatalf("err %v", err)
		}
		now := err.Error() + fmt.Sprint(set.Files)
		for _, vm := range set.VMs() {
			now += vm.Metadata.Name
		}
		if first != "" && first != now {
			t.Fatalf("two orders:\n%s\n%s", first, now)
		}
		first = now
	}
}
