package qemu

import (
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
)

// fileID is what tells the file at path from others; zero when there is none.
func fileID(path string) driver.FileID {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return driver.FileID{}
	}
	return driver.FileID{Dev: st.Dev, Ino: st.Ino}
}

// knownListener is the machine's uuid where it is proved without a question that the
// process which was found answers at the socket for short visits, and else empty.
//
// A socket that is bound holds on to its file as long as somebody listens, so that no
// other file gets its number, and connecting by a path leads to the socket that is bound
// to the file there (unix(7)). The listening end was given to that process alone. So
// while the process lives, the file of the launch record leads to it.
func (d *Driver) knownListener(name string, l *look) string {
	if l.standing != standingOurs || l.launched.CLISocket == (driver.FileID{}) || fileID(d.layout.CLISocket(name)) != l.launched.CLISocket {
		return ""
	}
	return l.uid()
}
