package qemu

import (
	"cmp"
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
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
	// Kinds are the kinds of storage that disks may have.
	Kinds disk.Kinds
	// Paused starts with the vCPUs stopped.
	Paused bool
	// Ports is how many root ports to make; 0 takes as many as the machine needs, with
	// its spare ones.
	Ports int
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
	// AgentListener is a listening socket at Layout.AgentSocket.
	AgentListener FileKind = "agent-listener"
	// TPMControl is the end of a pair of sockets at whose other end is swtpm.
	TPMControl FileKind = "tpm-control"
	// VirtioFS is a connection to the virtiofsd of a filesystem.
	VirtioFS FileKind = "virtiofs"
	// Tap is a tap device on the bridge of a nic.
	Tap FileKind = "tap"
)

// File is one descriptor that QEMU must inherit.
type File struct {
	Kind FileKind
	// NIC is the nic that a Tap is for; otherwise empty.
	NIC string
	// Filesystem is the one that a VirtioFS is for; otherwise empty.
	Filesystem string
}

// Command is a QEMU ready to be started.
type Command struct {
	// Argv is the command line; its first element is the binary's path.
	Argv []string
	// Files are the descriptors QEMU inherits: the first is number 3.
	Files []File
}

// firstFile is the number of the first inherited descriptor, behind standard
// input, output and error.
const firstFile = 3

// renderer gathers a command line. The first error ends it: later calls do nothing.
type renderer struct {
	RenderInput
	family driver.BusFamily
	boot   map[string]int // boot index by name, from 1
	cmd    Command
	err    error
}

func newRenderer(in RenderInput) *renderer {
	return &renderer{RenderInput: in, family: driver.BusFamilyOf(in.Identity.Machine.Type), boot: map[string]int{}}
}

// Render makes the command line of a machine. It looks at nothing but its input
// and gives the same output for it each time. An error is a *SpecError.
func Render(in RenderInput) (Command, error) {
	r := newRenderer(in)
	r.process()
	r.board()
	r.monitors()
	r.serial()
	r.kernel()
	r.bootOrder()
	r.ports()
	r.disks()
	r.nics()
	r.filesystems()
	r.devices()
	r.guestAgent()
	r.seed()
	r.watchdog()
	r.tpm()
	if e := in.VM.Spec.Emulator; e != nil {
		for i, arg := range e.ExtraArgs {
			r.add(fmt.Sprintf("spec.emulator.extraArgs[%d]", i), arg)
		}
	}
	if r.err != nil {
		return Command{}, r.err
	}
	return r.cmd, nil
}

// fail keeps the first error.
func (r *renderer) fail(path, msg, hint string, cause error) {
	if r.err == nil {
		r.err = &SpecError{VM: r.VM.Metadata.Name, Path: path, Msg: msg, Hint: hint, Err: cause}
	}
}

// add appends words that come from the field at path.
func (r *renderer) add(path string, words ...string) {
	for _, word := range words {
		if err := checkText(word); err != nil {
			r.fail(path, "cannot be passed to QEMU", "use other characters", err)
			return
		}
	}
	r.cmd.Argv = append(r.cmd.Argv, words...)
}

// addJSON appends an option whose value is an object.
func (r *renderer) addJSON(path, option string, value object) {
	text, err := value.encode()
	if err != nil {
		r.fail(path, "cannot be passed to QEMU", "use other characters", err)
		return
	}
	r.cmd.Argv = append(r.cmd.Argv, option, text)
}

// inherit appends a descriptor and is its number in QEMU.
func (r *renderer) inherit(f File) int {
	r.cmd.Files = append(r.cmd.Files, f)
	return firstFile + len(r.cmd.Files) - 1
}

// slot is the recorded slot of a name. That there is none is a fault of the
// caller, which is told like any other: a device without its place would get the
// place of another.
func (r *renderer) slot(path, name string, kind driver.SlotKind) driver.Slot {
	s, ok := driver.SlotOf(r.Identity.Slots, name, kind)
	if !ok {
		r.fail(path, fmt.Sprintf("the machine's identity holds no %s slot for %q", kind, name), "apply the machine again, which completes its identity", nil)
	}
	return s
}

// bootOrder reads boot.order into boot indexes. Index 0 is left to a directly
// loaded kernel, for which QEMU itself uses it.
func (r *renderer) bootOrder() {
	if r.VM.Spec.Boot == nil {
		return
	}
	known := map[string]bool{}
	for _, d := range r.VM.Spec.Disks {
		known[d.Name] = true
	}
	for _, n := range r.VM.Spec.NICs {
		known[n.Name] = true
	}
	for i, name := range r.VM.Spec.Boot.Order {
		if !known[name] {
			r.fail(fmt.Sprintf("spec.boot.order[%d]", i), fmt.Sprintf("no disk or nic is named %q", name), "name one of the machine's disks or nics", nil)
		}
		r.boot[name] = i + 1
	}
}

// noPCI refuses a PCI device on a board where maqet knows no PCI bus.
func (r *renderer) noPCI(path, name string) {
	r.fail(path, noPCIMessage(name, r.Identity.Machine.Type), noPCIHint, nil)
}

// noPCIHint is the remedy for a board without PCI.
const noPCIHint = "use machine.type q35, pc or virt"

func noPCIMessage(name, board string) string {
	return fmt.Sprintf("%s is a PCI device, and board %s has no PCI bus that maqet knows", name, cmp.Or(board, "(none)"))
}
