package filelock_test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/filelock"
)

func TestLock_descriptor_isNotInherited(t *testing.T) {
	l := mustLock(t, filelock.New(), lockPath(t))
	defer mustUnlock(t, l)
	flags, err := l.Flags()
	if err != nil {
		t.Fatal(err)
	}
	if flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags are %#x, without close-on-exec", flags)
	}
}

func TestLock_uncontended_startsNoGoroutine(t *testing.T) {
	m, path := filelock.New(), lockPath(t)
	for range 100 {
		l := mustLock(t, m, path)
		if n := m.Waiters(path); n != -1 {
			t.Fatalf("a goroutine serves %d waiters of an uncontended lock", n)
		}
		mustUnlock(t, l)
	}
}

// awaitWaiters waits until so many stand in line.
func awaitWaiters(t *testing.T, m *filelock.Manager, path string, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); m.Waiters(path) != want; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want %d", m.Waiters(path), want)
		}
	}
}

// awaitBlocked waits until somebody is blocked in the kernel on the lock file.
func awaitBlocked(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no inode number")
	}
	blocked := regexp.MustCompile(fmt.Sprintf(`(?m)-> FLOCK .*:%d 0 EOF$`, stat.Ino))
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Skipf("the kernel does not show its locks: %v", err)
		}
		if blocked.Match(locks) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody is blocked on inode %d:\n%s", stat.Ino, locks)
		}
	}
}

// awaitIdle waits until no goroutine waits for the lock any more.
func awaitIdle(t *testing.T, m *filelock.Manager, path string) {
	t.Helper()
	awaitWaiters(t, m, path, -1)
}
