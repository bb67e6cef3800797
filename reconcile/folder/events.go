package folder

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// notifier is what is used of fsnotify. Close closes both channels.
type notifier interface {
	Add(dir string) error
	Remove(dir string) error
	WatchList() []string
	Events() <-chan fsnotify.Event
	Errors() <-chan error
	Close() error
}

// inotify is the notifier that asks the kernel.
type inotify struct{ *fsnotify.Watcher }

func (n inotify) Events() <-chan fsnotify.Event { return n.Watcher.Events }
func (n inotify) Errors() <-chan error          { return n.Watcher.Errors }

func openInotify() (notifier, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return inotify{watcher}, nil
}

// maxNames is how many different names an inbox keeps apart.
const maxNames = 8192

// everywhere stands for all names: the root, which every path lies below.
const everywhere = "/"

// news is what a notifier told since it was last asked.
type news struct {
	ops       map[string]fsnotify.Op // by path, all that happened to it
	overflows int
	err       error // the notifier is of no more use
}

// inbox empties a notifier without delay, for it holds a lock while it waits for
// a reader, and keeps the news until the loop takes them.
type inbox struct {
	signal chan struct{} // receives when there are news
	done   chan struct{} // closed when the notifier has ended

	mu   sync.Mutex
	news news
}

// newInbox starts to empty n, until n is closed.
func newInbox(n notifier) *inbox {
	in := &inbox{signal: make(chan struct{}, 1), done: make(chan struct{})}
	go in.fill(n)
	return in
}

func (in *inbox) fill(n notifier) {
	defer close(in.done)
	events, errs := n.Events(), n.Errors()
	for events != nil || errs != nil {
		select {
		case event, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			in.change(func(news *news) { news.add(filepath.Clean(event.Name), event.Op) })
		case err, ok := <-errs:
			switch {
			case !ok:
				errs = nil
			case errors.Is(err, fsnotify.ErrEventOverflow):
				in.change(func(news *news) { news.overflows++ })
			case isPassing(err):
				in.change(func(news *news) { news.add(everywhere, structural) })
			default:
				in.change(func(news *news) { news.err = err })
			}
		}
	}
}

// isPassing is true for the error fsnotify reports when a watched folder was moved
// and is gone by the time it removes the watch: the kernel's bare number. An error
// of reading names what it could not do.
func isPassing(err error) bool {
	_, reading := errors.AsType[*fs.PathError](err)
	return !reading && errors.Is(err, unix.EINVAL)
}

func (in *inbox) change(change func(*news)) {
	in.mu.Lock()
	change(&in.news)
	in.mu.Unlock()
	select {
	case in.signal <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (in *inbox) take() news {
	in.mu.Lock()
	defer in.mu.Unlock()
	got := in.news
	in.news = news{}
	return got
}

// add takes an event in. When there are too many names to keep apart, anything
// may have happened everywhere.
func (n *news) add(path string, op fsnotify.Op) {
	if n.ops == nil || len(n.ops) >= maxNames && n.ops[path] == 0 {
		merged := fsnotify.Op(0)
		for _, op := range n.ops {
			merged |= op
		}
		if n.ops != nil {
			path, op = everywhere, op|merged|fsnotify.Create
		}
		n.ops = map[string]fsnotify.Op{}
	}
	n.ops[path] |= op
}

// verdict is what an event means.
type verdict struct {
	hint  bool // the content may have changed
	look  bool // only a look can tell
	stale bool // the name may stand for something else than before
}

// structural are the operations after which a name stands for something else.
const structural = fsnotify.Create | fsnotify.Remove | fsnotify.Rename

// judge tells what it means that op happened to path, given what is watched.
func judge(places map[string]*place, path string, op fsnotify.Op) verdict {
	if path == everywhere || places[path] != nil {
		return verdict{hint: true, stale: op.Has(structural)}
	}
	dir, name := filepath.Dir(path), filepath.Base(path)
	p := places[dir]
	switch {
	case p == nil: // of a watch that has been removed meanwhile
		return verdict{look: true, stale: op.Has(structural)}
	case p.names[name]:
		return verdict{hint: true, stale: op.Has(structural)}
	case p.listed && !strings.HasPrefix(name, "."):
		return verdict{look: op.Has(structural)}
	default:
		return verdict{}
	}
}
