package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/manifest"
)

// Observe looks at a machine: at its process, at what QEMU says, at its records and
// files. It changes nothing but two marks in the run dir, which say that the process
// has answered and that the guest was Ready. It takes no more than the time for a
// lock, a greeting and a query.
//
// Vm is the machine's desired object and may be nil: then only what is recorded and
// what QEMU has is looked at.
func (d *Driver) Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed {
	o := &observation{
		Observed: driver.Observed{Name: name, At: d.now(), Presence: driver.Unknown}, driver: d, vm: vm, depth: depth,
	}
	if err := d.usable(name); err != nil {
		o.lookFailed(err)
		return o.Observed
	}
	// What is found may change while it is looked at, as a process that ends does:
	// then it is looked at again, from the beginning.
	const looks = 4
	for range looks {
		if !o.once(ctx) {
			return o.Observed
		}
	}
	o.unknown(driver.ReasonLookFailed, "its process changed each time it was looked at", "try again")
	return o.Observed
}

// observation is one observation being made.
type observation struct {
	driver.Observed
	driver *Driver
	vm     *manifest.VirtualMachine
	depth  driver.Depth
	// askedTwice tells that a conversation was damaged before.
	askedTwice bool
	// reached tells that the guest's own address accepted a connection.
	reached bool
	// askAgent tells that the readiness probe is the guest's agent.
	askAgent bool
}

// once looks once. It tells whether to look again.
func (o *observation) once(ctx context.Context) (again bool) {
	l, err := o.driver.look(o.Name)
	if err != nil {
		o.lookFailed(err)
		return false
	}
	defer l.close()
	if l.standing == standingAbsent && l.launched != nil {
		return o.leftovers(ctx)
	}
	return o.judge(ctx, l)
}

// leftovers looks at a machine that has a launch record and no process: the process
// has ended, or is about to be started. Whoever starts it holds the lock of its
// socket until it is there, so under that lock the two can be told apart.
func (o *observation) leftovers(ctx context.Context) (again bool) {
	leave, err := o.driver.enter(ctx, o.Name)
	if err != nil {
		o.busy(err)
		return false
	}
	l, err := o.driver.look(o.Name)
	leave()
	if err != nil {
		o.lookFailed(err)
		return false
	}
	defer l.close()
	return o.judge(ctx, l)
}

// judge fills the observation in.
func (o *observation) judge(ctx context.Context, l *look) (again bool) {
	o.take(l)
	o.seed(ctx)
	switch l.standing {
	case standingAbsent:
		o.Presence = driver.Absent
		if l.launched != nil {
			o.Ended = o.driver.ended(ctx, o.Name, l, o.At)
		}
		o.stoppedFiles(ctx)
		return false
	case standingForeign:
		o.unknown(driver.ReasonForeign, l.foreign().Error(), l.presentHint(o.Name))
		o.PID = l.other.pid
		return false
	case standingOurs, standingLost:
	}
	o.hold(l)
	o.askAgent = false
	again = o.ask(ctx, l)
	if o.askAgent && !again {
		o.agentReady(ctx)
	}
	return again
}

// hold notes which process it is.
func (o *observation) hold(l *look) {
	o.PID, o.StartedAt = l.process.pid, startedAt(l.process.start, o.At)
	if o.depth == driver.DepthFull {
		o.Cgroup = o.driver.proc.cgroup(o.PID)
	}
}

// take takes over what is recorded.
func (o *observation) take(l *look) {
	o.Launched, o.Identity, o.Intent = l.launched, l.identity, l.intent
	if l.launched != nil && !l.sameBoot() {
		o.Intent = nil // an intent dies with the boot
	}
}

// specs are what the machine should be and what it was launched as, as far as known.
func (o *observation) specs() (all []*manifest.VirtualMachineSpec) {
	if o.vm != nil {
		all = append(all, &o.vm.Spec)
	}
	if o.Launched != nil {
		all = append(all, &o.Launched.Spec)
	}
	return all
}

// ask asks QEMU.
func (o *observation) ask(ctx context.Context, l *look) (again bool) {
	o.awayReady(ctx, l)
	leave, err := o.driver.enter(ctx, o.Name)
	if err != nil {
		o.busy(err)
		return false
	}
	defer leave()
	q := newQuestions(o.depth, l.launched, o.driver.knownListener(o.Name, l))
	conn, err := qmp.DialPipelined(ctx, o.driver.layout.CLISocket(o.Name), qmp.Options{Handshake: o.driver.timing.Greeting}, q.all...)
	if err != nil {
		return o.spoiled(err) || o.silent(ctx, l, nil, err)
	}
	defer func() { _ = conn.Close() }() // everything asked was answered, or is given up
	q.tune(o.specs()...)
	guest, err := q.answers(ctx, o.driver, conn)
	if err != nil {
		return o.spoiled(err) || o.silent(ctx, l, conn, err)
	}
	o.hear(ctx, l, conn, guest)
	return false
}

// hear takes over what QEMU said.
func (o *observation) hear(ctx context.Context, l *look, conn *qmp.Conn, guest *driver.Guest) {
	if !strings.EqualFold(guest.UID, l.uid()) {
		o.unknown(driver.ReasonForeign, wrongUUID(guest.UID, l.uid()).Error(),
			"somebody has put another socket in the place of "+o.driver.layout.CLISocket(o.Name))
		return
	}
	o.Presence, o.Guest = driver.Alive, guest
	o.Reason, o.Message, o.Hint = "", "", ""
	o.aliveFiles(ctx)
	o.Freeze = o.driver.frozen(ctx, o.Name, guest.UID)
	if !l.confirmed && l.standing == standingOurs {
		// Whoever started it was cut off before it could say so.
		if err := o.driver.markConfirmed(o.Name); err != nil {
			o.driver.log.WarnContext(ctx, "marking the start as confirmed failed", "vm", o.Name, "err", err)
		}
	}
	o.tpmLost(ctx)
	o.filesystemsLost()
	o.ready(ctx, conn)
	o.driver.rotateAll(ctx, o.Name)
}

// spoiled tells, once, that QEMU is to be asked again, since what it was asked or
// answered was damaged. QEMU 7.2 may lose a byte, refuse the handshake or let go of a
// client that comes right after one which left without reading its answers, as a
// maqet does that is killed.
func (o *observation) spoiled(cause error) bool {
	_, refused := errors.AsType[*qmp.Error](cause)
	damaged := refused || errors.Is(cause, errDisorder) || errors.Is(cause, qmp.ErrClosed) && !errors.Is(cause, context.DeadlineExceeded)
	first := !o.askedTwice
	o.askedTwice = true
	return damaged && first
}

// silent says why QEMU did not answer, over a connection if there was one.
func (o *observation) silent(ctx context.Context, l *look, conn *qmp.Conn, cause error) (again bool) {
	d := o.driver
	why, err := d.silence(ctx, o.Name, l, conn, cause)
	switch {
	case err != nil:
		o.lookFailed(err)
	case why == silenceEnded:
		return true
	case why == silenceLost:
		o.unresponsive(driver.ReasonSocketsLost,
			fmt.Sprintf("its QEMU runs (pid %d) and its sockets are lost: %v", o.PID, cause), lostHint(o.PID))
	default:
		message := fmt.Sprintf("its QEMU (pid %d) does not answer: %v", o.PID, cause)
		if in := o.Intent; in != nil && in.Kind == driver.IntentSnapshot {
			message = fmt.Sprintf("its QEMU (pid %d) does not answer while it takes a snapshot", o.PID)
		}
		o.unresponsive(driver.ReasonNoAnswer, message, stuckHint(o.Name, o.PID))
	}
	return false
}

func (o *observation) unresponsive(reason, message, hint string) {
	o.Presence, o.Reason, o.Message, o.Hint = driver.Unresponsive, reason, message, hint
}

func (o *observation) unknown(reason, message, hint string) {
	o.Presence, o.Reason, o.Message, o.Hint = driver.Unknown, reason, message, hint
}

// busy says that the socket was not free in time.
func (o *observation) busy(err error) {
	if errors.Is(err, filelock.ErrHeld) && !errors.Is(err, context.Canceled) {
		o.unknown(driver.ReasonSocketBusy, err.Error(), "try again when it is done")
		return
	}
	o.lookFailed(err)
}

// lookFailed says that looking itself failed.
func (o *observation) lookFailed(err error) {
	hint := "try again"
	if record, ok := errors.AsType[*RecordError](err); ok {
		hint = record.Hint
	}
	o.unknown(driver.ReasonLookFailed, err.Error(), hint)
}
