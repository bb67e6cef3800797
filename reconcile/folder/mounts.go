package folder

import (
	"errors"

	"golang.org/x/sys/unix"
)

// watchMounts gives a channel that receives when something was mounted or
// unmounted. Where the kernel's table cannot be watched, it never receives, and
// the slow listing is what notices.
//
// The goroutine behind it sits in poll(2), for the kernel marks a change of the
// table by an exceptional condition, for which Go's own poller does not wait, and
// marks it only for the first who asks. So the table is no os.File either: Go's
// poller would be the one who asks.
func watchMounts() (<-chan struct{}, closing) {
	changed := make(chan struct{}, 1)
	table, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return changed, func() {}
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(table) // only read from
		return changed, func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for isChanged(table, end) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, func() {
		_, _ = unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // the first write to a counter succeeds
		<-done
		_ = unix.Close(table) // only read from
		_ = unix.Close(end)
	}
}

// isChanged waits until the table has changed, or is false when it is to end.
func isChanged(table, end int) bool {
	fds := []unix.PollFd{
		{Fd: int32(table), Events: unix.POLLPRI}, //nolint:gosec // a descriptor is small.
		{Fd: int32(end), Events: unix.POLLIN},    //nolint:gosec // a descriptor is small.
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || fds[1].Revents != 0:
			return false
		case fds[0].Revents != 0:
			return true
		}
	}
}
