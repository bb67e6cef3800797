package disk

import (
	"errors"
	"fmt"
	"strings"
)

// Error is an image file, or a folder of them, with which something could not be done.
type Error struct {
	// Path is the file or folder.
	Path string
	// Op is what was tried, such as "create".
	Op string
	// Err is the cause.
	Err error
	// Hint is what to do next; may be empty.
	Hint string
}

// Error is "create /path: cause; hint".
func (e *Error) Error() string {
	text := e.Op + " " + e.Path + ": " + e.Err.Error()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrInUse is wrapped when another process has the image open.
var ErrInUse = errors.New("the image is in use")

// ErrNoTool is wrapped when qemu-img cannot be found.
var ErrNoTool = errors.New("qemu-img is not installed")

// ErrNoSnapshot is wrapped when an image does not have the snapshot named.
var ErrNoSnapshot = errors.New("no such snapshot")

// ErrSnapshotExists is wrapped when an image has the snapshot already.
var ErrSnapshotExists = errors.New("the snapshot exists already")

// ErrNotQcow2 is wrapped when an image cannot hold internal snapshots.
var ErrNotQcow2 = errors.New("the image is not qcow2")

// ErrShrink is wrapped when an image would lose what lies beyond its new end.
var ErrShrink = errors.New("an image is never shrunk")

// ErrBitmaps is wrapped when dirty bitmaps are left in an image that is to be reverted.
var ErrBitmaps = errors.New("the image has dirty bitmaps")

// ErrDamaged is wrapped when an image's header makes no sense.
var ErrDamaged = errors.New("the image is damaged")

// ToolError is a qemu-img that failed.
type ToolError struct {
	// Command is the subcommand, such as "create".
	Command string
	// Line is the last line it wrote on stderr that says something.
	Line string
	// Err is how it ended, or the error of the host that Line names.
	Err error
}

// Error is what qemu-img said, or how it ended when it said nothing.
func (e *ToolError) Error() string {
	if e.Line == "" {
		return fmt.Sprintf("qemu-img %s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("qemu-img %s: %s", e.Command, strings.TrimPrefix(e.Line, "qemu-img: "))
}

// Unwrap is how it ended.
func (e *ToolError) Unwrap() error { return e.Err }
