package folder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxRounds is how often in a row the folders are looked at anew because they
	// change meanwhile. Then the changes are reported, and it goes on after a pause.
	maxRounds = 8
	// listingsBetweenTries is how many listings are made where inotify cannot be
	// used, before it is tried again.
	listingsBetweenTries = 15
)

// loop is the state of Run, which its goroutine alone uses.
type loop struct {
	*Watcher
	debounce *debounce
	poll     *time.Timer

	watches  *watches // nil: the folders are listed
	listings int      // since inotify was last tried
	places   map[string]*place
	last     *view // what was last reported; nil: nothing

	sure  bool            // there is something to report
	stale map[string]bool // names that may stand for something else than before
}

// Run watches until ctx ends, which is no error. It can be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return ErrOnce
	}
	l := &loop{
		Watcher:  w,
		debounce: newDebounce(w.opt.Debounce, w.opt.MaxDelay),
		poll:     time.NewTimer(w.opt.Relist),
		listings: listingsBetweenTries, // the first look tries inotify
		sure:     true,
		stale:    map[string]bool{},
	}
	defer l.poll.Stop()
	defer l.debounce.taken()
	mounts, closeMounts := w.mounts()
	defer closeMounts()
	defer l.closeWatches()
	err := l.report(ctx)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-l.signal():
			l.read(l.watches.inbox.take())
		case <-mounts:
			l.debounce.note()
		case <-l.debounce.due():
			err = l.report(ctx)
		case <-l.poll.C:
			l.listings++
			err = l.report(ctx)
		}
	}
	if ctx.Err() != nil {
		return nil // the end of the context is the orderly end
	}
	return err
}

// signal receives when inotify has told something.
func (l *loop) signal() <-chan struct{} {
	if l.watches == nil {
		return nil
	}
	return l.watches.inbox.signal
}

// read takes news in.
func (l *loop) read(news news) {
	if news.err != nil {
		l.fallBack(fmt.Errorf("read events: %w", news.err))
		l.debounce.note()
		return
	}
	if news.overflows > 0 {
		l.setStatus(func(s *Status) { s.Overflows += news.overflows })
		l.opt.Log.Info("inotify queue overflowed; looking at everything anew", "times", news.overflows)
		news.add(everywhere, structural)
	}
	for path, op := range news.ops {
		v := judge(l.places, path, op)
		if v.stale {
			l.stale[path] = true
		}
		l.sure = l.sure || v.hint
		if v.hint || v.look {
			l.debounce.note()
		}
	}
}

// report looks at the folders, watches what is to be watched, and leaves a hint
// when there is anything new.
func (l *loop) report(ctx context.Context) error {
	l.debounce.taken()
	if l.watches == nil && l.listings >= listingsBetweenTries {
		l.openWatches()
	}
	v, moved, settled, err := l.settle(ctx)
	if err != nil {
		return err
	}
	hidden := l.watches == nil && l.last != nil && l.last.fresh
	if l.sure || moved || hidden || l.last == nil || v.print != l.last.print {
		l.hint()
	}
	l.sure, l.last = !settled, v
	if !settled {
		l.stale[everywhere] = true // beginning anew ends every doubt about the watches
		l.debounce.note()
	}
	l.tell()
	return nil
}

// settle looks until the watches are those of what was looked at: a look that
// comes after all the watches misses nothing that they do not tell of.
func (l *loop) settle(ctx context.Context) (v *view, moved, settled bool, err error) {
	stale := l.stale
	l.stale = map[string]bool{}
	for range maxRounds {
		v, err = look(ctx, l.opt.Paths)
		if err != nil || l.watches == nil {
			return v, moved, true, err
		}
		places, again, failed := l.watches.update(v.places, stale)
		if failed != nil {
			l.fallBack(failed)
			moved = false // what was watched for a moment is of no interest
			continue
		}
		if l.places = places; !again {
			return v, moved, true, nil
		}
		stale, moved = nil, true
	}
	return v, moved, false, nil
}

// openWatches tries to use inotify.
func (l *loop) openWatches() {
	l.listings = 0
	n, err := l.open()
	if err != nil {
		l.fallBack(fmt.Errorf("open: %w", err))
		return
	}
	l.watches = newWatches(n, l.remote)
}

func (l *loop) closeWatches() {
	if l.watches != nil {
		l.watches.close()
		l.watches = nil
	}
}

// fallBack goes over to listing. It is logged when it is new, and what inotify
// has told last may be lost with it.
func (l *loop) fallBack(err error) {
	l.closeWatches()
	l.listings, l.places = 0, nil
	reason := fmt.Sprintf("inotify: %v; %s", err, remedy(err))
	mode := l.Status().Mode
	l.sure = l.sure || mode == ModeInotify
	if mode != ModeListing {
		l.opt.Log.Warn("inotify cannot be used; the folders are listed instead", "err", err, "remedy", remedy(err), "every", l.opt.FallbackRelist)
	}
	l.setStatus(func(s *Status) { s.Mode, s.Reason, s.Watched = ModeListing, reason, 0 })
}

// remedy is what a person can do so that inotify can be used.
func remedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return "raise the sysctl fs.inotify.max_user_watches"
	case errors.Is(err, unix.EMFILE):
		return "raise the sysctl fs.inotify.max_user_instances, or the limit of open files"
	default:
		return "inotify is tried again from time to time"
	}
}

// tell brings the status up to date, and sets when to list next.
func (l *loop) tell() {
	every := l.opt.FallbackRelist
	if l.watches != nil {
		before, reason := l.Status(), ""
		if blind := slices.Sorted(maps.Keys(l.watches.blind)); len(blind) > 0 {
			reason = fmt.Sprintf("%d folders are also listed, for inotify does not tell all: %s: %s", len(blind), blind[0], l.watches.blind[blind[0]])
		} else {
			every = l.opt.Relist
		}
		if before.Mode == ModeListing {
			l.opt.Log.Info("inotify is used again")
		}
		if reason != "" && reason != before.Reason {
			l.opt.Log.Warn("some folders are also listed", "reason", reason, "every", every)
		}
		l.setStatus(func(s *Status) { s.Mode, s.Reason, s.Watched = ModeInotify, reason, len(l.watches.ids) })
	}
	l.poll.Reset(every)
}
