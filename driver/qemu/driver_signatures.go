package qemu

import (
	"context"
	"errors"
	"io"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// Lock waits for the machine's lock.
func (d *Driver) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return func() {}, errors.ErrUnsupported
}

// Observe looks at a machine.
func (d *Driver) Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed {
	return driver.Observed{}
}

// Await waits for something to happen to a machine.
func (d *Driver) Await(ctx context.Context, name string, vm *manifest.VirtualMachine, what driver.Awaited) error {
	return errors.ErrUnsupported
}

// Start starts a machine.
func (d *Driver) Start(ctx context.Context, req driver.StartRequest) error {
	return errors.ErrUnsupported
}

// Powerdown asks the guest to power off.
func (d *Driver) Powerdown(ctx context.Context, name string) error { return errors.ErrUnsupported }

// Quit tells QEMU to quit.
func (d *Driver) Quit(ctx context.Context, name string) error { return errors.ErrUnsupported }

// Kill kills QEMU.
func (d *Driver) Kill(ctx context.Context, name string) error { return errors.ErrUnsupported }

// SetPaused stops or continues the vCPUs.
func (d *Driver) SetPaused(ctx context.Context, name string, paused bool) error {
	return errors.ErrUnsupported
}

// EnsureIdentity writes the identity.
func (d *Driver) EnsureIdentity(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, error) {
	return driver.Identity{}, errors.ErrUnsupported
}

// WriteIntent replaces the intent.
func (d *Driver) WriteIntent(ctx context.Context, name string, intent *driver.Intent) error {
	return errors.ErrUnsupported
}

// ClearRun removes what an ended process left.
func (d *Driver) ClearRun(ctx context.Context, name string) error { return errors.ErrUnsupported }

// Forget moves or deletes the disks of a stopped machine.
func (d *Driver) Forget(ctx context.Context, name string, deleteDisks bool) (keptAt string, err error) {
	return "", errors.ErrUnsupported
}

// CreateDisk makes the image of a disk.
func (d *Driver) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	return errors.ErrUnsupported
}

// Visit connects to a machine's QEMU while nobody else does.
func (d *Driver) Visit(ctx context.Context, name string, fn func(ctx context.Context, c *qmp.Conn) error) error {
	return errors.ErrUnsupported
}

// Render makes the command line a machine would be started with.
func (d *Driver) Render(ctx context.Context, vm *manifest.VirtualMachine) (Command, error) {
	return Command{}, errors.ErrUnsupported
}

// Known are the machines that have a run dir.
func (d *Driver) Known(ctx context.Context) ([]string, error) { return nil, errors.ErrUnsupported }

// RotateLogs keeps the logs of a machine small.
func (d *Driver) RotateLogs(vm string) error { return errors.ErrUnsupported }

// LogKind is one of a machine's logs.
type LogKind string

// The logs.
const (
	// LogSerial is what the guest wrote on its serial line.
	LogSerial LogKind = "serial"
	// LogQEMU is what QEMU wrote on stderr.
	LogQEMU LogKind = "qemu"
)

// LogRequest is which part of a log to read.
type LogRequest struct {
	Kind LogKind
	// Tail is how many last lines to begin with; negative is all.
	Tail int
	// Follow goes on with what is written later, until ctx ends.
	Follow bool
}

// Logs writes a log of a machine to w.
func (d *Driver) Logs(ctx context.Context, vm string, req LogRequest, w io.Writer) error {
	return errors.ErrUnsupported
}
