package qemu

import (
	"context"
	"errors"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// talk is the first conversation with a QEMU that was started.
type talk struct {
	conn *qmp.Conn
	q    *questions
}

func (t *talk) close() { _ = t.conn.Close() } // everything was answered, or is given up

// confirm waits for the answer to query-status, which a QEMU that cannot be started
// does not live to give. The calls go out before its greeting has come. A QEMU that
// is being started may greet twice, and forgets then what it was told: in that case
// it is asked once more, on a connection of its own.
//
// Everything else that is asked of a machine goes out with it, since a byte that QEMU
// reads costs it far more time than what it answers.
func (l *launch) confirm(ctx context.Context) (*talk, error) {
	ctx, cancel := context.WithTimeout(ctx, l.driver.timing.Start)
	defer cancel()
	nc := l.conn
	l.conn = nil // it is qmp's from here on
	options := qmp.Options{Handshake: l.driver.timing.Start}
	t, err := l.begin(ctx, func(calls ...*qmp.Call) (*qmp.Conn, error) { return qmp.New(ctx, nc, options, calls...) })
	if errors.Is(err, qmp.ErrGreetedAgain) {
		path := l.driver.layout.CLISocket(l.name)
		t, err = l.begin(ctx, func(calls ...*qmp.Call) (*qmp.Conn, error) { return qmp.DialPipelined(ctx, path, options, calls...) })
	}
	if err != nil {
		return nil, err
	}
	if uid := t.q.uid.UUID; uid != l.record.UID {
		err = wrongUUID(uid, l.record.UID)
	} else {
		err = l.driver.markConfirmed(l.name)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// begin asks a QEMU on a new connection everything, and waits until it has said how
// it is and who.
func (l *launch) begin(ctx context.Context, connect func(...*qmp.Call) (*qmp.Conn, error)) (*talk, error) {
	t := &talk{q: newQuestions(driver.DepthFull, l.record, "")}
	var err error
	if t.conn, err = connect(t.q.all...); err != nil {
		return nil, err
	}
	if err := errors.Join(t.q.state.Wait(ctx), t.q.who.Wait(ctx)); err != nil {
		err = errors.Join(err, t.conn.Err())
		t.close()
		return nil, err
	}
	return t, nil
}

// look is a full look at the machine with the answers of the first conversation; nil
// when it does not succeed. Whether a guest's own address accepts connections is left
// to later looks: that may take long, and the guest has only begun.
func (l *launch) look(ctx context.Context, t *talk) *driver.Observed {
	d := l.driver
	o := &observation{
		Observed: driver.Observed{Name: l.name, At: d.now(), Presence: driver.Unknown}, driver: d, vm: l.vm, depth: driver.DepthFull,
	}
	found, err := d.look(l.name)
	if err != nil {
		return nil
	}
	defer found.close()
	if found.standing != standingOurs {
		return nil
	}
	o.take(found)
	o.hold(found)
	t.q.tune(o.specs()...)
	guest, err := t.q.answers(ctx, d, t.conn)
	if err != nil {
		return nil
	}
	o.hear(ctx, found, t.conn, guest)
	if o.Presence != driver.Alive {
		return nil
	}
	return &o.Observed
}
