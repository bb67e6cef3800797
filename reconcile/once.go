package reconcile

import (
	"context"
	"errors"
)

// once looks at a machine and does what can be done now. Unlike Converge it
// waits for nothing: what is to be waited for is in the result's plan. When
// others are starting and there is no room for one more, it stops short and
// calls wake when there may be.
func (e *Engine) once(ctx context.Context, name string, opt Options, wake func()) *run {
	r := e.newRun(name, opt)
	defer r.flush(context.WithoutCancel(ctx))
	want, err := r.glance(ctx)
	if err == nil && len(r.result.Plan.Steps) == 0 {
		// There is nothing to do, but how it is may be news all the same.
		err = r.remember(context.WithoutCancel(ctx), want)
	}
	if err != nil || len(r.result.Plan.Steps) == 0 {
		r.result.Err = err
		r.result.Gone = errors.Is(err, ErrNotFound)
		return r
	}
	for range 2 {
		if !r.enter(wake) {
			return r
		}
		err := r.pass(ctx)
		r.exit()
		if err != nil || !r.wantsGate {
			r.result.Err = err
			return r
		}
	}
	return r
}

// enter takes a ticket for a start that is planned; false when there is none.
func (r *run) enter(wake func()) bool {
	if !r.wantsGate {
		return true
	}
	ticket, ok := r.e.gate.try(r.name, wake)
	if !ok {
		return false
	}
	r.ticket, r.admitted, r.wantsGate = ticket, true, false
	return true
}

// exit gives the ticket back.
func (r *run) exit() {
	if r.ticket == "" {
		return
	}
	r.admitted = false
	r.e.gate.leave(r.ticket)
	r.ticket = ""
}
