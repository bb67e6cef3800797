package qmp

import (
	"errors"
	"fmt"
)

// ErrClosed is matched by the error of every call that was pending when the
// connection ended, and of every call made afterwards. The cause is wrapped in
// the same error: io.EOF, a *ProtocolError, a context error, or nothing more
// when Close was called on this side.
var ErrClosed = errors.New("qmp connection closed")

// The error classes of QMP. QEMU uses GenericError for nearly everything.
const (
	ClassGenericError    = "GenericError"
	ClassCommandNotFound = "CommandNotFound"
	ClassDeviceNotActive = "DeviceNotActive"
	ClassDeviceNotFound  = "DeviceNotFound"
	ClassKVMMissingCap   = "KVMMissingCap"
)

// Error is QEMU's own refusal of one command.
type Error struct {
	// Command is the command that was refused.
	Command string
	// Class is one of the Class constants.
	Class string
	// Desc is QEMU's sentence for people. It may be empty and is never parsed.
	Desc string
}

// Error returns the command, QEMU's sentence, and the class where it tells more
// than GenericError does.
func (e *Error) Error() string {
	desc := e.Desc
	if desc == "" {
		desc = "refused without a description"
	}
	if e.Class == "" || e.Class == ClassGenericError {
		return fmt.Sprintf("qmp %s: %s", e.Command, desc)
	}
	return fmt.Sprintf("qmp %s: %s (%s)", e.Command, desc, e.Class)
}

// IsClass reports whether err is, or wraps, a refusal of the given class.
func IsClass(err error, class string) bool {
	var qerr *Error
	return errors.As(err, &qerr) && qerr.Class == class
}

// IsCommandNotFound reports whether QEMU does not know the command, which is how
// an older QEMU answers.
func IsCommandNotFound(err error) bool { return IsClass(err, ClassCommandNotFound) }

// IsDeviceNotFound reports whether QEMU does not know the device that was named.
func IsDeviceNotFound(err error) bool { return IsClass(err, ClassDeviceNotFound) }

// ErrGreetedAgain is wrapped when the peer greets a client whose capabilities were
// settled: it has forgotten them, and a new connection is needed.
var ErrGreetedAgain = errors.New("the session began anew")

// ProtocolError says that the peer sent something that is not QMP. It always
// ends the connection, since nothing that follows can be trusted.
type ProtocolError struct {
	// Reason says what was wrong.
	Reason string
	// Excerpt is the beginning of the offending line, for the log.
	Excerpt string
	// Err is the cause, if there is one, such as a *json.SyntaxError.
	Err error
}

// excerptLen is how much of an offending line an error carries.
const excerptLen = 120

// protocolError makes a *ProtocolError with a bounded excerpt of line.
func protocolError(line []byte, cause error, format string, args ...any) *ProtocolError {
	excerpt := line
	if len(excerpt) > excerptLen {
		excerpt = excerpt[:excerptLen]
	}
	return &ProtocolError{Reason: fmt.Sprintf(format, args...), Excerpt: string(excerpt), Err: cause}
}

// Error returns the reason, the cause and the excerpt.
func (e *ProtocolError) Error() string {
	text := "qmp protocol violated: " + e.Reason
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Excerpt != "" {
		text += fmt.Sprintf(" (line begins %q)", e.Excerpt)
	}
	return text
}

// Unwrap returns the cause.
func (e *ProtocolError) Unwrap() error { return e.Err }
