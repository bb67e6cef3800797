package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// errRestless tells that the journal's files change places all the time.
var errRestless = errors.New("its files change faster than they can be opened")

// Read returns the chosen events, oldest first. A journal that was never written
// has none. It waits for nobody.
func (j *Journal) Read(ctx context.Context, filter Filter) ([]Event, error) {
	p, err := j.openParts()
	if err != nil {
		return nil, j.fail("read", err)
	}
	defer p.close()
	events, _, err := j.past(ctx, p, filter)
	if err != nil {
		return nil, j.fail("read", err)
	}
	return events, nil
}

// past reads both parts. It tells how far the newer one was read.
func (j *Journal) past(ctx context.Context, p parts, filter Filter) (events []Event, at int64, err error) {
	keep := func(ev Event) error {
		if filter.chooses(ev) {
			events = append(events, ev)
		}
		return nil
	}
	damaged := 0
	for _, f := range []*os.File{p.before, p.now} {
		if f == nil {
			continue
		}
		done, err := scanLines(ctx, f, keep)
		if err != nil {
			return nil, 0, err
		}
		damaged += done.damaged
		if f == p.now {
			at = done.complete
		}
	}
	j.say(damaged)
	return filter.newest(events), at, nil
}

// parts are the journal's two files as they were at one moment; either may be nil.
type parts struct{ before, now *os.File }

// close lets go of the files, which were only read.
func (p parts) close() {
	for _, f := range []*os.File{p.before, p.now} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// openParts opens both files so that they belong together: the newer one is
// opened first, and must still be the newer one after the older was.
func (j *Journal) openParts() (parts, error) {
	const rounds = 100
	for range rounds {
		now, err := openPart(j.cfg.Path)
		if err != nil {
			return parts{}, err
		}
		before, err := openPart(j.cfg.Before)
		p := parts{before: before, now: now}
		if err != nil {
			p.close()
			return parts{}, err
		}
		same, err := isNamed(now, j.cfg.Path)
		if err == nil && same {
			return p, nil
		}
		p.close()
		if err != nil {
			return parts{}, err
		}
	}
	return parts{}, errRestless
}

// openPart opens a file of the journal; nil when there is none.
func openPart(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // a file of the layout.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nil is the file that is not there.
	}
	return f, err
}

// isNamed tells whether path names the open file, or nothing when f is nil.
func isNamed(f *os.File, path string) (bool, error) {
	named, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f == nil, nil
	case err != nil || f == nil:
		return false, err
	}
	return isFile(f, named)
}

// isFile tells whether an open file is the one that info is of.
func isFile(f *os.File, info fs.FileInfo) (bool, error) {
	open, err := f.Stat()
	return err == nil && os.SameFile(open, info), err
}
