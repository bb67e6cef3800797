package reconcile

import (
	"context"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Locker gives one reconcile at a time the right to act on a machine, over all processes.
type Locker interface {
	// Lock waits for the machine's lock until ctx ends. Unlock is never nil when err is.
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

// Observer looks at machines. Looking never fails: what could not be found out
// is Unknown or Unresponsive with a reason.
type Observer interface {
	// Observe looks at a machine. Vm is its desired object, or nil; it names the
	// files and the readiness probe to look at.
	Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed
	// Await returns when something of the wanted kind may have happened to the
	// machine, or when ctx ends. A spurious return is allowed; looking again decides.
	Await(ctx context.Context, name string, vm *manifest.VirtualMachine, what driver.Awaited) error
}

// Power starts, stops and pauses QEMU processes. Each call sends or begins one
// thing and returns; only Start waits, for the answer to query-status.
type Power interface {
	// Start also returns what a full look at the machine showed right then; nil
	// when it was not looked at.
	Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error)
	Powerdown(ctx context.Context, name string) error
	Quit(ctx context.Context, name string) error
	Kill(ctx context.Context, name string) error
	SetPaused(ctx context.Context, name string, paused bool) error
}

// Agent reaches the agent inside a guest, which may be absent, hang or lie.
type Agent interface {
	// AgentShutdown tells the guest to power off, and is an error when it cannot be told.
	AgentShutdown(ctx context.Context, name string) error
	// AskGuest asks for the guest's name, system and addresses; nil when nobody answers
	// within the time of a look.
	AskGuest(ctx context.Context, name string) *driver.GuestInfo
	// Thaw ends a freeze of file systems that was left behind; without one it does nothing.
	Thaw(ctx context.Context, name string) error
	// FrozenMachines are the machines that a freeze is marked of. It looks at files only.
	FrozenMachines(ctx context.Context) ([]string, error)
}

// Records keeps the files that belong to a machine besides its disks.
type Records interface {
	// EnsureIdentity writes the identity with everything vm needs, if it is not there yet.
	EnsureIdentity(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, error)
	// WriteIntent replaces the intent; nil removes it.
	WriteIntent(ctx context.Context, name string, intent *driver.Intent) error
	// ClearRun removes what an ended process left in the run dir.
	ClearRun(ctx context.Context, name string) error
	// Forget moves the disks of a stopped machine to the kept ones, or deletes
	// those that maqet made, and removes its run dir and logs.
	Forget(ctx context.Context, name string, deleteDisks bool) (keptAt string, err error)
}

// Storage makes and changes disks.
type Storage interface {
	// CreateDisk makes the image of a disk that has a size; an existing file is
	// never touched and is no error.
	CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error
	// GrowDisk makes a disk as large as its size, through the QEMU that obs shows or
	// in its absence. It never makes one smaller.
	GrowDisk(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, disk string) error
	// ThrottleDisk sets the limits of a drive of a running machine.
	ThrottleDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error
}

// Snapshots takes, deletes and restores snapshots.
type Snapshots interface {
	// TakeSnapshot takes a snapshot of what obs shows. A Full one of a running
	// machine is only begun: its job is in the intent that the caller wrote.
	TakeSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error
	// FinishSnapshot looks at a begun snapshot's job: it dismisses it and writes
	// the record when it succeeded, and returns its error when it failed.
	FinishSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error
	// DeleteSnapshot deletes a tag from all disks that carry it, and its record.
	DeleteSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error
	// RestoreSnapshot sets the disks of a stopped machine back, all or none. The report
	// names the dirty bitmaps that were removed, also with an error.
	RestoreSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) (driver.RestoreReport, error)
	// LoadSnapshot stops the guest and begins to load a Full snapshot into its QEMU;
	// an error means that nothing has changed but for the dirty bitmaps that were
	// removed, which it returns by disk.
	LoadSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) (bitmaps map[string][]string, err error)
	// FinishLoad dismisses the job of a load that has succeeded.
	FinishLoad(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error
}

// Backups copies machines into folders.
type Backups interface {
	// LockBackups gives the right to work on a machine's backups, or fails at once when
	// somebody else has it.
	LockBackups(ctx context.Context, name string) (unlock func(), err error)
	// BeginBackup begins a backup of what obs shows, with the machine's lock.
	BeginBackup(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.BackupRequest) (driver.PendingBackup, error)
}

// Ports is everything the reconciler needs of the host.
type Ports struct {
	Locker    Locker
	Observer  Observer
	Power     Power
	Agent     Agent
	Records   Records
	Storage   Storage
	Plugs     Plugs
	Snapshots Snapshots
	Backups   Backups
	Images    Images
	Overlays  Overlays
	Inventory Inventory
	// Provisioner is needed by Provision only.
	Provisioner Provisioner
	// Copier is needed by CloneSnapshot and ExportSnapshot only.
	Copier Copier
}
