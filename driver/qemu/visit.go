package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/filelock"
)

// Visit connects to a machine's QEMU, calls fn, and disconnects. It waits for its
// turn at the socket that short visits share; when that takes too long, the error
// names who is there. The connection is to the machine of that name: its uuid has
// been asked for. What fn returns is returned as it is; other errors are
// *driver.LifecycleError.
func (d *Driver) Visit(ctx context.Context, name string, fn func(ctx context.Context, c *qmp.Conn) error) error {
	const op = "reach"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	leave, err := d.enter(ctx, name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer leave()
	l, err := d.look(name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer l.close()
	conn, err := d.connect(ctx, name, l)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // everything asked was answered, or fn has said why not
	err = fn(ctx, conn)
	if errors.Is(err, context.DeadlineExceeded) {
		d.finishHeard(ctx, name, l, conn)
	}
	d.rotateAll(ctx, name)
	return err
}

// enter waits for the lock of the socket for short visits.
func (d *Driver) enter(ctx context.Context, name string) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Lock)
	defer cancel()
	lock, err := d.locks.Lock(ctx, d.layout.CLILock(name))
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Unlock() }, nil // the kernel frees it all the same
}

// connect connects to the socket for short visits, whose lock the caller holds,
// and checks who is there.
func (d *Driver) connect(ctx context.Context, name string, l *look) (*qmp.Conn, error) {
	const op = "reach"
	switch l.standing {
	case standingAbsent:
		return nil, fail(op, name, ErrNotRunning, "start it with: maqet start "+name)
	case standingForeign:
		return nil, fail(op, name, l.foreign(), l.presentHint(name))
	case standingOurs, standingLost:
	}
	var reply uuidReply
	who := qmp.NewCall("query-uuid", nil, &reply)
	conn, err := qmp.DialPipelined(ctx, d.layout.CLISocket(name), qmp.Options{Handshake: d.timing.Greeting}, who)
	if err != nil {
		return nil, d.unreached(ctx, name, l, nil, err)
	}
	if err := d.wait(ctx, who); err != nil {
		_ = conn.Close()
		return nil, d.unreached(ctx, name, l, conn, err)
	}
	if !strings.EqualFold(reply.UUID, l.uid()) {
		_ = conn.Close()
		return nil, fail(op, name, wrongUUID(reply.UUID, l.uid()), "somebody has put another socket in the place of "+d.layout.CLISocket(name))
	}
	return conn, nil
}

// uuidReply is the answer to query-uuid.
type uuidReply struct {
	UUID string `json:"UUID"`
}

func wrongUUID(got, want string) error {
	return fmt.Errorf("%w: the QEMU behind its socket has the uuid %s instead of %s", driver.ErrForeign, got, want)
}

// wait waits for the answers to short commands.
func (d *Driver) wait(ctx context.Context, calls ...*qmp.Call) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
	defer cancel()
	for _, call := range calls {
		if err := call.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// unreached says why a process that was there could not be talked to.
func (d *Driver) unreached(ctx context.Context, name string, l *look, conn *qmp.Conn, cause error) error {
	const op = "reach"
	switch why, err := d.silence(ctx, name, l, conn, cause); {
	case err != nil:
		return fail(op, name, err, "")
	case why == silenceEnded:
		return fail(op, name, fmt.Errorf("%w: it ended just now", ErrNotRunning), "start it with: maqet start "+name)
	case why == silenceLost:
		return fail(op, name, fmt.Errorf("%w: %w: %w", driver.ErrUnresponsive, ErrSocketsLost, cause), lostHint(l.process.pid))
	default:
		return fail(op, name, fmt.Errorf("%w: %w", driver.ErrUnresponsive, cause), stuckHint(name, l.process.pid))
	}
}

// stuckHint is the remedy for a QEMU that does not answer.
func stuckHint(name string, pid int) string {
	return fmt.Sprintf("see what pid %d does (is it stopped, or waiting for storage?) and maqet logs --qemu %s; maqet stop --force %s ends it", pid, name, name)
}

// silence is why a process did not answer.
type silence int

const (
	// silenceEnded is a process that has ended.
	silenceEnded silence = iota
	// silenceLost is a live process behind whose socket nobody listens.
	silenceLost
	// silenceStuck is a live process that holds its socket and says nothing.
	silenceStuck
)

// silence tells why a connection failed. Where QEMU has let go of its sockets, it
// may be about to end, as it does after quit; it is given the time of a greeting
// to do so. One that has told over the connection, if there was one, that it ends
// is helped to. The error is that of a caller who does not want to know any more.
func (d *Driver) silence(ctx context.Context, name string, l *look, conn *qmp.Conn, cause error) (silence, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		if l.process.exited() || d.finishHeard(ctx, name, l, conn) {
			return silenceEnded, nil
		}
		return silenceStuck, nil
	}
	if l.standing == standingOurs {
		waiting, cancel := context.WithTimeout(ctx, d.timing.Greeting)
		defer cancel()
		err := l.process.wait(waiting)
		switch {
		case err == nil:
			return silenceEnded, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return 0, err
		}
	}
	return silenceLost, nil
}

// usable refuses names that are none, and a run dir that is another state dir's.
func (d *Driver) usable(name string) error {
	if err := checkName(d.layout, name); err != nil {
		return err
	}
	return d.owned()
}

// fail makes a LifecycleError, unless err is nil or one already. Without a hint
// it finds one for the causes that are the same everywhere.
func fail(op, name string, err error, hint string) error {
	if err == nil || lifecycle(err) != nil {
		return err
	}
	var refused *qmp.Error
	var declined *qga.Error
	e := &driver.LifecycleError{VM: name, Op: op, Err: err, Hint: hint, Refused: errors.As(err, &refused) || errors.As(err, &declined)}
	var record *RecordError
	var user *AccountError
	switch {
	case hint != "":
	case errors.Is(err, filelock.ErrHeld):
		// Its own words name the holder and the remedy.
	case errors.As(err, &record):
		e.Hint = record.Hint
	case errors.As(err, &user):
		e.Hint = user.Hint
	case errors.Is(err, context.DeadlineExceeded):
		e.Hint = "see: maqet describe " + name
	}
	return e
}

// lifecycle is the LifecycleError in err; nil when there is none.
func lifecycle(err error) *driver.LifecycleError {
	e, _ := errors.AsType[*driver.LifecycleError](err)
	return e
}
