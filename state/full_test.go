package state_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/state"
)

// smallDisk is a folder on a file system of half a MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount the small file system that this needs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=0700"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space that is left, and returns the file that does.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, pageSize); err == nil; {
		_, err = f.Write(chunk)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUpdate_diskFull_oldStateStays(t *testing.T) {
	dir := smallDisk(t)
	f := fixtureIn(t, dir)
	f.put(t, "a", "b")
	ballast := fill(t, dir)
	err := f.Update(t.Context(), func(tx *state.Tx) error {
		for i := range 200 {
			if err := tx.PutMachine(machine(fmt.Sprintf("many-%03d", i))); err != nil {
				return err
			}
		}
		return nil
	})
	wantError(t, err, syscall.ENOSPC, f.path, "free some space")
	all, warnings := machines(t, f.Store)
	if diff := cmp.Diff([]string{"a", "b"}, names(all)); diff != "" || len(warnings) > 0 {
		t.Errorf("machines (-want +got), warnings %v:\n%s", warnings, diff)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.put(t, "c")
	all, warnings = machines(t, f.another(t))
	if diff := cmp.Diff([]string{"a", "b", "c"}, names(all)); diff != "" || len(warnings) > 0 {
		t.Errorf("machines with space again (-want +got), warnings %v:\n%s", warnings, diff)
	}
}

func TestUpdate_diskFullAtFirst_leavesNoHalfDatabase(t *testing.T) {
	dir := smallDisk(t)
	f := fixtureIn(t, dir)
	ballast := fill(t, dir)
	err := f.Update(t.Context(), func(tx *state.Tx) error { return tx.PutMachine(machine("a")) })
	wantError(t, err, syscall.ENOSPC, "free some space")
	if left, err := filepath.Glob(filepath.Join(dir, "*state.db*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.put(t, "a")
}

func TestUpdate_diskFullAtRenewal_damagedFileStays(t *testing.T) {
	dir := smallDisk(t)
	f := fixtureIn(t, dir)
	data := sample(t)
	state.Corrupt(data, "vm-07")
	writeFile(t, f.path, data)
	ballast := fill(t, dir)
	err := f.Update(t.Context(), func(tx *state.Tx) error { return tx.PutMachine(machine("a")) })
	wantError(t, err, syscall.ENOSPC, "free some space")
	if !bytes.Equal(readFile(t, f.path), data) || len(f.asides(t)) != 0 {
		t.Error("the damaged file was changed or set aside without a new one")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.put(t, "a")
	if all, _ := machines(t, f.Store); len(all) != len(sampleNames()) {
		t.Errorf("%d machines, want %d", len(all), len(sampleNames()))
	}
}
