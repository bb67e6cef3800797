package filelock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/internal/filelock"
)

func TestLock_missingFolder_isMadePrivate(t *testing.T) {
	path := lockPath(t)
	l := mustLock(t, filelock.New(), path)
	defer mustUnlock(t, l)
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("mode of %s is %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestUnlock_twice_isOneUnlock(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	first := mustLock(t, m, path)
	mustUnlock(t, first)
	second := mustLock(t, m, path)
	mustUnlock(t, first) // must not release the second
	if _, err := m.TryLock(path); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("TryLock of a held lock = %v, want ErrHeld", err)
	}
	mustUnlock(t, second)
	third, err := m.TryLock(path)
	if err != nil {
		t.Fatalf("TryLock of a free lock: %v", err)
	}
	mustUnlock(t, third)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the lock file is gone: %v", err)
	}
}

func TestLock_heldByOtherProcess_errorNamesIt(t *testing.T) {
	path := lockPath(t)
	before := time.Now()
	other := startHolder(t, path)
	defer other.release(t)
	m := filelock.New()
	_, tryErr := m.TryLock(path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, lockErr := m.Lock(ctx, path)
	for what, err := range map[string]error{"TryLock": tryErr, "Lock": lockErr} {
		var held *filelock.HeldError
		if !errors.As(err, &held) || !errors.Is(err, filelock.ErrHeld) {
			t.Fatalf("%s = %v, want a HeldError", what, err)
		}
		if held.PID != other.Process.Pid || held.Command == "" || held.Path != path {
			t.Errorf("%s: the holder is %+v, want pid %d", what, held, other.Process.Pid)
		}
		if held.Since.Before(before) || held.Since.After(time.Now()) {
			t.Errorf("%s: held since %v, want after %v", what, held.Since, before)
		}
		if !strings.Contains(err.Error(), held.Command) || !strings.Contains(err.Error(), "--timeouts") {
			t.Errorf("%s: %q names neither holder nor remedy", what, err)
		}
	}
	if errors.Is(tryErr, context.DeadlineExceeded) || !errors.Is(lockErr, context.DeadlineExceeded) {
		t.Errorf("TryLock = %v, Lock = %v; only the latter waited", tryErr, lockErr)
	}
}

func TestLock_holderKilled_isReleased(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	other := startHolder(t, path)
	got := make(chan error, 1)
	go func() {
		l, err := m.Lock(patiently(t), path)
		if err == nil {
			err = l.Unlock()
		}
		got <- err
	}()
	awaitWaiters(t, m, path, 1)
	other.kill(t)
	if err := <-got; err != nil {
		t.Fatalf("Lock after its holder was killed: %v", err)
	}
}

func TestLock_holderGone_isNotNamed(t *testing.T) {
	path := lockPath(t)
	other := startHolder(t, path)
	other.kill(t)
	// The words of the dead are still in the file; the lock is taken here
	// without any words, as a program without them would.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // opened for reading.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	_, err = filelock.New().TryLock(path)
	var held *filelock.HeldError
	if !errors.As(err, &held) || held.PID != 0 || !strings.Contains(err.Error(), "another process") {
		t.Errorf("TryLock = %v, want a holder that is not known", err)
	}
}

func TestLock_manyInOneProcess_firstComeFirstServed(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	const waiters = 20
	held := mustLock(t, m, path)
	var order []int
	var all sync.WaitGroup
	for i := range waiters {
		all.Go(func() {
			l, err := m.Lock(patiently(t), path)
			if err != nil {
				t.Errorf("waiter %d: %v", i, err)
				return
			}
			order = append(order, i)
			if err := l.Unlock(); err != nil {
				t.Errorf("waiter %d: %v", i, err)
			}
		})
		awaitWaiters(t, m, path, i+1)
	}
	mustUnlock(t, held)
	all.Wait()
	for i, who := range order {
		if i != who {
			t.Fatalf("served in the order %v", order)
		}
	}
	if len(order) != waiters {
		t.Errorf("%d were served, want %d", len(order), waiters)
	}
}

func TestLock_busyOtherProcess_isNotStarved(t *testing.T) {
	path := lockPath(t)
	// A second manager stands for a second process: it has its own open files.
	busy := filelock.New()
	ctx, cancel := context.WithCancel(patiently(t))
	var taken atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			l, err := busy.Lock(ctx, path)
			if err != nil {
				continue // the end of ctx
			}
			taken.Add(1)
			if err := l.Unlock(); err != nil {
				t.Error(err)
			}
		}
	})
	m := filelock.New()
	for range 50 {
		mustUnlock(t, mustLock(t, m, path))
	}
	cancel()
	all.Wait()
	t.Logf("the busy one got it %d times meanwhile", taken.Load())
}

func TestLock_allGaveUp_waitLetsGo(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	other := startHolder(t, path)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := m.Lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Lock = %v, want the deadline", err)
			}
		})
	}
	all.Wait()
	other.release(t)
	// A third party gets it, and the goroutine that waited ends (goleak).
	mustUnlock(t, mustLock(t, filelock.New(), path))
	awaitIdle(t, m, path)
}

func TestLock_gaveUpThenAgain_getsIt(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	other := startHolder(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := m.Lock(ctx, path)
		gaveUp <- err
	}()
	awaitWaiters(t, m, path, 1)
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Fatalf("Lock = %v, want the cancellation", err)
	}
	got := make(chan error, 1)
	go func() {
		l, err := m.Lock(patiently(t), path)
		if err == nil {
			err = l.Unlock()
		}
		got <- err
	}()
	awaitWaiters(t, m, path, 1)
	other.release(t)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestLock_endedContext_doesNotTakeIt(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Lock(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock = %v, want the cancellation", err)
	}
	mustUnlock(t, mustLock(t, m, path))
}

func TestLock_fileRemovedMeanwhile_locksTheNewOne(t *testing.T) {
	path := lockPath(t)
	first, waiting, second := filelock.New(), filelock.New(), filelock.New()
	old := mustLock(t, first, path)
	var got atomic.Bool
	done := make(chan error, 1)
	go func() {
		l, err := waiting.Lock(patiently(t), path)
		got.Store(true)
		if err == nil {
			err = l.Unlock()
		}
		done <- err
	}()
	awaitBlocked(t, path)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	current := mustLock(t, second, path)
	mustUnlock(t, old)
	// The waiting one now gets the lock of a file that no longer counts. It
	// must end up waiting for the new file: only then is there a holder to name.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := waiting.Lock(ctx, path); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Lock = %v, want ErrHeld", err)
	}
	if got.Load() {
		t.Error("two have the lock")
	}
	mustUnlock(t, current)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLock_processesCount_noneIsLost(t *testing.T) {
	path := lockPath(t)
	const processes, times = 4, 100
	var all []*process
	for range processes {
		all = append(all, start(t, "count", path, "100"))
	}
	m := filelock.New()
	var goroutines sync.WaitGroup
	for range processes {
		goroutines.Go(func() {
			for range times {
				l, err := m.Lock(patiently(t), path)
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(countOnce(path), l.Unlock()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	goroutines.Wait()
	for _, p := range all {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got, want := readCount(path+".count"), 2*processes*times; got != want {
		t.Errorf("counted %d, want %d", got, want)
	}
}

func countOnce(path string) error { return add(path + ".count") }

func TestLock_randomDeadlines_exactlyOneHolder(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	var holders, served atomic.Int64
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			for range 20 {
				patience := time.Duration(rand.IntN(2000)) * time.Microsecond //nolint:gosec // no secret.
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				l, err := m.Lock(ctx, path)
				cancel()
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				if holders.Add(1) != 1 {
					t.Error("two have the lock")
				}
				served.Add(1)
				holders.Add(-1)
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if served.Load() == 0 {
		t.Error("nobody got the lock")
	}
	mustUnlock(t, mustLock(t, m, path))
	awaitIdle(t, m, path)
}

func TestLock_symlink_isRefused(t *testing.T) {
	path := lockPath(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.New().TryLock(path); !errors.Is(err, syscall.ELOOP) || !strings.Contains(err.Error(), path) {
		t.Errorf("TryLock through a symlink = %v, want a refusal that names it", err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the file behind the symlink holds %q (%v)", text, err)
	}
}

func TestLock_noFolderPossible_errorNamesPath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(file, "x.lock")
	if _, err := filelock.New().Lock(patiently(t), path); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), path) {
		t.Errorf("Lock below a file = %v, want ENOTDIR and the path", err)
	}
}

func BenchmarkLock_uncontended(b *testing.B) {
	m, path := filelock.New(), filepath.Join(b.TempDir(), "x.lock")
	for b.Loop() {
		l, err := m.Lock(b.Context(), path)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
}
