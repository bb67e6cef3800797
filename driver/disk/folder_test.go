package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/timing"
)

// machineFolder makes disks/NAME with an identity and a disk, and returns it.
func machineFolder(t *testing.T, parent, name string) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(filepath.Join(dir, "snapshots"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"identity.json", "root.qcow2", "snapshots/before.json"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKeep_folder_movesWithEverythingInIt(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	parent := t.TempDir()
	from, to := machineFolder(t, parent, "web"), filepath.Join(parent, ".kept", "web-0123abcd")
	if err := images.Keep(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if got := names(t, to); !cmp.Equal(got, []string{"identity.json", "root.qcow2", "snapshots"}) {
		t.Errorf("kept were %q", got)
	}
	if _, err := os.Lstat(from); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if err := images.Keep(t.Context(), from, to); err != nil {
		t.Errorf("keeping again: %v", err)
	}
}

func TestKeep_targetThere_overwritesNothing(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	parent := t.TempDir()
	from, to := machineFolder(t, parent, "web"), machineFolder(t, parent, "old")
	err := images.Keep(t.Context(), from, to)
	var known *Error
	if !errors.As(err, &known) || known.Hint == "" {
		t.Errorf("got %v, want an Error with a hint", err)
	}
	if len(names(t, from)) != 3 || len(names(t, to)) != 3 {
		t.Error("one of the folders changed")
	}
}

func TestKeepAndRemove_diskInUse_areRefused(t *testing.T) {
	images := newImages(t)
	parent := t.TempDir()
	path := filepath.Join(parent, "web", "root.qcow2")
	if err := images.Create(t.Context(), path, 1<<20); err != nil {
		t.Fatal(err)
	}
	release := holdOpen(t, path)
	defer release()
	for what, err := range map[string]error{
		"keep":   images.Keep(t.Context(), filepath.Dir(path), filepath.Join(parent, ".kept", "web-1")),
		"remove": images.Remove(t.Context(), filepath.Dir(path)),
	} {
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "qemu-io (pid ") {
			t.Errorf("%s: got %v, want ErrInUse with the holder", what, err)
		}
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the disk is gone: %v", err)
	}
}

func TestRemove_folder_deletesItAndWhatAKilledRemoveLeft(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	parent := t.TempDir()
	machineFolder(t, filepath.Join(parent, removingDir), "db-LEFT")
	machineFolder(t, parent, "other")
	if err := images.Remove(t.Context(), machineFolder(t, parent, "web")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, parent); !cmp.Equal(got, []string{removingDir, "other"}) {
		t.Errorf("there are %q", got)
	}
	if got := names(t, filepath.Join(parent, removingDir)); len(got) != 0 {
		t.Errorf("not deleted were %q", got)
	}
	if err := images.Remove(t.Context(), filepath.Join(parent, "web")); err != nil {
		t.Errorf("removing again: %v", err)
	}
}

func TestRemove_linkInTheFolder_sparesWhatItLeadsTo(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	parent, elsewhere := t.TempDir(), t.TempDir()
	precious := filepath.Join(elsewhere, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := machineFolder(t, parent, "web")
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := images.Remove(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(precious); err != nil {
		t.Errorf("what the link leads to is gone: %v", err)
	}
}

func TestRemove_manyAtOnce_allSucceed(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	parent := t.TempDir()
	var all sync.WaitGroup
	for n := range 16 {
		dir := machineFolder(t, parent, "vm"+strconv.Itoa(n))
		all.Go(func() {
			if err := images.Remove(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := names(t, parent); !cmp.Equal(got, []string{removingDir}) {
		t.Errorf("there are %q", got)
	}
}

func TestRemove_notAMachinesFolder_isRefused(t *testing.T) {
	images := New(Config{Timing: timing.Default()})
	for _, dir := range []string{"", "/", "//", "/.."} {
		var known *Error
		if err := images.Remove(t.Context(), dir); !errors.As(err, &known) {
			t.Errorf("%q: got %v, want an Error", dir, err)
		}
	}
}
