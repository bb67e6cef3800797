package folder

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// fakeNotifier is a notifier that tells only what a test says, and has the limits
// a test sets.
type fakeNotifier struct {
	events chan fsnotify.Event
	errs   chan error

	mu      sync.Mutex
	watched map[string]bool
	refuse  func(n *fakeNotifier, path string) error // nil: nothing is refused
	added   int
}

func (n *fakeNotifier) Add(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if n.refuse != nil {
		if err := n.refuse(n, path); err != nil {
			return err
		}
	}
	n.watched[path] = true
	n.added++
	return nil
}

func (n *fakeNotifier) Remove(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.watched[path] {
		return fmt.Errorf("%w: %s", fsnotify.ErrNonExistentWatch, path)
	}
	delete(n.watched, path)
	return nil
}

func (n *fakeNotifier) WatchList() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.watched))
}

func (n *fakeNotifier) Events() <-chan fsnotify.Event { return n.events }
func (n *fakeNotifier) Errors() <-chan error          { return n.errs }

func (n *fakeNotifier) Close() error {
	close(n.events)
	close(n.errs)
	return nil
}

// addedSoFar is how many watches were ever made.
func (n *fakeNotifier) addedSoFar() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.added
}

// kernel is what a Watcher under test opens instead of inotify.
type kernel struct {
	mu         sync.Mutex
	refuseOpen error
	refuseAdd  func(n *fakeNotifier, path string) error
	opened     []*fakeNotifier
	mounts     chan struct{}
}

// install puts k in the place of the kernel, so that the Watcher can run in a
// bubble with a clock of its own.
func (k *kernel) install(w *Watcher) {
	k.mounts = make(chan struct{}, 1)
	w.mounts = func() (<-chan struct{}, closing) { return k.mounts, func() {} }
	w.open = func() (notifier, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.refuseOpen != nil {
			return nil, k.refuseOpen
		}
		n := &fakeNotifier{events: make(chan fsnotify.Event), errs: make(chan error), watched: map[string]bool{}, refuse: k.refuseAdd}
		k.opened = append(k.opened, n)
		return n, nil
	}
}

// limit makes the kernel refuse watches from now on, and nothing else; nil lifts
// all limits.
func (k *kernel) limit(add func(n *fakeNotifier, path string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuseOpen, k.refuseAdd = nil, add
	for _, n := range k.opened {
		n.mu.Lock()
		n.refuse = add
		n.mu.Unlock()
	}
}

// last is the notifier in use.
func (k *kernel) last(t *testing.T) *fakeNotifier {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.opened) == 0 {
		t.Fatal("inotify was not opened")
	}
	return k.opened[len(k.opened)-1]
}
