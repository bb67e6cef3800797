package state

import "errors"

// ErrDamaged is wrapped when a record or the database is not what was written.
var ErrDamaged = errors.New("damaged")

// ErrNewer is wrapped when a record or the database was written by a newer maqet.
var ErrNewer = errors.New("written by a newer maqet")

// ErrClosed is wrapped when a closed store is used.
var ErrClosed = errors.New("the store is closed")

// ErrReadOnly is wrapped when a View wants to write.
var ErrReadOnly = errors.New("the transaction only reads")

// Error is a database or record that could not be read or written. It names
// what was tried on what, the cause and the remedy.
type Error struct {
	// Op is what was tried, such as "read".
	Op string
	// Object is the record, such as "machine web", or the database's path.
	Object string
	// Err is the cause.
	Err error
	// Hint is what to do next; may be empty.
	Hint string
}

// Error is "read machine web: cause; hint".
func (e *Error) Error() string {
	text := e.Op + " " + e.Object + ": " + e.Err.Error()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }
