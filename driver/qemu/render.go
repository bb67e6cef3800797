package qemu

import (
	"errors"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// RenderInput is everything a command line depends on.
type RenderInput struct {
	// VM is the resolved object.
	VM *manifest.VirtualMachine
	// Identity is the machine's, with everything VM needs (see [Allocate]).
	Identity driver.Identity
	// Host is the binary that will be started.
	Host driver.Host
	// Layout names the files.
	Layout layout.Layout
	// Paused starts with the vCPUs stopped.
	Paused bool
}

// FileKind is what an inherited descriptor is.
type FileKind string

// The kinds of descriptors.
const (
	// QMPListener is a listening socket at Layout.QMPSocket.
	QMPListener FileKind = "qmp-listener"
	// CLIListener is a listening socket at Layout.CLISocket.
	CLIListener FileKind = "cli-listener"
	// SerialListener is a listening socket at Layout.SerialSocket.
	SerialListener FileKind = "serial-listener"
	// Tap is a tap device on the bridge of a nic.
	Tap FileKind = "tap"
)

// File is one descriptor that QEMU must inherit.
type File struct {
	Kind FileKind
	// NIC is the nic that a Tap is for; otherwise empty.
	NIC string
}

// Command is a QEMU ready to be started.
type Command struct {
	// Argv is the command line; its first element is the binary's path.
	Argv []string
	// Files are the descriptors QEMU inherits: the first is number 3.
	Files []File
}

// Render makes the command line of a machine.
func Render(_ RenderInput) (Command, error) {
	return Command{}, errors.New("rendering is being laid down")
}

// QuoteShell writes argv so that a POSIX shell reads it back to the same words.
func QuoteShell(_ []string) string { return "" }
