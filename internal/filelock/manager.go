package filelock

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
)

// Manager hands out locks. One process needs one, so that its goroutines queue
// in order; two of them still exclude each other.
type Manager struct {
	mu    sync.Mutex
	lines map[string]*line // of the contended lock files only
	self  holder
}

// line is the goroutines that wait for one lock file, first come first. One
// goroutine of the manager stands for all of them in the kernel's queue.
type line struct {
	waiters []*waiter
}

// waiter is one caller in a line. Its lock and err are set before done closes.
type waiter struct {
	done chan struct{}
	lock *Lock
	err  error
}

// New is a manager that holds nothing.
func New() *Manager {
	return &Manager{lines: map[string]*line{}, self: thisProcess()}
}

// Lock waits for the lock of path until ctx ends, and then returns a HeldError.
// It makes the file and its folders when they are missing.
func (m *Manager) Lock(ctx context.Context, path string) (*Lock, error) {
	path = filepath.Clean(path)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !m.contended(path) {
		l, err := m.take(path, acquireNow)
		if !errors.Is(err, errBusy) {
			return l, err
		}
	}
	w := m.join(path)
	select {
	case <-w.done:
		return w.lock, w.err
	case <-ctx.Done():
	}
	if m.leave(path, w) {
		return nil, m.held(path, ctx.Err())
	}
	// The lock was handed over in the same moment. It is ours, so it is given
	// to the caller, who looks at the context anyway.
	<-w.done
	return w.lock, w.err
}

// TryLock takes the lock of path if nobody has it or waits for it, and returns
// a HeldError otherwise. For the moment in which a wait that was given up gets
// the lock and lets go, the lock counts as held.
func (m *Manager) TryLock(path string) (*Lock, error) {
	path = filepath.Clean(path)
	l, err := m.take(path, acquireNow)
	if errors.Is(err, errBusy) {
		return nil, m.held(path, nil)
	}
	return l, err
}

// take gets the lock in the given way and writes down who has it.
func (m *Manager) take(path string, acquire func(string) (int, error)) (*Lock, error) {
	fd, err := acquire(path)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	m.self.write(fd)
	m.fence()
	return &Lock{manager: m, fd: fd}, nil
}

// fence orders memory: what a goroutine did before it released a lock is seen
// by the one that has it next. The kernel's lock says nothing about that to Go.
func (m *Manager) fence() {
	m.mu.Lock()
	defer m.mu.Unlock()
}

func (m *Manager) contended(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lines[path] != nil
}

// join puts a new waiter at the end of the line, which it begins if need be.
func (m *Manager) join(path string) *waiter {
	w := &waiter{done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lines[path]
	if l == nil {
		l = &line{}
		m.lines[path] = l
		go m.serve(path, l)
	}
	l.waiters = append(l.waiters, w)
	return w
}

// leave takes w out of the line. It is false when w has been served already.
func (m *Manager) leave(path string, w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lines[path]
	if l == nil {
		return false
	}
	for i, other := range l.waiters {
		if other == w {
			l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
			return true
		}
	}
	return false
}

// serve gets the lock for one waiter after the other, until the line is empty.
func (m *Manager) serve(path string, l *line) {
	for more := true; more; {
		lock, err := m.take(path, acquireWaiting)
		more = m.hand(path, l, lock, err)
	}
}

// hand gives the lock to the first in line, or lets it go when all have left.
// It tells whether others wait; if not, the line is over.
func (m *Manager) hand(path string, l *line, lock *Lock, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(l.waiters) > 0 {
		w := l.waiters[0]
		l.waiters = l.waiters[1:]
		w.lock, w.err = lock, err
		close(w.done)
	} else if lock != nil {
		// Nobody is left to hear of an error, and the kernel frees the lock
		// even when it reports one.
		_ = lock.release()
	}
	if len(l.waiters) == 0 {
		delete(m.lines, path)
		return false
	}
	return true
}

// held is the error of a lock that another has.
func (m *Manager) held(path string, cause error) *HeldError {
	e := &HeldError{Path: path, Err: cause}
	if h, ok := readHolder(path); ok {
		e.PID, e.Command, e.Since = h.pid, h.command(), h.since
	}
	return e
}
