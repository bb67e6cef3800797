package qemu

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver/qmp"
)

// QEMU 7.2 closes its disks when it ends, and then waits for whoever asks it
// something at that moment, in a way that misses the wake-up: it hangs with nothing
// left to do. A polite signal wakes it, and changes nothing for one that is ending
// anyway. One that answers is left alone, since somebody told it not to end with its
// guest.

// wakeAgain is how long a QEMU that was woken by a visitor may take to end, or to
// hang once more.
const wakeAgain = 200 * time.Millisecond

// finish ends a QEMU that has told of its end and then neither ends nor answers. It
// tells whether it was woken.
func (w *watcher) finish(alive context.Context, conn *qmp.Conn) bool {
	asking, cancel := context.WithTimeout(alive, w.driver.timing.Query)
	defer cancel()
	if err := conn.Do(asking, "query-status", nil, nil); err == nil || asking.Err() == nil || alive.Err() != nil {
		return false
	}
	w.wake(alive)
	return true
}

// finishOld does the same for a QEMU that could not be talked to: what it said
// last was heard by an earlier listener.
func (w *watcher) finishOld(alive context.Context) {
	if alive.Err() != nil {
		return
	}
	e, err := w.driver.readLastEvent(w.name, w.look.launched)
	if err == nil && e != nil && e.Shutdown != nil {
		w.wake(alive)
	}
}

// wake sends the signal, and says so the first time.
func (w *watcher) wake(alive context.Context) {
	err := w.look.process.signal(unix.SIGTERM)
	if w.woken && err == nil {
		return
	}
	w.woken = true
	w.driver.logWoken(alive, w.name, err)
}

func (d *Driver) logWoken(ctx context.Context, name string, err error) {
	d.log.WarnContext(ctx, "QEMU told that it ends, and hung; it was told to go on ending", "vm", name, "err", err)
}

// ending is when a QEMU that tells of its end now should have ended.
func (w *watcher) ending() <-chan time.Time { return time.After(w.driver.timing.Query) }

// finishHeard does the same for a visitor to whom QEMU does not answer: it may be his
// own question that QEMU hangs over, and then it has told him of its end before.
// Where somebody listens to the machine's events, it is left to him, who hears the
// same. It tells whether the process is gone.
func (d *Driver) finishHeard(ctx context.Context, name string, l *look, conn *qmp.Conn) bool {
	if conn == nil || l.process == nil || ctx.Err() != nil {
		return false
	}
	e := conn.Shutdown()
	if e == nil {
		return false
	}
	waiting, cancel := context.WithTimeout(ctx, d.timing.Greeting)
	defer cancel()
	lock, err := d.locks.TryLock(d.layout.QMPLock(name))
	if err != nil {
		return l.process.wait(waiting) == nil
	}
	defer func() { _ = lock.Unlock() }() // the kernel frees it all the same
	// What it said is written down first: the signal makes it say something else.
	notes := d.newNotes(name, l.launched)
	if err := notes.event(*e); err != nil {
		d.log.WarnContext(ctx, "what QEMU said of its end cannot be written down", "vm", name, "err", err)
	}
	for first := true; waiting.Err() == nil; first = false {
		if err := l.process.signal(unix.SIGTERM); first || err != nil {
			d.logWoken(ctx, name, err)
		}
		moment, enough := context.WithTimeout(waiting, wakeAgain)
		err := l.process.wait(moment)
		enough()
		if err == nil {
			if err := notes.exited(ctx); err != nil {
				d.log.WarnContext(ctx, "when QEMU ended cannot be written down", "vm", name, "err", err)
			}
			return true
		}
	}
	return false
}
