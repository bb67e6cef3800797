package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockRetry is how often a held lock is tried again. A blocked flock could not be
// given up when the context ends.
const lockRetry = 10 * time.Millisecond

// lockFolder waits for the right to create images in dir. The kernel lets go of
// it when this process dies. The lock file stays, since unlinking it would let two
// processes hold two different files of one name.
func (i *Images) lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	path := filepath.Join(dir, createLock)
	if limit := i.timing.Lock; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600) //nolint:gosec // G304: in the caller's folder
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		retry := time.NewTimer(lockRetry)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			_ = f.Close()
			return nil, fmt.Errorf("wait for another process that creates a disk here (%s): %w", path, ctx.Err())
		}
	}
}
