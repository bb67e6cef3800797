package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/durable"
)

// lastEventVersion is the format of last-event.json that this maqet writes.
const lastEventVersion = 1

// lastEvent is what QEMU said of its own end. It is a fact about one start of one
// machine, and void for any other.
type lastEvent struct {
	Version int `json:"version"`
	// UID and Launched name the start that it is about.
	UID      string    `json:"uid"`
	Launched time.Time `json:"launched"`
	// Shutdown is the event SHUTDOWN; nil when it did not come.
	Shutdown *shutdownEvent `json:"shutdown,omitempty"`
	// Panicked and Watchdog are what QEMU did upon the events GUEST_PANICKED and
	// WATCHDOG; empty when they did not come in the present run of the guest.
	Panicked string `json:"panicked,omitempty"`
	Watchdog string `json:"watchdog,omitempty"`
	// EndedAt is when the process was gone, Exit its status in words.
	EndedAt time.Time `json:"endedAt,omitzero"`
	Exit    string    `json:"exit,omitempty"`
}

// shutdownEvent is the data of SHUTDOWN.
type shutdownEvent struct {
	Guest  bool   `json:"guest"`
	Reason string `json:"reason"`
}

// QEMU's reasons for a shutdown, as SHUTDOWN tells them.
const (
	reasonHostError   = "host-error"
	reasonQuit        = "host-qmp-quit"
	reasonReset       = "host-qmp-system-reset"
	reasonSignal      = "host-signal"
	reasonUI          = "host-ui"
	reasonPanic       = "guest-panic"
	actionPoweroff    = "poweroff"
	eventShutdown     = "SHUTDOWN"
	eventReset        = "RESET"
	eventPanicked     = "GUEST_PANICKED"
	eventWatchdog     = "WATCHDOG"
	notesWait         = 500 * time.Millisecond
	lastEventReadHint = "remove the file; why the machine ended is then told by what else it left"
)

// cause is why the process ended, as far as QEMU said so.
func (e *lastEvent) cause() (driver.EndCause, bool) {
	switch {
	case e.Shutdown != nil:
		return e.Shutdown.cause(), true
	case e.Panicked == actionPoweroff:
		return driver.EndPanic, true
	case e.Watchdog == actionPoweroff:
		// QEMU ends there and then, without a SHUTDOWN.
		return driver.EndWatchdog, true
	default:
		return "", false
	}
}

// cause tells the guest's own end from that which somebody else brought about.
func (s *shutdownEvent) cause() driver.EndCause {
	switch s.Reason {
	case reasonQuit, reasonReset, reasonUI:
		return driver.EndQuit
	case reasonSignal:
		return driver.EndSignal
	case reasonHostError:
		return driver.EndCrash
	case reasonPanic:
		return driver.EndPanic
	default:
		if s.Guest {
			return driver.EndGuest
		}
		return driver.EndQuit
	}
}

// readLastEvent is what QEMU said of the end of a start; nil when nobody listened.
func (d *Driver) readLastEvent(name string, of *driver.Launched) (*lastEvent, error) {
	path := d.layout.LastEvent(name)
	e, err := readRecordFile[lastEvent](path, lastEventReadHint)
	switch {
	case err != nil:
		return nil, err
	case e == nil || of == nil || e.UID != of.UID || !e.Launched.Equal(of.At):
		return nil, nil //nolint:nilnil // no note is an answer of its own
	case e.Version > lastEventVersion:
		return nil, newerRecord(path, e.Version, lastEventVersion)
	}
	return e, nil
}

// lastWords is what QEMU said of the end of a process that is gone. Somebody who
// listens may be about to write it down, so his place is waited for a moment. What
// cannot be read was not said.
func (d *Driver) lastWords(ctx context.Context, name string, of *driver.Launched) *lastEvent {
	e, err := d.readLastEvent(name, of)
	if err == nil && (e == nil || e.EndedAt.IsZero()) {
		waiting, cancel := context.WithTimeout(ctx, notesWait)
		defer cancel()
		if lock, held := d.locks.Lock(waiting, d.layout.QMPLock(name)); held == nil {
			_ = lock.Unlock() // the kernel frees it all the same
		}
		e, err = d.readLastEvent(name, of)
	}
	if err != nil {
		d.log.WarnContext(ctx, "what QEMU said of its end cannot be read", "vm", name, "err", err)
		return nil
	}
	return e
}

// notes write down what QEMU says of its own end, while its place is held.
type notes struct {
	driver   *Driver
	name     string
	launched *driver.Launched
	seen     lastEvent
}

// newNotes goes on with what the last listener has written of the same process.
func (d *Driver) newNotes(name string, of *driver.Launched) *notes {
	n := &notes{driver: d, name: name, launched: of}
	if of == nil {
		return n
	}
	n.seen = lastEvent{Version: lastEventVersion, UID: of.UID, Launched: of.At}
	if before, err := d.readLastEvent(name, of); err == nil && before != nil {
		n.seen = *before
	}
	return n
}

// event writes down an event that tells of the machine's end.
func (n *notes) event(e qmp.Event) error {
	var action struct {
		Action string `json:"action"`
	}
	switch e.Name {
	case eventShutdown:
		n.seen.Shutdown = new(shutdownEvent)
		if err := decodeEvent(e, n.seen.Shutdown); err != nil {
			return err
		}
	case eventPanicked:
		if err := decodeEvent(e, &action); err != nil {
			return err
		}
		n.seen.Panicked = action.Action
	case eventWatchdog:
		if err := decodeEvent(e, &action); err != nil {
			return err
		}
		n.seen.Watchdog = action.Action
	case eventReset:
		if n.seen.Panicked == "" && n.seen.Watchdog == "" && n.seen.Shutdown == nil {
			return nil
		}
		// The guest begins anew, also one that was kept after it had powered off; what
		// ends it later is something else.
		n.seen.Panicked, n.seen.Watchdog, n.seen.Shutdown = "", "", nil
	default:
		return nil
	}
	return n.write()
}

func decodeEvent(e qmp.Event, into any) error {
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("event %s: %w", e.Name, err)
	}
	return nil
}

// exited writes down that the process is gone, and how, when it is a child of ours.
func (n *notes) exited(ctx context.Context) error {
	n.seen.EndedAt = n.driver.now()
	if k := n.driver.children.of(n.launched); k != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.driver.timing.Kill)
		defer cancel()
		if err := k.wait(ctx); err == nil {
			n.seen.Exit = k.words()
		}
	}
	return n.write()
}

// write replaces the file. It makes no folder: one that is gone belongs to a machine
// whose end was taken note of already.
func (n *notes) write() error {
	if n.launched == nil {
		return nil
	}
	text, err := json.Marshal(n.seen)
	if err != nil {
		return err
	}
	err = durable.WriteVolatile(n.driver.layout.LastEvent(n.name), text, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
