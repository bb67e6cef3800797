package state_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/state"
)

// hold runs an Update of s that lasts until the returned function is called.
func hold(t *testing.T, s *state.Store, change func(*state.Tx) error) (release func()) {
	t.Helper()
	running, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Update(t.Context(), func(tx *state.Tx) error {
			close(running)
			<-goOn
			return change(tx)
		})
	}()
	<-running
	return func() {
		close(goOn)
		if err := <-ended; err != nil {
			t.Errorf("the Update that held: %v", err)
		}
	}
}

func putMachine(name string) func(*state.Tx) error {
	return func(tx *state.Tx) error { return tx.PutMachine(machine(name)) }
}

func TestUpdate_otherRunsInThisProcess_waitIsBounded(t *testing.T) {
	f := newFixture(t)
	release := hold(t, f.Store, putMachine("a"))
	// Twice: the first shares the opening; by the second it is too old to be shared.
	for range 2 {
		err := f.Update(within(t, 30*time.Millisecond), putMachine("b"))
		wantError(t, err, context.DeadlineExceeded, f.path, "--timeouts")
	}
	if all, warnings := machines(t, f.Store); len(all) != 0 || len(warnings) != 0 {
		t.Errorf("a View meanwhile sees %v, %v", names(all), warnings)
	}
	release()
	f.put(t, "c")
	all, _ := machines(t, f.Store)
	if diff := cmp.Diff([]string{"a", "c"}, names(all)); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}

func TestUpdate_openerGivesUp_othersOpenThemselves(t *testing.T) {
	f := newFixture(t)
	release := hold(t, f.another(t), putMachine("a"))
	var all, hasty sync.WaitGroup
	hasty.Add(2)
	for i, name := range []string{"b", "c", "d", "e"} {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if i%2 == 0 {
				defer hasty.Done()
				ctx, cancel = context.WithTimeout(ctx, 10*time.Millisecond)
			}
			defer cancel()
			err := f.Update(ctx, putMachine(name))
			if wantLate := i%2 == 0; errors.Is(err, context.DeadlineExceeded) != wantLate {
				t.Errorf("Update of %s = %v", name, err)
			}
		})
	}
	hasty.Wait() // One of them may come late.
	release()
	all.Wait()
	found, _ := machines(t, f.Store)
	if diff := cmp.Diff([]string{"a", "c", "e"}, names(found)); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}

// TestUpdate_otherLockFile: two run dirs with one state dir have two lock
// files. Then bbolt's own lock is what remains, and no change may be lost.
func TestUpdate_otherLockFile_noChangeIsLost(t *testing.T) {
	f := newFixture(t)
	f.put(t, "shared")
	stranger := state.New(state.Config{Path: f.path, LockPath: filepath.Join(t.TempDir(), "db.lock")})
	release := hold(t, stranger, func(tx *state.Tx) error { return addTo(tx, "shared") })
	done := make(chan error, 1)
	go func() {
		done <- f.Update(t.Context(), func(tx *state.Tx) error { return addTo(tx, "shared") })
	}()
	// With its lock taken, it reads the database and then waits for bbolt's lock.
	locks := filelock.New()
	for deadline := time.Now().Add(patience); ; {
		l, err := locks.TryLock(f.lock)
		if errors.Is(err, filelock.ErrHeld) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the lock is not taken: %v", err)
		}
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(20 * time.Millisecond)
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mustView(t, f.Store, func(tx *state.Tx) error {
		m, err := tx.Machine("shared")
		if err == nil && m.Restarts != 4 {
			t.Errorf("shared counts %d, want 4", m.Restarts)
		}
		return err
	})
}

func TestUpdate_otherProgramKeepsItOpen_saysSo(t *testing.T) {
	f := newFixture(t)
	f.put(t, "a")
	release := hold(t, f.Store, putMachine("b"))
	defer release()
	table := timing.Default()
	table.Lock = 20 * time.Millisecond
	stranger := state.New(state.Config{Path: f.path, LockPath: filepath.Join(t.TempDir(), "db.lock"), Timing: table})
	wantError(t, stranger.Update(t.Context(), putMachine("c")), bbolterrors.ErrTimeout, "run dir")
}

func TestClose_updateRuns_waitsForIt(t *testing.T) {
	f := newFixture(t)
	release := hold(t, f.Store, putMachine("a"))
	closed := make(chan error, 1)
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		t.Errorf("Close returned %v while an Update runs", err)
	case <-time.After(20 * time.Millisecond):
	}
	release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if all, _ := machines(t, f.another(t)); len(all) != 1 {
		t.Errorf("%d machines after Close, want 1", len(all))
	}
}

// TestUpdate_commitFails_nextInLineStartsOver: what the failed commit wanted
// must not be seen by the update that shared its opening.
func TestUpdate_commitFails_nextInLineStartsOver(t *testing.T) {
	dir := smallDisk(t)
	f := fixtureIn(t, dir)
	f.put(t, "first")
	var second chan error
	// An opening is shared only while it is young, so this may take some attempts.
	for shared := false; !shared; {
		second = make(chan error, 1)
		err := f.Update(t.Context(), func(tx *state.Tx) error {
			go func() { second <- f.Update(t.Context(), putMachine("second")) }()
			for begin := time.Now(); f.Users() < 2 && time.Since(begin) < 100*time.Millisecond; {
				runtime.Gosched()
			}
			if shared = f.Users() == 2; !shared {
				return nil
			}
			big := machine("big")
			big.Source = strings.Repeat("x", 1<<20)
			return errors.Join(tx.PutMachine(big), tx.DeleteMachine("first"))
		})
		if !shared {
			if err := errors.Join(err, <-second); err != nil {
				t.Fatal(err)
			}
			mustUpdate(t, f.Store, func(tx *state.Tx) error { return tx.DeleteMachine("second") })
			continue
		}
		wantError(t, err, syscall.ENOSPC, "free some space")
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	all, warnings := machines(t, f.Store)
	if diff := cmp.Diff([]string{"first", "second"}, names(all)); diff != "" || len(warnings) > 0 {
		t.Errorf("machines (-want +got), warnings %v:\n%s", warnings, diff)
	}
}

// TestUpdate_diskFullForSome: a commit that fails must neither take changes
// of others with it nor be seen by them.
func TestUpdate_diskFullForSome_othersSucceed(t *testing.T) {
	f := fixtureIn(t, smallDisk(t))
	f.put(t, "first")
	var mu sync.Mutex
	want := []string{"first"}
	var all sync.WaitGroup
	for _, name := range sampleNames()[:12] {
		for _, size := range []int{10, 300 << 10} {
			all.Go(func() {
				m := machine(name)
				if size > 1000 {
					m = machine("big-" + name)
					m.Source = strings.Repeat("x", size)
				}
				err := f.Update(t.Context(), func(tx *state.Tx) error { return tx.PutMachine(m) })
				if err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s: %v", m.Object.Metadata.Name, err)
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					want = append(want, m.Object.Metadata.Name)
				}
			})
		}
	}
	all.Wait()
	found, warnings := machines(t, f.another(t))
	got := map[string]bool{}
	for _, name := range names(found) {
		got[name] = true
	}
	for _, name := range want {
		if !got[name] {
			t.Errorf("%s was committed and is gone", name)
		}
	}
	if len(got) != len(want) || len(warnings) > 0 {
		t.Errorf("%d machines, want %d; warnings %v", len(got), len(want), warnings)
	}
	if len(want) == 25 {
		t.Error("the disk was never full")
	}
}
