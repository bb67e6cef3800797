package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// errFolderGone tells that there is nothing left to follow.
var errFolderGone = errors.New("its folder was removed or renamed")

// Follow calls fn for the chosen events that there are, and then for each one
// that any process appends, until ctx ends or fn fails; that error is returned.
// It is woken by the kernel, and goes on over rotations. Where the limits of inotify
// are used up it looks by the clock.
func (j *Journal) Follow(ctx context.Context, filter Filter, fn func(Event) error) (err error) {
	// The folder is watched before the first look, so nothing falls in between.
	watcher, err := j.watch()
	if err != nil {
		return j.fail("follow", err)
	}
	if watcher != nil {
		defer func() { err = errors.Join(err, watcher.Close()) }()
	}
	f, err := j.follower(ctx, filter, fn)
	if err != nil {
		return err
	}
	defer func() { f.parts.close() }()
	for {
		if err := f.drain(ctx); err != nil {
			return err
		}
		if watcher == nil {
			err = j.awaitLook(ctx)
		} else {
			err = j.awaitChange(ctx, watcher)
		}
		if err != nil {
			return err
		}
	}
}

// watch watches the journal's folder; nil where the limits of inotify are used up.
func (j *Journal) watch() (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, j.notLimit(err)
	}
	dir := filepath.Dir(j.cfg.Path)
	if err := watcher.Add(dir); err != nil {
		return nil, errors.Join(j.notLimit(err), watcher.Close())
	}
	// Its own removal is told by the folder above: as long as a file of it is
	// open, the kernel says nothing. Where that one may not be read, a vanished
	// folder is followed until ctx ends.
	_ = watcher.Add(filepath.Dir(dir))
	return watcher, nil
}

// notLimit is the error, unless it is about a limit of inotify, which is logged.
func (j *Journal) notLimit(err error) error {
	for _, limit := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC, syscall.ENOMEM} {
		if errors.Is(err, limit) {
			j.cfg.Log.Debug("inotify cannot be used; the journal is looked at by the clock", "err", err, "every", j.cfg.Timing.Look)
			return nil
		}
	}
	return err
}

// awaitLook waits until it is time to look again, where nothing tells of changes.
func (j *Journal) awaitLook(ctx context.Context) error {
	timer := time.NewTimer(j.cfg.Timing.Look)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if _, err := os.Stat(filepath.Dir(j.cfg.Path)); errors.Is(err, fs.ErrNotExist) {
		return j.fail("follow", errFolderGone)
	}
	return nil
}

// awaitChange waits until the journal may have changed.
func (j *Journal) awaitChange(ctx context.Context, watcher *fsnotify.Watcher) error {
	dir := filepath.Dir(j.cfg.Path)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case change, ok := <-watcher.Events:
			switch {
			case !ok:
				return j.fail("follow", fs.ErrClosed)
			case change.Name == j.cfg.Path:
				return nil
			case change.Name == dir && (change.Has(fsnotify.Remove) || change.Has(fsnotify.Rename)):
				return j.fail("follow", errFolderGone)
			}
		case err, ok := <-watcher.Errors:
			switch {
			case !ok:
				return j.fail("follow", fs.ErrClosed)
			case errors.Is(err, fsnotify.ErrEventOverflow):
				return nil // what was lost may have been about the journal
			default:
				return j.fail("follow", err)
			}
		}
	}
}

// follower is how far somebody who follows has come.
type follower struct {
	j      *Journal
	filter Filter
	fn     func(Event) error
	// parts are kept open, so that their inodes tell them from later files.
	parts parts
	// at is how far the newer part was read.
	at      int64
	damaged int
}

// follower tells fn of the past and stands where it ends.
func (j *Journal) follower(ctx context.Context, filter Filter, fn func(Event) error) (*follower, error) {
	p, err := j.openParts()
	if err != nil {
		return nil, j.fail("follow", err)
	}
	events, at, err := j.past(ctx, p, filter)
	if err != nil {
		p.close()
		return nil, j.fail("follow", err)
	}
	for _, ev := range events {
		if err := fn(ev); err != nil {
			p.close()
			return nil, err
		}
	}
	return &follower{j: j, filter: filter, fn: fn, parts: p, at: at}, nil
}

// drain reads on to the end of the journal, over as many rotations as there were.
func (f *follower) drain(ctx context.Context) error {
	for {
		// A file that has lost its name gets no further lines: what is read
		// after this look is all of it.
		current, err := isNamed(f.parts.now, f.j.cfg.Path)
		if err != nil {
			return f.j.fail("follow", err)
		}
		if err := f.readOn(ctx); err != nil || current {
			return err
		}
		if moved, err := f.move(ctx); err != nil || !moved {
			return err
		}
	}
}

// readOn reads what was added to the newer part.
func (f *follower) readOn(ctx context.Context) error {
	if f.parts.now == nil {
		return nil
	}
	info, err := f.parts.now.Stat()
	if err != nil {
		return f.j.fail("follow", err)
	}
	if info.Size() < f.at {
		f.at = 0 // Somebody emptied it.
	}
	done, err := f.read(ctx, f.parts.now, f.at)
	f.at += done.complete
	return err
}

// move goes on to the next files. It is false while those are not there yet.
func (f *follower) move(ctx context.Context) (bool, error) {
	next, err := f.j.openParts()
	if err != nil {
		return false, f.j.fail("follow", err)
	}
	if next.now == nil {
		next.close()
		return false, nil
	}
	missed, err := f.isNew(next.before)
	if err == nil && missed {
		// More than one rotation has passed: this one was never the newer part
		// while anybody looked.
		_, err = f.read(ctx, next.before, 0)
	}
	if err != nil {
		next.close()
		return false, err
	}
	f.parts.close()
	f.parts, f.at = next, 0
	return true, nil
}

// isNew tells whether an older part is neither of the files that were read.
func (f *follower) isNew(before *os.File) (bool, error) {
	if before == nil {
		return false, nil
	}
	info, err := before.Stat()
	for _, known := range []*os.File{f.parts.before, f.parts.now} {
		if err != nil || known == nil {
			continue
		}
		var same bool
		if same, err = isFile(known, info); same {
			return false, nil
		}
	}
	if err != nil {
		return false, f.j.fail("follow", err)
	}
	return true, nil
}

// read tells of the events behind an offset.
func (f *follower) read(ctx context.Context, file *os.File, at int64) (scanned, error) {
	var stopped error
	done, err := scanLines(ctx, io.NewSectionReader(file, at, math.MaxInt64-at), func(ev Event) error {
		if f.filter.chooses(ev) {
			stopped = f.fn(ev)
		}
		return stopped
	})
	if done.damaged > 0 {
		f.damaged += done.damaged
		f.j.say(f.damaged)
	}
	switch {
	case err == nil:
		return done, nil
	case stopped != nil || errors.Is(err, ctx.Err()):
		return done, err
	default:
		return done, f.j.fail("follow", fmt.Errorf("read %s: %w", file.Name(), err))
	}
}
