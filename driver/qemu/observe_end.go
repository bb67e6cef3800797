package qemu

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/maqet/maqet/driver"
)

// signalWords are what QEMU writes on stderr when a signal asks it to end.
const signalWords = "terminating on signal"

// leakWords are among QEMU's last ones when it aborts at the very end of an orderly
// end: QEMU 7.2 does when somebody visits it at that moment.
const leakWords = "'monitor_accept_input' leaked, aborting"

// ended says how the last process ended, by what it left behind. Nobody need have
// watched: an orderly end removes pid file and sockets, any other leaves them.
// What QEMU itself said of its end, when somebody listened, tells more.
func (d *Driver) ended(ctx context.Context, name string, l *look, now time.Time) *driver.Ended {
	words := new(lastEvent)
	if l.sameBoot() && l.confirmed {
		if said := d.lastWords(ctx, name, l.launched); said != nil {
			words = said
		}
	}
	e := &driver.Ended{
		Cause: d.endCause(name, l, words), At: now, Boot: l.launched.BootID, Exit: exitNotSeen,
		LastLine: lastLine(d.layout.QEMULog(name), l.launched.LogOffset), UID: l.launched.UID,
	}
	if k := d.children.of(l.launched); k != nil {
		e.Exit = k.words()
	} else if words.Exit != "" {
		e.Exit = words.Exit
	}
	if s := words.Shutdown; s != nil {
		e.Reason = s.Reason
	}
	if !words.EndedAt.IsZero() {
		e.At = words.EndedAt
		return e
	}
	switch e.Cause {
	case driver.EndHostReboot:
		if booted, err := d.proc.bootTime(); err == nil {
			e.At = booted
		}
	case driver.EndStopped, driver.EndGuest, driver.EndSignal, driver.EndPanic, driver.EndWatchdog, driver.EndQuit:
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
func (d *Driver) endCause(name string, l *look, words *lastEvent) driver.EndCause {
	stop := l.intent != nil && l.intent.UID == l.launched.UID &&
		(l.intent.Kind == driver.IntentStop || l.intent.Kind == driver.IntentRestart)
	said, told := words.cause()
	var log []byte
	orderly := isGone(d.layout.PIDFile(name)) && isGone(d.layout.CLISocket(name))
	if !told {
		log = lastWordsOf(d.layout.QEMULog(name), l.launched.LogOffset)
		orderly = orderly || bytes.Contains(log, []byte(leakWords))
	}
	switch {
	case !l.sameBoot():
		return driver.EndHostReboot
	case !l.confirmed:
		return driver.EndStartFailed
	case stop:
		return driver.EndStopped
	case said == driver.EndWatchdog && isGone(d.layout.PIDFile(name)):
		// QEMU leaves its sockets behind then.
		return said
	case words.Shutdown != nil:
		// The guest was off by then, and its disks about to be closed. How QEMU fared
		// with the rest is not what ended it.
		return said
	case !orderly:
		return driver.EndCrash
	case told:
		return said
	case bytes.Contains(log, []byte(signalWords)):
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
