package qemu

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/filelock"
)

// hintQueue is how many hints wait for a slow consumer. What is more is told by one
// hint that things were missed.
const hintQueue = 64

// Watch stays connected to a machine's QEMU and calls hint for each of its events,
// HintConnected each time it begins to listen, and HintExit once the process is gone,
// which it notices at once. It returns nil then, and ctx's error when that ends first.
//
// Hint is called by one goroutine, Watch's own. However long it takes, QEMU is not
// kept waiting, and what QEMU says of its own end is written down for everybody who
// looks at the machine afterwards.
//
// QEMU tells its events to one listener. While another has that place, Watch waits
// for it, and still notices the end of the process.
func (d *Driver) Watch(ctx context.Context, name string, hint func(driver.Hint)) error {
	const op = "watch"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	l, err := d.look(name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer l.close()
	switch l.standing {
	case standingAbsent:
		hint(driver.Hint{Kind: driver.HintExit})
		return nil
	case standingForeign:
		return fail(op, name, l.foreign(), l.presentHint(name))
	case standingOurs, standingLost:
	}
	w := &watcher{driver: d, name: name, look: l, hints: make(chan driver.Hint, hintQueue)}
	result := make(chan error, 1)
	go func() {
		result <- w.run(ctx)
		close(w.hints)
	}()
	for h := range w.hints {
		if ctx.Err() == nil {
			hint(h)
		}
		if w.missed.Swap(false) && ctx.Err() == nil {
			hint(driver.Hint{Kind: driver.HintConnected})
		}
	}
	err = <-result
	if err == nil {
		hint(driver.Hint{Kind: driver.HintExit})
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fail(op, name, err, "")
}

// watcher listens to one process of one machine.
type watcher struct {
	driver *Driver
	name   string
	look   *look
	hints  chan driver.Hint
	// missed tells that a hint found no place.
	missed atomic.Bool
	// said is the last reason that was logged for not being connected.
	said string
	// taken is since when somebody else has had the place of the listener; zero for
	// nobody.
	taken time.Time
	// asked tells that this is no watch: somebody has asked for the end and only waits
	// for it. Where a watch listens, that one does what there is to do.
	asked bool
	// woken tells that the process was told to go on ending, and that this was said.
	woken bool
}

// tell passes a hint on, and never waits.
func (w *watcher) tell(kind string) {
	select {
	case w.hints <- driver.Hint{Kind: kind}:
	default:
		w.missed.Store(true)
	}
}

// run listens until the process has ended, for which it returns nil.
func (w *watcher) run(ctx context.Context) error {
	alive, ended := context.WithCancel(ctx)
	defer ended()
	exit := make(chan error, 1)
	go func() {
		err := w.look.process.wait(alive)
		if err == nil && !w.asked {
			// Why it ended is found out and told later, which takes longer.
			w.driver.log.InfoContext(alive, "machine ended", "vm", w.name, "pid", w.look.process.pid)
		}
		exit <- err
		ended()
	}()
	failures := 0 // in a row
	for wait := firstTry; alive.Err() == nil; wait = min(2*wait, lastTry) {
		err := w.session(alive)
		failures++
		if err == nil {
			wait, failures = firstTry, 0
		}
		if errors.Is(err, context.DeadlineExceeded) {
			w.finishOld(alive)
		}
		_ = pause(alive, wait) // its end is the loop's
		// A QEMU that is killed lets go of its sockets a moment before it is seen to end.
		if failures != 1 {
			w.complain(alive, err)
		}
	}
	return <-exit
}

// complain logs why nobody listens, each reason once. A command that waits for the
// machine's end listens for a while, which is no reason.
func (w *watcher) complain(alive context.Context, err error) {
	switch held := errors.Is(err, filelock.ErrHeld); {
	case !held:
		w.taken = time.Time{}
	case w.taken.IsZero():
		w.taken = time.Now()
		fallthrough
	case time.Since(w.taken) < w.driver.timing.Lock:
		return
	}
	switch {
	case alive.Err() != nil, w.asked:
	case err == nil:
		w.said = ""
	case err.Error() != w.said:
		w.said = err.Error()
		w.driver.log.WarnContext(alive, "cannot listen to the machine's events, and try again", "vm", w.name, "err", err)
	}
}

// session listens for as long as one connection lasts. The error says why there was none.
func (w *watcher) session(alive context.Context) error {
	d := w.driver
	lock, err := d.locks.TryLock(d.layout.QMPLock(w.name))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }() // the kernel frees it all the same
	var who uuidReply
	call := qmp.NewCall("query-uuid", nil, &who)
	conn, err := qmp.DialPipelined(alive, d.layout.QMPSocket(w.name), qmp.Options{Handshake: d.timing.Greeting}, call)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it only listened
	if err := d.wait(alive, call); err != nil {
		return err
	}
	if !strings.EqualFold(who.UUID, w.look.uid()) {
		return wrongUUID(who.UUID, w.look.uid())
	}
	w.tell(driver.HintConnected)
	notes := d.newNotes(w.name, w.look.launched)
	w.listen(alive, conn, notes)
	// A QEMU that ends lets go of its socket first.
	if err := pause(alive, d.timing.Greeting); err == nil || !w.look.process.exited() {
		return nil
	}
	// Whoever looks at the machine now waits for the lock, and finds all of it.
	return notes.exited(alive)
}

// listen passes on what QEMU says until the connection or the process has ended.
func (w *watcher) listen(alive context.Context, conn *qmp.Conn, notes *notes) {
	events := conn.Subscribe()
	var lost uint64
	done := alive.Done()
	var deadline, late <-chan time.Time
	if w.asked && w.toldToQuit() {
		late = w.ending()
	}
	for {
		select {
		case <-done:
			if !w.look.process.exited() {
				return
			}
			// Its last words are still in the socket, up to its end.
			done, deadline = nil, time.After(w.driver.timing.Greeting)
		case <-deadline:
			return
		case <-late:
			late = nil
			if w.finish(alive, conn) {
				late = w.ending() // It may hang once more.
			}
		case e, ok := <-events.C():
			if !ok {
				return
			}
			if n := events.Dropped(); n != lost {
				lost = n
				w.tell(driver.HintConnected)
			}
			w.complain(alive, notes.event(e))
			w.tell(e.Name)
			if e.Name == eventShutdown {
				late = w.ending()
			}
		}
	}
}
