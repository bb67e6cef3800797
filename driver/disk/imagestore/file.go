package imagestore

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// fetchFile takes a file of this host.
func (s *Store) fetchFile(ctx context.Context, spec manifest.ImageSpec, key string, t *transfer) error {
	const op = "read"
	// A pipe or a terminal in the file's place must not be waited for.
	f, err := os.OpenFile(spec.Source, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return fail(spec, op, bare(err), "see whether the path is right, and readable to the user maqet runs as")
	}
	defer func() { _ = f.Close() }() // it was only read
	before, err := f.Stat()
	if err != nil {
		return fail(spec, op, bare(err), "")
	}
	if !before.Mode().IsRegular() {
		return fail(spec, op, errors.New("it is no regular file"), "name the file of an image")
	}
	if before.Size() > s.cfg.MaxSize {
		return fail(spec, op, s.tooMuch(""), "")
	}
	to, err := s.temp(key)
	if err != nil {
		return fail(spec, op, err, "")
	}
	defer func() { _ = os.Remove(to.Name()) }() // gone already once it was renamed
	defer func() { _ = to.Close() }()
	t.part("reading", 0, before.Size())
	sum := newHash(spec.Digest())
	in := io.TeeReader(&counting{f, t}, sum)
	if err := s.unpack(ctx, manifest.Compression(spec.Source), in, to); err != nil {
		return fail(spec, op, err, hintOf(err))
	}
	// What lies behind the packed content belongs to the file, too.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fail(spec, op, bare(err), "")
	}
	after, err := f.Stat()
	if err != nil {
		return fail(spec, op, bare(err), "")
	}
	state := stateOf(before)
	if stateOf(after) != state {
		return fail(spec, op, ErrChanged, "wait until nobody writes to it")
	}
	digest := sumOf(sum)
	if want := spec.Digest(); want != "" && want != digest {
		return fail(spec, op, wrongDigest(want, digest), "see whether the file is what was meant, and correct the digest if so")
	}
	if spec.Digest() != "" {
		return fail(spec, "keep", s.keep(ctx, spec, digest, to.Name(), t), "")
	}
	return fail(spec, "keep", s.keepSource(ctx, spec, sourceRecord{Version: recordVersion, Path: spec.Source, Digest: digest, File: state}, to.Name(), t), "")
}

// keepSource keeps an image of a file without a digest, and remembers which it is.
func (s *Store) keepSource(ctx context.Context, spec manifest.ImageSpec, src sourceRecord, temp string, t *transfer) error {
	lock, err := s.lockImage(ctx, layout.ImageKey(src.Digest))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	if err := s.keep(ctx, spec, src.Digest, temp, t); err != nil {
		return err
	}
	return write(s.cfg.Layout.ImageSource(sourceKey(src.Path)), src)
}

// lockImage waits for the right to an image for as long as the table gives to locks.
func (s *Store) lockImage(ctx context.Context, key string) (*filelock.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Lock)
	defer cancel()
	return s.cfg.Locks.Lock(ctx, s.cfg.Layout.ImageLock(key))
}

// counting tells of what is read.
type counting struct {
	r io.Reader
	t *transfer
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.t.add(n)
	return n, err
}

// bare is an error without the path that it names, for messages that name it already.
func bare(err error) error {
	if withPath, ok := errors.AsType[*os.PathError](err); ok {
		return withPath.Err
	}
	return err
}

// hintOf is what to do about a cause.
func hintOf(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return "make room, for example with: maqet image prune"
	case errors.Is(err, errPacked):
		return "see whether the source is what its name says: .xz, .gz and .zst are unpacked"
	case errors.Is(err, ErrTooMuch):
		return "see whether the source is what was meant"
	case errors.Is(err, ErrStalled):
		return "try again later, from another mirror, or allow more time with --timeouts stall=DURATION"
	default:
		return ""
	}
}
