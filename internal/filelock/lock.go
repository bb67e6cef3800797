package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// errBusy tells that another has the lock or waits for it.
var errBusy = errors.New("busy")

// Lock is a lock that is held.
type Lock struct {
	manager *Manager
	mu      sync.Mutex
	fd      int // -1 once released
}

// Unlock releases the lock. Further calls do nothing.
func (l *Lock) Unlock() error {
	l.manager.fence()
	return l.release()
}

func (l *Lock) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	// Closing alone would not do while a child between fork and exec has a copy.
	err := errors.Join(retry(func() error { return unix.Flock(fd, unix.LOCK_UN) }), unix.Close(fd))
	if err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}

// acquireNow takes the lock without waiting, or gives errBusy.
func acquireNow(path string) (int, error) {
	return acquire(path, unix.F_OFD_SETLK, unix.LOCK_EX|unix.LOCK_NB)
}

// acquireWaiting waits for the lock, however long that takes.
func acquireWaiting(path string) (int, error) {
	return acquire(path, unix.F_OFD_SETLKW, unix.LOCK_EX)
}

// acquire locks the file of that path. A file that was removed in the meantime
// protects nothing, so then it starts over.
func acquire(path string, turnstile, lock int) (int, error) {
	for {
		fd, err := open(path)
		if err != nil {
			return -1, err
		}
		if err := pass(fd, turnstile, lock); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
		same, err := isAt(fd, path)
		if err == nil && same {
			return fd, nil
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return -1, err
		}
	}
}

// pass goes through the turnstile and takes the lock. The turnstile is free
// again when it returns.
func pass(fd, turnstile, lock int) error {
	err := retry(func() error { return setRange(fd, turnstile, unix.F_WRLCK) })
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return errBusy
	case err != nil && !unsupported(err):
		return os.NewSyscallError("fcntl", err)
	}
	err = retry(func() error { return unix.Flock(fd, lock) })
	if free := retry(func() error { return setRange(fd, unix.F_OFD_SETLK, unix.F_UNLCK) }); free != nil && !unsupported(free) {
		return os.NewSyscallError("fcntl", free)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return os.NewSyscallError("flock", err)
}

// setRange locks or unlocks the first byte for the open file of fd.
func setRange(fd, how int, kind int16) error {
	return unix.FcntlFlock(uintptr(fd), how, &unix.Flock_t{Type: kind, Len: 1})
}

// unsupported tells that the file system has no such locks. Then waiting is
// only as fair as the kernel is, and exclusion is not touched.
func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP)
}

// open opens the lock file, and makes it and its folders when missing. The
// descriptor stays out of children and follows no planted link.
func open(path string) (int, error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW
	var fd int
	try := func() (err error) {
		fd, err = unix.Open(path, flags, 0o600)
		return err
	}
	err := retry(try)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return -1, fmt.Errorf("make the folder of the lock file: %w", err)
		}
		err = retry(try)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// isAt tells whether path still names the open file.
func isAt(fd int, path string) (bool, error) {
	var open, named unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &open) }); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	err := retry(func() error { return unix.Lstat(path, &named) })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return open.Dev == named.Dev && open.Ino == named.Ino, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
