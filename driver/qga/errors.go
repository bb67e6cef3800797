package qga

import (
	"context"
	"errors"
	"fmt"
)

// ErrNotAnswering is matched when the agent is silent for too long: it hangs, its
// guest does, or another client has its socket.
var ErrNotAnswering = errors.New("the guest agent does not answer")

// ErrClosed is matched by the error of every command once the connection has ended.
// The cause is wrapped in the same error.
var ErrClosed = errors.New("the connection to the guest agent has ended")

// closedError is why a connection is over. It matches ErrClosed.
type closedError struct{ cause error }

// Error is the cause; that the connection is over follows from one that tells enough.
func (e *closedError) Error() string {
	var protocol *ProtocolError
	if errors.Is(e.cause, ErrNotAnswering) || errors.Is(e.cause, context.Canceled) || errors.As(e.cause, &protocol) {
		return e.cause.Error()
	}
	return ErrClosed.Error() + ": " + e.cause.Error()
}

// Unwrap is ErrClosed and the cause.
func (e *closedError) Unwrap() []error { return []error{ErrClosed, e.cause} }

// ErrAbsent is for callers who know by other means that no agent listens.
var ErrAbsent = errors.New("no guest agent runs in the guest")

// ClassCommandNotFound is the class of the answer to a command that the agent does
// not have, that its administrator has disabled, or that it refuses while the file
// systems are frozen.
const ClassCommandNotFound = "CommandNotFound"

// Error is the agent's own refusal of one command.
type Error struct {
	// Command is the command that was refused.
	Command string
	// Class is ClassCommandNotFound or, for nearly everything, GenericError.
	Class string
	// Desc is the agent's sentence for people. It may be empty and is never parsed.
	Desc string
}

// Error is "guest agent refuses COMMAND: its sentence".
func (e *Error) Error() string {
	desc := e.Desc
	if desc == "" {
		desc = "without a reason"
	}
	return fmt.Sprintf("the guest agent refuses %s: %s", e.Command, desc)
}

// IsUnsupported tells whether the agent does not have the command, or is not
// permitted to execute it.
func IsUnsupported(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Class == ClassCommandNotFound
}

// ProtocolError says that the peer sent something that is not the agent's protocol.
// It ends the connection, since nothing that follows can be trusted.
type ProtocolError struct {
	// Reason says what was wrong.
	Reason string
	// Excerpt is the beginning of the offending line.
	Excerpt string
	// Err is the cause, if there is one.
	Err error
}

// excerptLen is how much of an offending line an error carries.
const excerptLen = 120

func protocolError(line []byte, cause error, format string, args ...any) *ProtocolError {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...), Excerpt: string(line[:min(len(line), excerptLen)]), Err: cause}
}

// Error is the reason, the cause and the excerpt.
func (e *ProtocolError) Error() string {
	text := "guest agent protocol violated: " + e.Reason
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Excerpt != "" {
		text += fmt.Sprintf(" (line begins %q)", e.Excerpt)
	}
	return text
}

// Unwrap is the cause.
func (e *ProtocolError) Unwrap() error { return e.Err }
