package qmp

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// DoWithFile is Do for commands that take a file descriptor, getfd and add-fd.
// The descriptor travels with the command (SCM_RIGHTS); f stays open and remains
// the caller's. It needs a unix socket.
func (c *Conn) DoWithFile(ctx context.Context, command string, args, result any, f *os.File) error {
	socket, ok := c.nc.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("qmp %s: a file descriptor needs a unix socket, this is a %T", command, c.nc)
	}
	fd, err := duplicate(f)
	if err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	defer func() { _ = unix.Close(fd) }() // only the copy; nothing was written to it

	call := NewCall(command, args, result)
	err = c.send(ctx, []*Call{call}, func(b []byte) (int, error) {
		n, _, err := socket.WriteMsgUnix(b, unix.UnixRights(fd), nil)
		if err != nil || n == len(b) {
			return n, err
		}
		more, err := socket.Write(b[n:]) // the descriptor went with the first part
		return n + more, err
	}, c.nextID)
	if err != nil {
		return err
	}
	return call.Wait(ctx)
}

// duplicate returns a descriptor of f that stays valid however long the write
// takes. Going through SyscallConn leaves f's blocking mode alone.
func duplicate(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("descriptor of %s: %w", f.Name(), err)
	}
	dup := -1
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate the descriptor of %s: %w", f.Name(), err)
	}
	return dup, nil
}
