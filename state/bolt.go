package state

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// bolt is an open bbolt database, which is only ever written through: reading
// is done from memory, after everything was checked.
type bolt struct {
	db   *bbolt.DB
	file *os.File
	// broken tells that bbolt panicked, so that its own locks may be stuck.
	broken bool
}

// openBolt opens a database that was checked, or with O_EXCL in flags makes a
// new one.
func openBolt(path string, flags int, timeout time.Duration) (*bolt, error) {
	b := &bolt{}
	options := &bbolt.Options{
		Timeout:      timeout,
		PageSize:     pageSize,
		FreelistType: bbolt.FreelistArrayType,
		NoStatistics: true,
		OpenFile: func(name string, given int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, given&^os.O_CREATE|flags, mode) //nolint:gosec // the store's own file.
			b.file = f
			return f, err
		},
	}
	err := b.guard(func() (err error) {
		b.db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if err != nil {
		if b.broken {
			err = errors.Join(err, b.close())
		}
		return nil, err
	}
	return b, nil
}

// guard turns a panic of bbolt, or a fault of the memory that is the file,
// into an error. After that the database can only be closed.
func (b *bolt) guard(call func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			b.broken = true
			err = fmt.Errorf("%w: bbolt: %v", ErrDamaged, p)
		}
	}()
	return call()
}

// write commits changes in one transaction; a nil value deletes.
func (b *bolt) write(changes map[place][]byte) error {
	return b.guard(func() error {
		return b.db.Update(func(tx *bbolt.Tx) error {
			for at, envelope := range changes {
				if err := change(tx, at, envelope); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func change(tx *bbolt.Tx, at place, envelope []byte) error {
	bucket, err := tx.CreateBucketIfNotExists([]byte(at.bucket))
	if err != nil {
		return err
	}
	if envelope == nil {
		return bucket.Delete([]byte(at.key))
	}
	return bucket.Put([]byte(at.key), envelope)
}

// close closes the database. After a panic it closes only the file, since
// bbolt's own closing may wait for ever. The mapping remains and keeps the open
// file alive, so that its lock must be released by itself.
func (b *bolt) close() error {
	if !b.broken {
		return b.guard(b.db.Close)
	}
	if b.file == nil {
		return nil
	}
	err := errors.Join(unix.Flock(int(b.file.Fd()), unix.LOCK_UN), b.file.Close())
	if errors.Is(err, os.ErrClosed) {
		return nil // bbolt got so far as to close it
	}
	return err
}
