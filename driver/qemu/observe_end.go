package qemu

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/maqet/maqet/driver"
)

// signalWords are what QEMU writes on stderr when a signal asks it to end.
const signalWords = "terminating on signal"

// ended says how the last process ended, by what it left behind. Nobody need have
// watched: an orderly end removes pid file and sockets, any other leaves them.
func (d *Driver) ended(name string, l *look, now time.Time) *driver.Ended {
	e := &driver.Ended{
		Cause: d.endCause(name, l), At: now, Boot: l.launched.BootID, Exit: exitNotSeen,
		LastLine: lastLine(d.layout.QEMULog(name), l.launched.LogOffset), UID: l.launched.UID,
	}
	if k := d.children.of(l.launched); k != nil {
		e.Exit = k.words()
	}
	switch e.Cause {
	case driver.EndHostReboot:
		if booted, err := d.proc.bootTime(); err == nil {
			e.At = booted
		}
	case driver.EndStopped, driver.EndGuest, driver.EndSignal:
		// The removal of the last file is the last thing that happened to the folder.
		if info, err := os.Stat(d.layout.RunDir(name)); err == nil {
			e.At = info.ModTime()
		}
	case driver.EndCrash, driver.EndStartFailed:
		// When it was is not written anywhere; it was found now.
	}
	return e
}

// endCause is why the last process ended.
func (d *Driver) endCause(name string, l *look) driver.EndCause {
	stop := l.intent != nil && l.intent.UID == l.launched.UID &&
		(l.intent.Kind == driver.IntentStop || l.intent.Kind == driver.IntentRestart)
	orderly := isGone(d.layout.PIDFile(name)) && isGone(d.layout.CLISocket(name))
	switch {
	case !l.sameBoot():
		return driver.EndHostReboot
	case !l.confirmed:
		return driver.EndStartFailed
	case stop:
		return driver.EndStopped
	case !orderly:
		return driver.EndCrash
	case bytes.Contains(lastWordsOf(d.layout.QEMULog(name), l.launched.LogOffset), []byte(signalWords)):
		return driver.EndSignal
	default:
		return driver.EndGuest
	}
}

// isGone tells whether there is no such file.
func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
