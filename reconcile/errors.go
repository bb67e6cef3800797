package reconcile

import (
	"context"
	"errors"
)

// The reasons that an Error wraps besides those of the packages below.
var (
	// ErrNotFound is a name that nothing is remembered of.
	ErrNotFound = errors.New("there is no such object")
	// ErrOwned is an object that belongs to another owner.
	ErrOwned = errors.New("the object belongs to another owner")
	// ErrWatched is an object that a live watch keeps otherwise.
	ErrWatched = errors.New("a watch keeps the object")
	// ErrDeleting is an object whose delete was asked for and is not over.
	ErrDeleting = errors.New("the object is being deleted")
	// ErrImmutable is a change of what cannot be changed.
	ErrImmutable = errors.New("the spec cannot be changed")
	// ErrExists is a name that is taken.
	ErrExists = errors.New("the object exists already")
	// ErrInUse is an object that others need, or a disk that a machine wants or a
	// process has open.
	ErrInUse = errors.New("the object is in use")
	// ErrAmbiguous is a word that could mean several things.
	ErrAmbiguous = errors.New("it is not clear what is meant")
	// ErrPruneGuard is a prune that would delete more than it may.
	ErrPruneGuard = errors.New("refused to prune")
	// ErrPlanLeft is a plan that was to be executed and does not fit any more.
	ErrPlanLeft = errors.New("the world has left the plan")
	// ErrNotConfirmed is a step that was done without error but not observed.
	ErrNotConfirmed = errors.New("done, but not observed")
	// ErrUnsettled is a machine that did not settle within the passes allowed.
	ErrUnsettled = errors.New("the machine does not settle")
	// ErrInterrupted is a convergence that was cancelled before it was over.
	ErrInterrupted error = &cause{"interrupted", context.Canceled}
	// ErrTimedOut is a convergence whose time ran out before it was over.
	ErrTimedOut error = &cause{"the time ran out", context.DeadlineExceeded}
	// ErrOvertaken is what was asked for and undone by somebody else before it was done.
	ErrOvertaken = errors.New("somebody else has asked for something else meanwhile")
	// ErrHeld is a machine that an operator holds as it is.
	ErrHeld = errors.New("the machine is held")
	// ErrNotReady is a machine that did not become Ready in time.
	ErrNotReady = errors.New("the machine is not Ready")
	// ErrProblem is a machine that cannot be brought to what it should be.
	ErrProblem = errors.New("the machine needs attention")
)

// cause gives an end of a context words of its own.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// Error is an object that could not be reconciled: which one, what was tried,
// the cause and the remedy.
type Error struct {
	// Object is the object, such as vm/web.
	Object string
	// Op is what was tried, such as "apply" or a step.
	Op string
	// Err is the cause.
	Err error
	// Detail says more than the cause does; may be empty.
	Detail string
	// Hint is what to do next; may be empty.
	Hint string
}

// Error is "apply vm/web: cause: detail; hint".
func (e *Error) Error() string {
	text := e.Op + " " + e.Object + ": " + e.Err.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }
