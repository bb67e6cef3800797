package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// handle is a hold on one process that no other process can slip into: a pidfd
// names the process itself, not its number.
type handle struct {
	pid int
	// start is the kernel's start time of the process, zero when not known.
	start uint64
	fd    *os.File
}

// openHandle takes hold of the process that has the pid now. The error is
// errNoProcess when there is none.
func openHandle(pid int) (*handle, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) {
		// Before Linux 5.10 the flag is not known.
		if fd, err = unix.PidfdOpen(pid, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		// The last two say that the number is a thread's by now.
		return nil, errNoProcess
	case err != nil:
		return nil, fmt.Errorf("hold process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	return newHandle(pid, fd), nil
}

// newHandle wraps a pidfd in non-blocking mode, which Go's poller can wait for.
func newHandle(pid, fd int) *handle {
	return &handle{pid: pid, fd: os.NewFile(uintptr(fd), fmt.Sprintf("pidfd of %d", pid))}
}

// close lets go of the process.
func (h *handle) close() { _ = h.fd.Close() } // a pidfd has nothing to lose

// exited tells whether the process has ended. A zombie has.
func (h *handle) exited() bool {
	over := false
	raw, err := h.fd.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) { over = readable(fd) })
	return err == nil && over
}

// readable tells whether a pidfd's process has ended.
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor is small
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// wait returns when the process has ended, and ctx's error when ctx ends first. It
// waits in Go's poller, so the end is noticed at once and no thread is held.
func (h *handle) wait(ctx context.Context) error {
	raw, err := h.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", h.pid, err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = h.fd.SetReadDeadline(time.Unix(1, 0)) // fails only when closed, which ends the wait too
	})
	defer func() {
		if !stop() {
			<-interrupted
			_ = h.fd.SetReadDeadline(time.Time{})
		}
	}()
	if err := raw.Read(readable); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("wait for process %d: %w", h.pid, err)
	}
	return nil
}

// signal sends a signal to the process, and to no other. A process that has
// ended is no error; a handle that was closed is [os.ErrClosed].
func (h *handle) signal(sig unix.Signal) error {
	raw, err := h.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("signal process %d: %w", h.pid, err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err != nil {
		// A file that is being closed says so in words of its own here, but not to Stat.
		if _, closed := h.fd.Stat(); errors.Is(closed, os.ErrClosed) {
			err = closed
		}
	} else if !errors.Is(sent, unix.ESRCH) {
		err = sent
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", h.pid, err)
	}
	return nil
}
