package qemu

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// finish ends a QEMU that has told of its end and then neither ends nor answers.
//
// QEMU 7.2 closes its disks, and then waits for whoever asks it something at that
// moment, in a way that misses the wake-up: it hangs with nothing left to do. A
// polite signal wakes it, and changes nothing for one that is ending anyway. One
// that answers is left alone, since somebody told it not to end with its guest.
func (w *watcher) finish(alive context.Context, conn *qmp.Conn) {
	asking, cancel := context.WithTimeout(alive, w.driver.timing.Query)
	defer cancel()
	if err := conn.Do(asking, "query-status", nil, nil); err == nil || asking.Err() == nil || alive.Err() != nil {
		return
	}
	w.wake(alive)
}

// finishOld does the same for a QEMU that could not be talked to: what it said
// last was heard by an earlier listener. One that was told to quit said nothing to
// anybody who came after that; for it, the signal is the same word once more.
func (w *watcher) finishOld(alive context.Context) {
	if alive.Err() != nil || w.woken {
		return
	}
	e, err := w.driver.readLastEvent(w.name, w.look.launched)
	if err == nil && e != nil && e.Shutdown != nil || w.asked && w.toldToQuit() {
		w.wake(alive)
	}
}

// toldToQuit tells whether this process was told to quit.
func (w *watcher) toldToQuit() bool {
	in := w.look.intent
	return in != nil && in.UID == w.look.uid() && in.Stage == driver.StageQuit
}

// wake sends the signal, once.
func (w *watcher) wake(alive context.Context) {
	w.woken = true
	err := w.look.process.signal(unix.SIGTERM)
	w.driver.log.WarnContext(alive, "QEMU told that it ends, and hung; it was told to go on ending", "vm", w.name, "err", err)
}

// ending is when a QEMU that tells of its end now should have ended.
func (w *watcher) ending() <-chan time.Time { return time.After(w.driver.timing.Query) }
