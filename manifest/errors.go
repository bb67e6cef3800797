package manifest

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Position is a place in a manifest file. Line and Column count from 1, columns
// in characters; both are 0 where only the file is known.
type Position struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String is file:line:column, without what is not known.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	at := strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
	if p.File == "" {
		return at
	}
	return p.File + ":" + at
}

// compare orders positions by file, line and column.
func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Error is one thing that is wrong with a manifest, or with reading it.
type Error struct {
	// Position is where the fault is.
	Position Position
	// Path is the field at fault, such as spec.disks[0].size. Empty when the
	// fault is not in a field.
	Path string
	// Msg says what is wrong.
	Msg string
	// Hint says what to do about it.
	Hint string
	// Err is the cause, if another error is.
	Err error
	// Conflict names the objects that are at odds with each other, when it is no
	// fault of one object by itself. The others are as good as ever.
	Conflict []ObjectKey
	// Warning is true for what is worth saying but refuses nothing.
	Warning bool
}

// Error is "vms/web.yaml:7:5: spec.memroy: unknown key; did you mean "memory"?".
func (e *Error) Error() string {
	var b strings.Builder
	if at := e.Position.String(); at != "" {
		b.WriteString(at + ": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.message())
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// message is Msg with the cause behind it.
func (e *Error) message() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	default:
		return e.Msg + ": " + e.Err.Error()
	}
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// MarshalJSON writes the error for programs: severity, position, path, message, hint.
func (e *Error) MarshalJSON() ([]byte, error) {
	severity := "error"
	if e.Warning {
		severity = "warning"
	}
	return json.Marshal(struct {
		Severity string `json:"severity"`
		Position
		Path    string `json:"path,omitempty"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}{severity, e.Position, e.Path, e.message(), e.Hint})
}

// Errors are all the faults of a set, in the order of their positions.
type Errors []*Error

// Error is one fault per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each fault to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// Sort orders the faults by position, then path, then message.
func (e Errors) Sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(a.Position.compare(b.Position), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Msg, b.Msg))
	})
}

// Split parts the faults that refuse from the warnings.
func (e Errors) Split() (refusals, warnings Errors) {
	for _, one := range e {
		if one.Warning {
			warnings = append(warnings, one)
		} else {
			refusals = append(refusals, one)
		}
	}
	return refusals, warnings
}

// errorOrNil avoids the non-nil error that an empty Errors in an interface is.
func (e Errors) errorOrNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}
