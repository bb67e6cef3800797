package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// openSample opens a new database with one record.
func openSample(t *testing.T) (*bolt, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	b, err := openBolt(path, os.O_CREATE|os.O_EXCL, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.write(map[place][]byte{{bucketMachines, "a"}: make([]byte, 100)}); err != nil {
		t.Fatal(err)
	}
	return b, path
}

// wantFree fails when the file is still locked by a bbolt that was closed.
func wantFree(t *testing.T, path string) {
	t.Helper()
	b, err := openBolt(path, 0, time.Second)
	if err != nil {
		t.Fatalf("open again: %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

func TestBolt_panic_isAnErrorAndFreesTheFile(t *testing.T) {
	b, path := openSample(t)
	err := b.guard(func() error { panic("page 7: assertion failed") })
	if !errors.Is(err, ErrDamaged) || !b.broken {
		t.Errorf("guard = %v (broken %v), want ErrDamaged", err, b.broken)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	wantFree(t, path)
}

func TestBolt_fileTruncatedUnderneath_isAnErrorNotACrash(t *testing.T) {
	b, path := openSample(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	err = b.write(map[place][]byte{{bucketMachines, "b"}: make([]byte, 100)})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("write = %v, want ErrDamaged", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil { //nolint:gosec // the test's own file.
		t.Fatal(err)
	}
	wantFree(t, path)
}
