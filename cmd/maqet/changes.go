package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/state"
)

// changes tells which machines may have changed, as the kernel and the journal
// tell of what any process does: the records, the files in a machine's run dir,
// and each event.
type changes struct {
	where   layout.Layout
	journal *state.Journal
	log     *slog.Logger
	// watcher is nil where inotify cannot be used: then all is looked at by the clock.
	watcher *fsnotify.Watcher
	// told are the machines of new events.
	told chan string
	// pending are names to pass on; an empty one stands for the records.
	pending map[string]bool
	// following is true while the journal is followed.
	following bool
	ended     chan struct{}
	running   sync.WaitGroup
}

// watchChanges begins to tell of changes until stop is called. Folders that are
// not there yet, or cannot be watched, are tried again with each tick. Where inotify
// cannot be used at all, whoever is told looks by the clock alone.
func watchChanges(ctx context.Context, r *rooms) (names <-chan string, stop func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		r.log.Debug("inotify cannot be used; it is looked at by the clock", "err", err, "every", r.timing.Look)
		watcher = nil
	}
	c := &changes{
		where: r.layout, journal: r.journal, log: r.log, watcher: watcher,
		told: make(chan string), pending: map[string]bool{}, ended: make(chan struct{}, 1),
	}
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan string)
	c.running.Go(func() { c.run(ctx, out, r.timing.Look) })
	return out, func() {
		cancel()
		c.running.Wait()
		if watcher == nil {
			return
		}
		if err := watcher.Close(); err != nil {
			r.log.Warn("ending the watch of folders failed", "err", err)
		}
	}
}

// run collects changes and passes each name on once, as fast as it is taken.
func (c *changes) run(ctx context.Context, out chan<- string, tick time.Duration) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	c.ensure(ctx)
	var (
		events <-chan fsnotify.Event
		errs   <-chan error
	)
	if c.watcher != nil {
		events, errs = c.watcher.Events, c.watcher.Errors
	}
	for {
		next, to := "", (chan<- string)(nil)
		for name := range c.pending {
			next, to = name, out
			break
		}
		select {
		case <-ctx.Done():
			return
		case to <- next:
			delete(c.pending, next)
		case name := <-c.told:
			c.pending[name] = true
		case <-c.ended:
			c.following = false
		case event := <-events:
			c.saw(ctx, event)
		case err := <-errs:
			// What was lost may have been about anything.
			c.pending[""] = true
			c.log.Debug("watching folders failed", "err", err)
		case <-ticker.C:
			c.ensure(ctx)
		}
	}
}

// ensure watches all folders that are there, and follows the journal.
func (c *changes) ensure(ctx context.Context) {
	for _, dir := range []string{c.where.State, c.where.Run} {
		c.add(dir)
	}
	entries, err := os.ReadDir(c.where.Run)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Debug("reading the run dir failed", "err", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			c.machineDir(filepath.Join(c.where.Run, entry.Name()))
		}
	}
	if _, err := os.Stat(c.where.State); err != nil || c.following {
		return
	}
	c.following = true
	c.running.Go(func() {
		err := c.journal.Follow(ctx, state.Filter{Last: -1}, func(ev state.Event) error {
			select {
			case c.told <- ev.Machine:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() == nil {
			c.log.Debug("following the journal ended", "err", err)
			c.ended <- struct{}{}
		}
	})
}

// machineDir watches a folder of the run dir if it is a machine's, and gives its
// name then.
func (c *changes) machineDir(dir string) string {
	name := filepath.Base(dir)
	if dir == c.where.LockDir() || strings.HasPrefix(name, ".") {
		return ""
	}
	c.add(dir)
	return name
}

// add watches a folder, or, while there is none, the one that it will be in.
// What cannot be watched is looked at by the clock.
func (c *changes) add(dir string) {
	if c.watcher == nil {
		return
	}
	err := c.watcher.Add(dir)
	if parent := filepath.Dir(dir); errors.Is(err, os.ErrNotExist) && parent != dir {
		c.add(parent)
	} else if err != nil {
		c.log.Debug("watching a folder failed", "path", dir, "err", err)
	}
}

// saw notes what an event of a folder may be about.
func (c *changes) saw(ctx context.Context, event fsnotify.Event) {
	if event.Op == fsnotify.Chmod {
		return
	}
	switch dir := filepath.Dir(event.Name); {
	case event.Has(fsnotify.Create) && (leadsTo(event.Name, c.where.State) || leadsTo(event.Name, c.where.Run)):
		c.ensure(ctx)
		c.pending[""] = true
	case event.Name == c.where.Database():
		c.pending[""] = true
	case dir == c.where.Run:
		if name := c.machineDir(event.Name); name != "" {
			c.pending[name] = true
		}
	case filepath.Dir(dir) == c.where.Run && dir != c.where.LockDir():
		c.pending[filepath.Base(dir)] = true
	}
}

// leadsTo tells whether a path is a folder or is above it.
func leadsTo(path, dir string) bool { return strings.HasPrefix(dir+"/", path+"/") }
