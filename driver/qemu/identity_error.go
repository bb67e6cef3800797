package qemu

// SpecError is a machine that cannot be made into a command line.
type SpecError struct {
	// VM is the machine's name.
	VM string
	// Path is the manifest path at fault; empty when no field is.
	Path string
	// Msg says what is wrong, Hint what to do; Hint may be empty.
	Msg, Hint string
	// Err is the cause, if another error is.
	Err error
}

// Error is "web: spec.disks[0]: message: cause; hint".
func (e *SpecError) Error() string {
	text := e.VM + ": "
	if e.Path != "" {
		text += e.Path + ": "
	}
	text += e.Msg
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *SpecError) Unwrap() error { return e.Err }
