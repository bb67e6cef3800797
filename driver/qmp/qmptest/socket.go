package qmptest

import (
	"errors"
	"syscall"
)

// isHangup reports whether err is a unix socket's way of saying that the client
// is gone.
func isHangup(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// readable looks whether there is input, without taking it; false makes the
// poller wait for some.
func readable(fd uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return !errors.Is(err, syscall.EAGAIN)
}
