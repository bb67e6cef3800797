package filelock

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrHeld is wrapped by every HeldError.
var ErrHeld = errors.New("the lock is held")

// HeldError is a lock that was not got because somebody else has it.
type HeldError struct {
	// Path is the lock file.
	Path string
	// PID is the holder's; 0 when it could not be found out.
	PID int
	// Command is the holder's command as the kernel names it; may be empty.
	Command string
	// Since is when the holder got the lock; zero when not known.
	Since time.Time
	// Err is why waiting ended: the context's error. Nil when nobody waited.
	Err error
}

// Error names the lock, its holder and what to do.
func (e *HeldError) Error() string {
	text := fmt.Sprintf("lock %s: held by %s", e.Path, e.holder())
	if !e.Since.IsZero() {
		text += fmt.Sprintf(" since %s", e.Since.Format(time.TimeOnly))
	}
	if e.Err != nil {
		text += fmt.Sprintf(" (waiting ended: %v)", e.Err)
	}
	return text + "; try again when it is done, or allow more time with --timeouts lock=DURATION"
}

func (e *HeldError) holder() string {
	switch {
	case e.PID == 0:
		return "another process"
	case e.PID == os.Getpid():
		return fmt.Sprintf("this process (pid %d)", e.PID)
	case e.Command == "":
		return fmt.Sprintf("pid %d", e.PID)
	default:
		return fmt.Sprintf("%q (pid %d)", e.Command, e.PID)
	}
}

// Unwrap gives ErrHeld and the context's error.
func (e *HeldError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrHeld}
	}
	return []error{ErrHeld, e.Err}
}
