package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// largest is the size above which a file is not read: no set of machines that
// one host can run comes near it.
const largest = 1 << 30

// look reads the database for a View. It needs no lock as long as no commit
// falls into the reading: bbolt never writes over pages that the newest meta
// page refers to, so the same metas before and after mean that everything
// between them belongs together. When that does not succeed, or shows damage,
// the lock makes sure that nobody writes.
func (s *Store) look(ctx context.Context) (*contents, error) {
	if c := s.recall(); c != nil {
		return c, nil
	}
	const attempts = 3
	for range attempts {
		before, statErr := os.Stat(s.cfg.Path)
		data, stable, err := readDatabase(s.cfg.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return empty(), nil
		}
		if err != nil {
			return nil, err
		}
		if !stable {
			continue
		}
		c, err := examine(data)
		if err == nil && len(c.damage) == 0 {
			if statErr == nil {
				if is, sure := stampOf(before, time.Now()); sure {
					s.remember(c, is)
				}
			}
			return c, nil
		}
		break
	}
	return s.lookLocked(ctx)
}

// lookLocked reads the database while nobody writes.
func (s *Store) lookLocked(ctx context.Context) (c *contents, err error) {
	lock, err := s.cfg.Locks.Lock(ctx, s.cfg.LockPath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	data, _, err := readDatabase(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty(), nil
	}
	if err != nil {
		return nil, err
	}
	return examine(data)
}

// readDatabase reads the whole file. It is stable when no commit happened
// meanwhile.
func readDatabase(path string) (data []byte, stable bool, err error) {
	f, err := os.Open(path) //nolint:gosec // the store's own file.
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, false, err
	case !info.Mode().IsRegular():
		return nil, false, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > largest:
		return nil, false, fmt.Errorf("%s has %d bytes, which is no database of maqet", path, info.Size())
	}
	data = make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	data = data[:n]
	same, err := sameMetas(f, metaPages(data))
	return data, same, err
}

// metaPages are the first two pages, as far as they are there.
func metaPages(data []byte) []byte {
	return bytes.Clone(data[:min(len(data), firstDataPage*pageSize)])
}

// sameMetas tells whether the file's meta pages are still those given.
func sameMetas(f *os.File, metas []byte) (bool, error) {
	now := make([]byte, len(metas))
	n, err := f.ReadAt(now, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(now[:n], metas), nil
}
