package hosttest

import (
	"context"
	"syscall"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Host is a host under test with one machine, [Name].
type Host interface {
	Ports
	Hands
}

// Ports are what the reconciler asks of a host: the methods of its own ports.
type Ports interface {
	Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed
	Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error)
	Powerdown(ctx context.Context, name string) error
	Quit(ctx context.Context, name string) error
	Kill(ctx context.Context, name string) error
	SetPaused(ctx context.Context, name string, paused bool) error
	EnsureIdentity(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, error)
	WriteIntent(ctx context.Context, name string, intent *driver.Intent) error
	ClearRun(ctx context.Context, name string) error
	Forget(ctx context.Context, name string, deleteDisks bool) (keptAt string, err error)
	CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error
	GrowDisk(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, disk string) error
	ThrottleDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error
	TakeSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error
	FinishSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error
	DeleteSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error
	Watch(ctx context.Context, name string, hint func(driver.Hint)) error
}

// Hands do what happens behind the reconciler's back.
type Hands interface {
	// BootDisk is the image of the guest that the machine boots, which does as
	// [Hands.Guest] says; see [GuestImage].
	BootDisk() string
	// Guest has the guest do something.
	Guest(ctx context.Context, does Guest) error
	// Monitor sends a command as a person does in a monitor, with arguments like
	// "panic=pause" behind it.
	Monitor(ctx context.Context, command string) error
	// Signal sends the machine's process a signal.
	Signal(ctx context.Context, signal syscall.Signal) error
	// LoseSockets removes the sockets of the machine's process.
	LoseSockets(ctx context.Context) error
	// Reboot ends the machine's process and makes all that is left of it another
	// boot's.
	Reboot(ctx context.Context) error
	// Passes returns after long enough that what may come of an act has most
	// likely come.
	Passes(ctx context.Context)
}

// Guest is something that the guest does by itself.
type Guest string

// What a guest does.
const (
	// GuestPowersOff is a guest that powers itself off.
	GuestPowersOff Guest = "o"
	// GuestResets is a guest that resets its board.
	GuestResets Guest = "r"
	// GuestPanics is a guest that tells its pvpanic device of a panic.
	GuestPanics Guest = "p"
	// GuestHangs is a guest whose watchdog runs out.
	GuestHangs Guest = "w"
	// GuestGoesDeaf is a guest that does not listen to the power button any more.
	GuestGoesDeaf Guest = "d"
)

// Name is the name of the machine.
const Name = "web"

// Greeting is what the guest writes to its serial port when it is up.
const Greeting = "guest is up"

// machine is the machine of the script on a host with that boot disk. A broken one
// has a device that QEMU does not know.
func machine(bootDisk string, broken bool) *manifest.VirtualMachine {
	vm := &manifest.VirtualMachine{
		APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine, Metadata: manifest.Metadata{Name: Name},
		Spec: manifest.VirtualMachineSpec{
			Emulator: &manifest.Emulator{
				Binary: "qemu-system-x86_64", Accelerators: []string{"tcg"},
				ExtraArgs: []string{"-device", "ib700", "-watchdog-action", "poweroff"},
			},
			Machine: &manifest.Machine{Type: "q35"},
			Memory:  &manifest.Memory{Size: 32 << 20},
			Disks: []manifest.Disk{
				{Name: "boot", File: bootDisk, Format: manifest.FormatRaw, ReadOnly: true},
				{Name: ownDisk, Size: ownSize},
			},
			Boot:      &manifest.Boot{Order: []string{"boot"}},
			Serial:    &manifest.Serial{Log: true},
			Devices:   []manifest.Device{{Name: "panic", Driver: "pvpanic"}},
			Readiness: &manifest.Readiness{Serial: &manifest.SerialReadiness{Match: Greeting}},
		},
	}
	if broken {
		vm.Spec.Emulator.ExtraArgs = []string{"-device", "no-such-device"}
	}
	return manifest.Resolve(vm, "/")
}
