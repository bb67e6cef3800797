package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// tempPrefix begins the names of images that are being made.
const tempPrefix = ".new-"

// Pull makes an image present, and returns how it is then. Told, which may be nil,
// hears how far it is, one call at a time. A file without a digest that has changed
// since it was taken is taken anew.
//
// When ctx ends, what was fetched so far stays, and the next Pull goes on from there.
func (s *Store) Pull(ctx context.Context, spec manifest.ImageSpec, told func(driver.Transfer)) (driver.ImageState, error) {
	const op = "fetch"
	if state := s.Look(spec); settled(state) {
		s.tidy(s.lockKey(spec))
		return state, nil
	}
	if limit := s.cfg.Timing.Pull; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit,
			fmt.Errorf("it took longer than %s (timeout \"pull\"): %w", limit, context.DeadlineExceeded))
		defer cancel()
	}
	if err := layout.EnsureDirs(s.cfg.Layout); err != nil {
		return driver.ImageState{}, err
	}
	if err := makeDir(s.cfg.Layout.ImageDir()); err != nil {
		return driver.ImageState{}, fail(spec, op, err, "")
	}
	key := s.lockKey(spec)
	t := s.begin(key, told)
	lock, err := s.acquire(ctx, spec, key, t)
	if err != nil {
		return driver.ImageState{}, err
	}
	defer func() { _ = lock.Unlock() }()
	state := s.Look(spec)
	if settled(state) {
		return state, nil
	}
	if state.Err != "" {
		return state, &Error{Source: Show(spec), Op: op, Err: errors.New(state.Err), Hint: state.Hint}
	}
	err = s.fetch(ctx, spec, key, t)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fail(spec, op, cause, "what was fetched so far is kept; do the same again to go on")
	}
	if errors.Is(err, context.Canceled) {
		t.end(nil) // What was given up has not failed.
	} else {
		t.end(err)
	}
	if err != nil {
		return s.Look(spec), err
	}
	return s.Look(spec), nil
}

// settled tells that there is nothing to fetch.
func settled(state driver.ImageState) bool { return state.Present && !state.Changed }

// makeDir makes the folder of images durably, unless it is there.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// fetch gets an image while its lock is held.
func (s *Store) fetch(ctx context.Context, spec manifest.ImageSpec, key string, t *transfer) error {
	if err := s.takeSlot(ctx, t); err != nil {
		return err
	}
	defer func() { <-s.slots }()
	if err := sweep(s.cfg.Layout.ImageDir(), key); err != nil {
		return fail(spec, "fetch", err, "")
	}
	if spec.IsURL() {
		return s.fetchURL(ctx, spec, key, t)
	}
	return s.fetchFile(ctx, spec, key, t)
}

// takeSlot waits until this process fetches few enough images.
func (s *Store) takeSlot(ctx context.Context, t *transfer) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		// Who waits for this image sees that it is not forgotten.
		t.part("waiting for others to be fetched", 0, 0)
		select {
		case s.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// acquire waits for the right to fetch an image. While another has it, how far
// that one is is told as if it were this one's; when it gets on no more, waiting ends.
func (s *Store) acquire(ctx context.Context, spec manifest.ImageSpec, key string, t *transfer) (*filelock.Lock, error) {
	path := s.cfg.Layout.ImageLock(key)
	lock, err := s.cfg.Locks.TryLock(path)
	if err == nil || !errors.Is(err, filelock.ErrHeld) {
		return lock, fail(spec, "fetch", err, "")
	}
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.follow(waiting, key, t.told, func() { cancel(ErrBusy) })
	}()
	lock, err = s.cfg.Locks.Lock(waiting, path)
	cancel(nil)
	<-over
	if err == nil {
		return lock, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, fail(spec, "wait for", errors.Join(cause, holderOf(err)), "")
	}
	return nil, fail(spec, "wait for", fmt.Errorf("%w: %w", ErrBusy, holderOf(err)),
		"see what that process does, end it, and do the same again; it goes on where the other ended")
}

// holderOf is an error without the lock's own remedy, which is no help here.
func holderOf(err error) error {
	held, ok := errors.AsType[*filelock.HeldError](err)
	if !ok {
		return err
	}
	if held.PID == 0 {
		return errors.New("held by another process")
	}
	return fmt.Errorf("held by %q (pid %d) since %s", held.Command, held.PID, held.Since.Format(time.TimeOnly))
}

// follow tells how far the process is that fetches the image, and gives up when
// that has not changed for as long as any part of the work may take.
func (s *Store) follow(ctx context.Context, key string, told func(driver.Transfer), giveUp func()) {
	patience := s.cfg.Timing.Stall + s.cfg.Timing.Image
	idle := time.NewTimer(patience)
	defer idle.Stop()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var last driver.Transfer
	for {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			giveUp()
			return
		case <-tick.C:
		}
		r, err := read[transferRecord](s.cfg.Layout.Transfer(key))
		if err != nil || r == nil || r.Failed != "" || r.Transfer == last {
			continue
		}
		last = r.Transfer
		idle.Reset(patience)
		told(last)
	}
}

// keep checks what was unpacked at temp and gives it its final name. The record
// goes first: one without an image says nothing.
func (s *Store) keep(ctx context.Context, spec manifest.ImageSpec, digest, temp string, t *transfer) error {
	t.part("checking", 0, 0)
	info, err := s.cfg.Images.Inspect(ctx, temp, spec.Format)
	if err != nil {
		return checkError(spec, err)
	}
	key := layout.ImageKey(digest)
	file, err := os.Open(temp) //nolint:gosec // a file of the layout.
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only synced
	if err := file.Sync(); err != nil {
		return err
	}
	st, err := file.Stat()
	if err != nil {
		return err
	}
	record := storedRecord{
		Version: recordVersion, Digest: digest, Format: string(spec.Format), Size: info.VirtualSize, Bytes: st.Size(),
		Source: Show(spec), Taken: now(),
	}
	if err := write(s.cfg.Layout.ImageRecord(key), record); err != nil {
		return err
	}
	if err := os.Rename(temp, s.cfg.Layout.Image(key, string(spec.Format))); err != nil {
		return err
	}
	// Nobody writes to it any more.
	if err := errors.Join(file.Chmod(0o400), durable.SyncDir(s.cfg.Layout.ImageDir())); err != nil {
		return err
	}
	s.log.InfoContext(ctx, "image stored", "source", record.Source, "digest", digest, "size", info.VirtualSize)
	return nil
}

// checkError says of the source what was found wrong with its temporary file.
func checkError(spec manifest.ImageSpec, err error) error {
	found, ok := errors.AsType[*disk.Error](err)
	if !ok {
		return err
	}
	return &Error{Source: Show(spec), Op: "check", Err: found.Err, Hint: found.Hint}
}

// sweep removes what fetches of an image that were killed left behind. The lock of
// the key is held, so that nobody works on them.
func sweep(dir, key string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix+key+"-") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// tidy removes what a fetch has left that was killed when its image had its name
// already. What cannot be removed does no harm, and prune tells of it.
func (s *Store) tidy(key string) {
	left := []string{s.cfg.Layout.ImagePart(key), s.cfg.Layout.ImagePartRecord(key), s.cfg.Layout.Transfer(key)}
	if !slices.ContainsFunc(left, func(path string) bool { _, err := os.Lstat(path); return err == nil }) {
		return
	}
	lock, err := s.cfg.Locks.TryLock(s.cfg.Layout.ImageLock(key))
	if err != nil {
		return // Somebody is at it still.
	}
	defer func() { _ = lock.Unlock() }()
	for _, path := range left {
		if err := remove(path); err != nil {
			s.log.Debug("what a fetch has left stays", "path", path, "err", err)
		}
	}
}

// temp makes a file for an image that is being made.
func (s *Store) temp(key string) (*os.File, error) {
	return os.CreateTemp(s.cfg.Layout.ImageDir(), tempPrefix+key+"-*")
}
