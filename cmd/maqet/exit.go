package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
)

// The exit codes. `maqet help exit-codes` prints this table.
const (
	exitDone        = 0   // done and observed
	exitFailed      = 1   // failed
	exitPending     = 2   // changes are pending
	exitInvalid     = 3   // a manifest, a flag or a name is invalid
	exitDegraded    = 4   // a machine is degraded
	exitRefused     = 5   // QEMU or QMP refused
	exitInterrupted = 130 // interrupted
)

const exitCodesHelp = `Every command ends with one of these exit codes:

  0    done, and observed to be so
  1    failed
  2    changes are pending: a plan that is not empty, a restart that is owed,
       a hold that is honoured, a wait that ran out
  3    invalid input: a manifest, a flag, an unknown name
  4    a machine is degraded (from apply --wait and wait)
  5    QEMU, QMP or a guest's agent refused
  130  interrupted

exec ends with the exit code of the command in the guest; see maqet exec --help.

When several machines end differently, the code is the first that applies of
130, 3, 5, 1, 4, 2, 0.
`

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// outcomeError ends a command with a code of its own after everything was
// printed already; an empty text prints nothing more.
type outcomeError struct {
	code int
	text string
}

func (e *outcomeError) Error() string { return e.text }

// exitCode maps an error to an exit code; it is the only place that does.
func exitCode(ctx context.Context, err error) int {
	var (
		outcome   *outcomeError
		inGuest   *execError
		usage     *usageError
		many      manifest.Errors
		one       *manifest.Error
		guard     *reconcile.Error
		lifecycle *driver.LifecycleError
		refusal   *qmp.Error
	)
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &inGuest):
		return inGuest.code
	case errors.As(err, &outcome):
		return outcome.code
	case errors.As(err, &usage), errors.As(err, &many), errors.As(err, &one):
		return exitInvalid
	case errors.As(err, &guard) && isInvalid(guard):
		return exitInvalid
	case errors.As(err, &refusal):
		return exitRefused
	case errors.As(err, &lifecycle) && lifecycle.Refused:
		return exitRefused
	default:
		return exitFailed
	}
}

// isInvalid tells whether the reconciler refused what was asked for, as
// opposed to failing at it.
func isInvalid(err *reconcile.Error) bool {
	for _, reason := range []error{
		reconcile.ErrNotFound, reconcile.ErrOwned, reconcile.ErrWatched, reconcile.ErrImmutable, reconcile.ErrExists, reconcile.ErrPruneGuard, reconcile.ErrInUse, reconcile.ErrAmbiguous,
	} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}
