package qemu

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// Looking at a machine reads some ten small files, and a search one for each process
// of the host. The system calls are made directly: package os also prepares to wait
// for each file that it opens, which takes longer than reading it.

// readProc reads a file of /proc into a buffer that may be used again.
func readProc(path string, into []byte) ([]byte, error) {
	fd, err := openFile(path, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // it was only read
	return readDescriptor(fd, path, into, maxRecord)
}

// readFileOf reads a regular file, no more than maxRecord of it, and tells whose it
// is. In a folder of another user there may be links and pipes instead.
func readFileOf(path string) (text []byte, owner int, err error) {
	fd, err := openFile(path, unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = unix.Close(fd) }() // it was only read
	var stat unix.Stat_t
	if err := retryInterrupted(func() error { return unix.Fstat(fd, &stat) }); err != nil {
		return nil, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
	}
	// Room for one byte more shows the end without growing.
	room := min(max(stat.Size, 0), maxRecord) + 1
	text, err = readDescriptor(fd, path, make([]byte, 0, room), maxRecord)
	return text, int(stat.Uid), err
}

// openFile opens a file for reading. The descriptor stays out of children.
func openFile(path string, flags int) (fd int, err error) {
	err = retryInterrupted(func() error {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// readDescriptor reads to the end, or up to a limit.
func readDescriptor(fd int, path string, into []byte, limit int) ([]byte, error) {
	const room = 512
	text := into[:0]
	for len(text) < limit {
		if len(text) == cap(text) {
			text = slices.Grow(text, room)
		}
		n := 0
		err := retryInterrupted(func() (err error) {
			n, err = unix.Read(fd, text[len(text):min(cap(text), limit)])
			return err
		})
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			break
		}
		text = text[:len(text)+n]
	}
	return text, nil
}

// retryInterrupted repeats a system call that a signal interrupted.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
