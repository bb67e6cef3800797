package driver

import "errors"

// LifecycleError is a machine that could not be started, stopped, observed or
// changed. It names the machine, what was tried, the cause and the remedy.
type LifecycleError struct {
	// VM is the machine's name.
	VM string
	// Op is what was tried, such as "start".
	Op string
	// Refused tells that QEMU or QMP itself refused, as opposed to the host.
	Refused bool
	// Err is the cause.
	Err error
	// Hint is what to do next; may be empty.
	Hint string
}

// Error is "start web: cause; hint".
func (e *LifecycleError) Error() string {
	text := e.Op + " " + e.VM + ": " + e.Err.Error()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *LifecycleError) Unwrap() error { return e.Err }

// StartError is a QEMU that ended, or had to be ended, before it answered. No
// process is left of it, and nothing in the machine's run dir, unless what it is
// joined with says that the process does not end.
type StartError struct {
	// Exit is how it ended, such as "exit status 1".
	Exit string
	// LastLine is the last line it wrote on stderr; may be empty.
	LastLine string
	// Err says why it was ended; nil when it ended by itself.
	Err error
}

// Error is why QEMU was ended, or else its own last line and how it ended.
func (e *StartError) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.LastLine == "":
		return "QEMU ended with " + e.Exit + " before it answered, and said nothing"
	default:
		return e.LastLine + " (QEMU ended with " + e.Exit + ")"
	}
}

// Unwrap is why QEMU was ended.
func (e *StartError) Unwrap() error { return e.Err }

// ErrUnresponsive is wrapped when a machine's QEMU does not answer.
var ErrUnresponsive = errors.New("QEMU does not answer")

// ErrForeign is wrapped when a process is not one that maqet started.
var ErrForeign = errors.New("the process is not maqet's")
