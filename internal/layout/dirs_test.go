package layout_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/maqet/maqet/internal/layout"
)

func newLayout(t *testing.T) layout.Layout {
	t.Helper()
	dir := t.TempDir()
	return layout.Layout{State: filepath.Join(dir, "deep", "state"), Run: filepath.Join(dir, "run")}
}

func mustEnsure(t *testing.T, l layout.Layout) {
	t.Helper()
	if err := layout.EnsureDirs(l); err != nil {
		t.Fatalf("EnsureDirs: %v", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEnsureDirs_nothingThere_makesPrivateFolders(t *testing.T) {
	l := newLayout(t)
	mustEnsure(t, l)
	for path, want := range map[string]fs.FileMode{
		l.State:      fs.ModeDir | 0o700,
		l.Run:        fs.ModeDir | 0o700,
		l.StateID():  0o600,
		l.RunOwner(): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("mode of %s is %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestEnsureDirs_again_keepsID(t *testing.T) {
	l := newLayout(t)
	mustEnsure(t, l)
	id := read(t, l.StateID())
	mustEnsure(t, l)
	if err := os.RemoveAll(l.Run); err != nil { // as at a reboot
		t.Fatal(err)
	}
	mustEnsure(t, l)
	if read(t, l.StateID()) != id || read(t, l.RunOwner()) != id {
		t.Errorf("the id was %q; now it is %q and the run dir says %q", id, read(t, l.StateID()), read(t, l.RunOwner()))
	}
}

func TestEnsureDirs_manyAtOnce_agree(t *testing.T) {
	l := newLayout(t)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if err := layout.EnsureDirs(l); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	mustEnsure(t, l)
}

func TestEnsureDirs_runDirOfAnother_isRefused(t *testing.T) {
	first, second := newLayout(t), newLayout(t)
	second.Run = first.Run
	mustEnsure(t, first)
	err := layout.EnsureDirs(second)
	if !errors.Is(err, layout.ErrForeignRunDir) {
		t.Fatalf("EnsureDirs = %v, want ErrForeignRunDir", err)
	}
	for _, want := range []string{first.Run, first.State, second.State, "--run-dir"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	mustEnsure(t, first)
}

func TestEnsureDirs_unusableFolder_isRefusedWithRemedy(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, l layout.Layout)
		says    string
	}{
		"a file in the way": {
			func(t *testing.T, l layout.Layout) {
				t.Helper()
				mustWrite(t, l.Run, "")
			}, "--run-dir",
		},
		"others may write": {
			func(t *testing.T, l layout.Layout) {
				t.Helper()
				mustMkdir(t, l.State)
				if err := os.Chmod(l.State, 0o777); err != nil {
					t.Fatal(err)
				}
			}, "chmod 0700",
		},
		"another user's": {
			func(t *testing.T, l layout.Layout) {
				t.Helper()
				if os.Geteuid() != 0 {
					t.Skip("only root may give a folder away")
				}
				mustMkdir(t, l.State)
				if err := os.Chown(l.State, 12345, 12345); err != nil {
					t.Fatal(err)
				}
			}, "12345",
		},
		"an empty id": {
			func(t *testing.T, l layout.Layout) {
				t.Helper()
				mustMkdir(t, l.State)
				mustWrite(t, l.StateID(), "\n")
			}, "remove the file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			tc.prepare(t, l)
			err := layout.EnsureDirs(l)
			var typed *layout.Error
			if !errors.As(err, &typed) || typed.Hint == "" || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("EnsureDirs = %v, want an Error that says %q", err, tc.says)
			}
		})
	}
}

func TestEnsureDirs_emptyPath_isRefused(t *testing.T) {
	if err := layout.EnsureDirs(layout.Layout{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("EnsureDirs of no paths = %v, want ErrInvalid", err)
	}
}

func mustMkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
