package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// fileWatch tells when a file may have changed.
type fileWatch struct {
	path    string
	watcher *fsnotify.Watcher // nil when nobody wants to know, or inotify cannot be used
	every   time.Duration     // how often the file is looked at then
}

// watchFile watches a file that may be missing. Its folder is what is watched, which
// must be there. Where the limits of inotify are used up, which other programs of
// the same user may bring about, the file is looked at by the clock.
func (d *Driver) watchFile(path string, wanted bool) (*fileWatch, error) {
	if !wanted {
		return &fileWatch{}, nil
	}
	byClock := &fileWatch{path: path, every: d.timing.Look}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return byClock, ignoreLimit(path, err)
	}
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return byClock, errors.Join(ignoreLimit(path, err), watcher.Close())
	}
	return &fileWatch{path: path, watcher: watcher}, nil
}

// ignoreLimit drops an error of inotify that is no fault of the path.
func ignoreLimit(path string, err error) error {
	for _, limit := range []error{unix.EMFILE, unix.ENFILE, unix.ENOSPC, unix.ENOMEM} {
		if errors.Is(err, limit) {
			return nil
		}
	}
	return fmt.Errorf("watch %s: %w", path, err)
}

// next waits for a change of the file. A lost event is made up for by the next.
func (w *fileWatch) next(ctx context.Context) error {
	if w.watcher == nil {
		return pause(ctx, w.every)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-w.watcher.Events:
			if !ok {
				return fs.ErrClosed
			}
			if event.Name == w.path {
				return nil
			}
		case err, ok := <-w.watcher.Errors:
			if !ok {
				return fs.ErrClosed
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch %s: %w", w.path, err)
			}
			return nil // what was lost may have been about this file
		}
	}
}

func (w *fileWatch) close() error {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Close()
}
