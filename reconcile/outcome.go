package reconcile

import (
	"errors"

	"github.com/maqet/maqet/driver"
)

// Outcome is what a result comes to, for exit codes.
type Outcome struct {
	// Failed is an error or a problem that somebody has to look at.
	Failed bool
	// Refused is an error that QEMU or QMP gave.
	Refused bool
	// Pending is something that is owed still.
	Pending bool
	// Degraded is a machine that did not become Ready in time.
	Degraded bool
	// Interrupted is a cancelled convergence.
	Interrupted bool
}

// Outcome says what the result comes to.
func (r Result) Outcome() Outcome {
	o := Outcome{Degraded: r.Degraded}
	var life *driver.LifecycleError
	switch {
	case r.Err == nil:
	case errors.Is(r.Err, ErrInterrupted):
		o.Interrupted = true
	case errors.Is(r.Err, ErrTimedOut):
		o.Pending = true
	default:
		o.Failed = true
		o.Refused = errors.As(r.Err, &life) && life.Refused
	}
	if r.Plan.Held != nil && !r.HoldAsked {
		o.Pending = true
	}
	for _, c := range r.Plan.Changes {
		o.Pending = o.Pending || c.Pending
	}
	for _, p := range r.Plan.Problems {
		if p.Owed() {
			o.Pending = true
		} else {
			o.Failed = true
		}
	}
	return o
}

// Owed tells that a problem is something still owed, rather than a fault.
func (p Problem) Owed() bool {
	switch p.Reason {
	case ReasonSnapshotPending, ReasonHeld:
		return true
	default:
		return false
	}
}

// add counts one result in.
func (r *Report) add(result Result) {
	r.Results = append(r.Results, result)
	o := result.Outcome()
	r.Failed = r.Failed || o.Failed
	r.Refused = r.Refused || o.Refused
	r.Pending = r.Pending || o.Pending
	r.Degraded = r.Degraded || o.Degraded
	r.Interrupted = r.Interrupted || o.Interrupted
	if o.Interrupted || errors.Is(result.Err, ErrTimedOut) {
		r.NotDone = append(r.NotDone, result.Machine)
	}
}
