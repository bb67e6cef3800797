package folder

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what is watched and how eagerly. Only Paths is needed.
type Options struct {
	// Paths are files and folders as a person gave them: absolute and cleaned,
	// with symbolic links not resolved. They need not exist.
	Paths []string
	// Debounce is how long it must be quiet before a change is reported. 0: 100ms.
	Debounce time.Duration
	// MaxDelay is the longest a change waits when it is never quiet. 0: 1s.
	MaxDelay time.Duration
	// Relist is how often the folders are listed although inotify told of nothing.
	// 0: 5m.
	Relist time.Duration
	// FallbackRelist is how often they are listed where inotify cannot be used. 0: 2s.
	FallbackRelist time.Duration
	// Log is told of limits that were met. nil: nobody is.
	Log *slog.Logger
}

// Mode is how a Watcher comes to know of changes.
type Mode int

// The modes.
const (
	// ModeStarting is the mode until the first look is done.
	ModeStarting Mode = iota
	// ModeInotify has the kernel tell of changes.
	ModeInotify
	// ModeListing lists the folders every few seconds.
	ModeListing
)

// String is the mode as people read it.
func (m Mode) String() string {
	switch m {
	case ModeStarting:
		return "starting"
	case ModeInotify:
		return "inotify"
	case ModeListing:
		return "listing"
	default:
		return fmt.Sprintf("mode %d", int(m))
	}
}

// Status tells how the watching goes.
type Status struct {
	Mode Mode
	// Reason says why folders are listed, with the remedy. It is empty when inotify
	// oversees everything.
	Reason string
	// Watched is how many folders inotify watches.
	Watched int
	// Overflows is how often there were more events than the kernel keeps.
	Overflows int
}

// Error is a path that cannot be watched.
type Error struct {
	// Path is the path at fault.
	Path string
	// Err is the cause.
	Err error
	// Hint is what to do about it.
	Hint string
}

// Error is "watch "vms": cause; hint".
func (e *Error) Error() string { return fmt.Sprintf("watch %q: %v; %s", e.Path, e.Err, e.Hint) }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// The errors of New and Run.
var (
	// ErrNoPath is returned when there is nothing to watch.
	ErrNoPath = errors.New("no path to watch is given")
	// ErrPath is the cause of an Error when a path is not absolute and cleaned.
	ErrPath = errors.New("the path is not absolute and clean")
	// ErrOnce is returned when Run is called a second time.
	ErrOnce = errors.New("a folder watcher runs only once; make a new one")
)

// Watcher tells that what some files and folders hold may have changed. Make it
// with New.
type Watcher struct {
	opt     Options
	changes chan struct{}
	started atomic.Bool

	open   func() (notifier, error)          // of inotify
	mounts func() (<-chan struct{}, closing) // of the table of mounts
	remote func(path string) string          // see watches

	mu     sync.Mutex
	status Status
}

// closing ends a source of events and waits for its goroutines.
type closing func()

// New is a Watcher of the paths of opt, which touches nothing before Run.
func New(opt Options) (*Watcher, error) {
	if len(opt.Paths) == 0 {
		return nil, fmt.Errorf("watch: %w; name a file or a folder", ErrNoPath)
	}
	for _, path := range opt.Paths {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return nil, &Error{Path: path, Err: ErrPath, Hint: "make it absolute; standard input cannot be watched"}
		}
	}
	opt.Paths = slices.Clone(opt.Paths)
	opt.Debounce = cmp.Or(opt.Debounce, 100*time.Millisecond)
	opt.MaxDelay = cmp.Or(opt.MaxDelay, time.Second)
	opt.Relist = cmp.Or(opt.Relist, 5*time.Minute)
	opt.FallbackRelist = cmp.Or(opt.FallbackRelist, 2*time.Second)
	opt.Log = cmp.Or(opt.Log, slog.New(slog.DiscardHandler))
	return &Watcher{
		opt:     opt,
		changes: make(chan struct{}, 1),
		open:    openInotify,
		mounts:  watchMounts,
		remote:  remoteFilesystem,
	}, nil
}

// Changes delivers a hint when the content may have changed since the last one
// was received, and one at the start. It is never closed.
func (w *Watcher) Changes() <-chan struct{} { return w.changes }

// Status tells how the watching goes at the moment. Any goroutine may ask.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

func (w *Watcher) setStatus(change func(*Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.status)
}

// hint leaves a hint for the receiver, unless one is waiting already.
func (w *Watcher) hint() {
	select {
	case w.changes <- struct{}{}:
	default:
	}
}
