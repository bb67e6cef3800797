package slowfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// ErrHung is wrapped when a file system has not answered in time.
var ErrHung = errors.New("its file system does not answer")

// Error is a path that nothing is known of, since nobody answered.
type Error struct {
	Path string
	// Limit is how long was waited.
	Limit time.Duration
}

// Error is "path: its file system does not answer (within 5s)".
func (e *Error) Error() string { return fmt.Sprintf("%s: %v (within %s)", e.Path, ErrHung, e.Limit) }

// Is is true for ErrHung.
func (e *Error) Is(target error) bool { return target == ErrHung }

// Files asks file systems. Its methods may be called from any number of goroutines. A nil
// one, and one without a limit, wait for as long as it takes.
type Files struct {
	limit  time.Duration
	lookup func(path string) (fs.FileInfo, error)

	mu sync.Mutex
	// late are the questions that were left behind, by path; each is closed when it is
	// answered after all.
	late map[string]chan struct{}
}

// New makes one that waits for that long; 0 is no limit.
func New(limit time.Duration) *Files { return NewWith(limit, os.Stat) }

// NewWith is New with another function in the place of [os.Stat].
func NewWith(limit time.Duration, lookup func(path string) (fs.FileInfo, error)) *Files {
	return &Files{limit: limit, lookup: lookup, late: map[string]chan struct{}{}}
}

// Lookup is [os.Stat] without a deadline, for use within [Ask].
func (f *Files) Lookup(path string) (fs.FileInfo, error) {
	if f == nil {
		return os.Stat(path)
	}
	return f.lookup(path)
}

// Stat is [os.Stat] with the deadline. When ctx ends before, its error is returned.
func (f *Files) Stat(ctx context.Context, path string) (fs.FileInfo, error) {
	return Ask(ctx, f, path, func() (fs.FileInfo, error) { return f.Lookup(path) })
}

// StatInTime is Stat for who has no context: it waits until the deadline.
func (f *Files) StatInTime(path string) (fs.FileInfo, error) {
	return ask(nil, nil, f, path, func() (fs.FileInfo, error) { return f.Lookup(path) })
}

// Ask calls look, which asks something about a path, and returns what it does, or an
// *Error at the deadline. Then look may still be running: it must change nothing that
// others have.
func Ask[T any](ctx context.Context, f *Files, path string, look func() (T, error)) (T, error) {
	return ask(ctx.Done(), ctx.Err, f, path, look)
}

// ask is Ask for a caller who leaves, for the reason why, when over is closed.
func ask[T any](over <-chan struct{}, why func() error, f *Files, path string, look func() (T, error)) (T, error) {
	var none T
	if f == nil || f.limit <= 0 {
		return look()
	}
	timer := time.NewTimer(f.limit)
	defer timer.Stop()
	for late := f.lateOne(path); late != nil; late = f.lateOne(path) {
		select {
		case <-late:
		case <-timer.C:
			return none, &Error{path, f.limit}
		case <-over:
			return none, why()
		}
	}
	var (
		value T
		err   error
	)
	done := make(chan struct{})
	go func() {
		value, err = look()
		f.answered(path, done)
	}()
	var given error
	select {
	case <-done:
		return value, err
	case <-timer.C:
		given = &Error{path, f.limit}
	case <-over:
		given = why()
	}
	if f.leave(path, done) {
		return none, given
	}
	return value, err
}

// lateOne is a question about a path that was left behind; nil when there is none.
func (f *Files) lateOne(path string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.late[path]
}

// answered ends a question.
func (f *Files) answered(path string, done chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(done)
	if f.late[path] == done {
		delete(f.late, path)
	}
}

// leave leaves a question behind. It is false when that has been answered meanwhile.
func (f *Files) leave(path string, done chan struct{}) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-done:
		return false
	default:
		f.late[path] = done
		return true
	}
}
