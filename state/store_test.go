package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/state"
)

func TestView_noDatabase_isEmptyAndMakesNone(t *testing.T) {
	f := newFixture(t)
	mustView(t, f.Store, func(tx *state.Tx) error {
		m, err := tx.Machine("web")
		if m != nil || err != nil {
			t.Errorf("Machine = %v, %v; want nil, nil", m, err)
		}
		all, err := tx.Snapshots()
		if len(all) != 0 || len(tx.Warnings()) != 0 {
			t.Errorf("Snapshots = %v, warnings %v; want none", all, tx.Warnings())
		}
		return err
	})
	if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the database exists after a View: %v", err)
	}
}

func TestUpdate_records_comeBackAsTheyWere(t *testing.T) {
	f := newFixture(t)
	mustUpdate(t, f.Store, func(tx *state.Tx) error {
		return errors.Join(tx.PutMachine(machine("web")), tx.PutMachine(machine("db")), tx.PutSnapshot(snapshot("s2", "web")),
			tx.PutSnapshot(snapshot("s1", "web")), tx.PutSnapshot(snapshot("s3", "db")))
	})
	mustView(t, f.another(t), func(tx *state.Tx) error {
		web, err := tx.Machine("web")
		if diff := cmp.Diff(machine("web"), web); diff != "" || err != nil {
			t.Errorf("machine web (-want +got): %v\n%s", err, diff)
		}
		all, err := tx.Machines()
		if diff := cmp.Diff([]*state.Machine{machine("db"), machine("web")}, all); diff != "" || err != nil {
			t.Errorf("machines (-want +got): %v\n%s", err, diff)
		}
		s1, err := tx.Snapshot("s1")
		if diff := cmp.Diff(snapshot("s1", "web"), s1); diff != "" || err != nil {
			t.Errorf("snapshot s1 (-want +got): %v\n%s", err, diff)
		}
		of, err := tx.SnapshotsOf("web")
		if diff := cmp.Diff([]*state.Snapshot{snapshot("s1", "web"), snapshot("s2", "web")}, of); diff != "" || err != nil {
			t.Errorf("snapshots of web (-want +got): %v\n%s", err, diff)
		}
		return nil
	})
	info, err := os.Stat(f.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of the database is %v (%v), want 0600", info.Mode(), err)
	}
}

func TestUpdate_withinTransaction_seesItsOwnChanges(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a", "b")
	mustUpdate(t, f.Store, func(tx *state.Tx) error {
		if err := errors.Join(tx.DeleteMachine("a"), tx.DeleteMachine("never"), tx.PutMachine(machine("c"))); err != nil {
			return err
		}
		all, err := tx.Machines()
		if diff := cmp.Diff([]string{"b", "c"}, names(all)); diff != "" {
			t.Errorf("machines within (-want +got):\n%s", diff)
		}
		a, errA := tx.Machine("a")
		if a != nil {
			t.Errorf("deleted machine a is still there")
		}
		return errors.Join(err, errA)
	})
	all, _ := machines(t, f.Store)
	if diff := cmp.Diff([]string{"b", "c"}, names(all)); diff != "" {
		t.Errorf("machines after (-want +got):\n%s", diff)
	}
}

func TestUpdate_functionFails_changesNothing(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a")
	broken := errors.New("broken")
	err := f.Update(t.Context(), func(tx *state.Tx) error {
		return errors.Join(tx.DeleteMachine("a"), tx.PutMachine(machine("b")), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("Update = %v, want the function's error", err)
	}
	all, _ := machines(t, f.Store)
	if diff := cmp.Diff([]string{"a"}, names(all)); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}

func TestUpdate_functionPanics_releasesEverything(t *testing.T) {
	f := newFixture(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = f.Update(t.Context(), func(tx *state.Tx) error {
			if err := tx.PutMachine(machine("a")); err != nil {
				t.Error(err)
			}
			panic("a bug of the caller")
		})
	}()
	mustUpdate(t, f.another(t), func(tx *state.Tx) error { return tx.PutMachine(machine("b")) })
	f.put(t, "c")
	all, _ := machines(t, f.Store)
	if diff := cmp.Diff([]string{"b", "c"}, names(all)); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}

func TestUpdate_sameContent_writesNothing(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a")
	before := readFile(t, f.path)
	mustUpdate(t, f.Store, func(tx *state.Tx) error {
		return errors.Join(tx.PutMachine(machine("a")), tx.DeleteMachine("never"), tx.DeleteSnapshot("never"))
	})
	if !bytes.Equal(before, readFile(t, f.path)) {
		t.Error("the file was written although nothing changed")
	}
}

func TestView_writes_areRefused(t *testing.T) {
	f := newFixture(t)
	mustView(t, f.Store, func(tx *state.Tx) error {
		wantError(t, tx.PutMachine(machine("a")), state.ErrReadOnly, "machine a")
		wantError(t, tx.DeleteSnapshot("s"), state.ErrReadOnly, "snapshot s")
		return nil
	})
}

func TestPut_nameThatCannotBeHeld_isRefused(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"", string(make([]byte, 2000))} {
		err := f.Update(t.Context(), func(tx *state.Tx) error { return tx.PutMachine(machine(name)) })
		if _, ok := errors.AsType[*state.Error](err); !ok {
			t.Errorf("a name of %d bytes: %v, want a state.Error", len(name), err)
		}
	}
}

func TestStore_closed_refuses(t *testing.T) {
	f := newFixture(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	nothing := func(*state.Tx) error { return nil }
	wantError(t, f.View(t.Context(), nothing), state.ErrClosed, f.path)
	wantError(t, f.Update(t.Context(), nothing), state.ErrClosed, f.path)
}

func TestUpdate_lockHeld_endsWithDeadlineAndNamesHolder(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a")
	held, err := filelock.New().Lock(t.Context(), f.lock)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Update(within(t, 20*time.Millisecond), func(*state.Tx) error {
		t.Error("the function ran without the lock")
		return nil
	})
	wantError(t, err, context.DeadlineExceeded, f.lock, "held by", "--timeouts")
	// A reader needs no lock while nobody writes.
	all, _ := machines(t, f.Store)
	if len(all) != 1 {
		t.Errorf("%d machines are seen, want 1", len(all))
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	f.put(t, "b")
}

func TestUpdate_noFolder_saysSo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "missing", "state.db")
	s := state.New(state.Config{Path: path, LockPath: filepath.Join(dir, "db.lock")})
	err := s.Update(t.Context(), func(tx *state.Tx) error { return tx.PutMachine(machine("a")) })
	wantError(t, err, fs.ErrNotExist, path, "--state-dir")
}

func TestUpdate_folderInTheWay_saysSo(t *testing.T) {
	f := newFixture(t)
	if err := os.Mkdir(f.path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, use := range []func(context.Context, func(*state.Tx) error) error{f.View, f.Update} {
		err := use(t.Context(), func(*state.Tx) error { return nil })
		if _, ok := errors.AsType[*state.Error](err); !ok {
			t.Errorf("got %v, want a state.Error", err)
		}
	}
}

func TestStore_manyGoroutines_noChangeIsLost(t *testing.T) {
	f := newFixture(t)
	stores := []*state.Store{f.Store, f.another(t)}
	f.put(t, "shared")
	const goroutines, times = 16, 5
	var all sync.WaitGroup
	for i := range goroutines {
		s := stores[i%len(stores)]
		own := fmt.Sprintf("own-%02d", i)
		all.Go(func() {
			for range times {
				if err := s.Update(t.Context(), func(tx *state.Tx) error { return addTo(tx, "shared", own) }); err != nil {
					t.Error(err)
				}
				if err := s.View(t.Context(), func(tx *state.Tx) error { return wantSum(tx) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	found, warnings := machines(t, f.Store)
	if len(found) != goroutines+1 || len(warnings) > 0 {
		t.Fatalf("%d machines (%v), want %d", len(found), warnings, goroutines+1)
	}
	shared := found[slices.Index(names(found), "shared")]
	if want := 2 + goroutines*times; shared.Restarts != want {
		t.Errorf("shared counts %d, want %d", shared.Restarts, want)
	}
}

// addTo adds one to the restarts of the machines, which are made when missing.
func addTo(tx *state.Tx, names ...string) error {
	for _, name := range names {
		m, err := tx.Machine(name)
		if err != nil {
			return err
		}
		if m == nil {
			m = machine(name)
			m.Restarts = 0
		}
		m.Restarts++
		if err := tx.PutMachine(m); err != nil {
			return err
		}
	}
	return nil
}

// wantSum checks the law that holds between transactions of addTo: the shared
// machine, which began at 2, counts what all others count together.
func wantSum(tx *state.Tx) error {
	if warnings := tx.Warnings(); len(warnings) > 0 {
		return errors.Join(warnings...)
	}
	all, err := tx.Machines()
	if err != nil {
		return err
	}
	shared, sum := 0, 2
	for _, m := range all {
		if m.Object.Metadata.Name == "shared" {
			shared = m.Restarts
		} else {
			sum += m.Restarts
		}
	}
	if shared != sum {
		return fmt.Errorf("shared counts %d, the others %d: parts of two transactions", shared, sum)
	}
	return nil
}

func TestStore_images_areStoredListedAndDeleted(t *testing.T) {
	f := newFixture(t)
	mustUpdate(t, f.Store, func(tx *state.Tx) error {
		return errors.Join(tx.PutImage(image("b")), tx.PutImage(image("a")), tx.PutMachine(machine("a")), tx.DeleteImage("never"))
	})
	mustView(t, f.another(t), func(tx *state.Tx) error {
		all, err := tx.Images()
		if diff := cmp.Diff([]*state.Image{image("a"), image("b")}, all); diff != "" || err != nil {
			t.Errorf("Images (-want +got):\n%s%v", diff, err)
		}
		one, err := tx.Image("b")
		if diff := cmp.Diff(image("b"), one); diff != "" || err != nil {
			t.Errorf("Image (-want +got):\n%s%v", diff, err)
		}
		if none, err := tx.Image("c"); none != nil || err != nil {
			t.Errorf("Image(c) = %v, %v", none, err)
		}
		return nil
	})
	mustUpdate(t, f.Store, func(tx *state.Tx) error { return tx.DeleteImage("b") })
	mustView(t, f.Store, func(tx *state.Tx) error {
		all, err := tx.Images()
		machines, errMachines := tx.Machines()
		if len(all) != 1 || len(machines) != 1 || err != nil || errMachines != nil {
			t.Errorf("Images = %v, %v, Machines = %v, %v", all, err, machines, errMachines)
		}
		return nil
	})
}
