package driver

import (
	"time"

	"github.com/maqet/maqet/manifest"
)

// LaunchedVersion is the format of launched.json that this maqet writes.
const LaunchedVersion = 1

// Launched is the launch record of a QEMU process: written before exec, kept
// beside its sockets, gone with the boot.
type Launched struct {
	Version int `json:"version"`
	// UID is the machine's uuid.
	UID string `json:"uid"`
	// Argv is the command line, argv[0] included, as /proc/PID/cmdline shows it.
	Argv []string `json:"argv"`
	// Spec is the resolved spec the process was started with, with what was plugged in
	// and taken out since.
	Spec manifest.VirtualMachineSpec `json:"spec"`
	// Generation is the generation of that spec.
	Generation int64 `json:"generation"`
	// Machine is the resolved machine type.
	Machine string `json:"machine"`
	// Identity is a copy of the identity at launch, with the places of what was plugged
	// in since.
	Identity Identity `json:"identity"`
	// QEMU is the version of the binary.
	QEMU Version `json:"qemu"`
	// BootID is /proc/sys/kernel/random/boot_id at launch.
	BootID string `json:"bootID"`
	// At is when exec was called.
	At time.Time `json:"at"`
	// SerialOffset is the size of the serial log at launch: what follows was
	// written by this process's guest.
	SerialOffset int64 `json:"serialOffset,omitempty"`
	// LogOffset is the size of QEMU's stderr log at launch.
	LogOffset int64 `json:"logOffset,omitempty"`
	// Ports is how many PCI Express root ports the process has.
	Ports int `json:"ports,omitempty"`
	// Unplugs are the devices that the guest was asked to let go of, by name.
	Unplugs map[string]Unplug `json:"unplugs,omitempty"`
	// ReadyAt is when readiness was first observed; zero before.
	ReadyAt time.Time `json:"readyAt,omitzero"`
	// CLISocket is the file of the socket for short visits; zero in the record of an
	// older maqet.
	CLISocket FileID `json:"cliSocket,omitzero"`
}

// FileID tells a file from all others that exist at the same time (stat(2), st_dev and
// st_ino). The zero value is no file.
type FileID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// IntentKind is what was begun.
type IntentKind string

// The kinds of intents.
const (
	IntentStop     IntentKind = "Stop"
	IntentRestart  IntentKind = "Restart"
	IntentSnapshot IntentKind = "Snapshot"
	IntentRestore  IntentKind = "Restore"
)

// Stage is how hard a stop is pressed.
type Stage string

// The stages of a stop. The first two come in the order that the manifest says.
const (
	// StageAgent is a guest whose agent was told to power off.
	StageAgent     Stage = "GuestAgent"
	StagePowerdown Stage = "Powerdown"
	StageQuit      Stage = "Quit"
	StageKill      Stage = "Kill"
)

// Intent is what was begun on a machine and is not yet observed to be over. It
// carries deadlines over the end of the process that began it, and dies with
// the boot.
type Intent struct {
	Kind IntentKind `json:"kind"`
	// Stage is how far a stop or restart has gone.
	Stage Stage `json:"stage,omitempty"`
	// Since is when this stage began, Deadline when it counts as failed.
	Since    time.Time `json:"since"`
	Deadline time.Time `json:"deadline"`
	// Failed is why the stage came to nothing before its deadline; empty while it may
	// still come to something.
	Failed string `json:"failed,omitempty"`
	// Who began it, such as "apply (pid 4711, uid 0)".
	Who string `json:"who"`
	// UID is the machine's uuid: an intent for another process is void.
	UID string `json:"uid"`
	// Snapshot is what is being taken or loaded.
	Snapshot *SnapshotIntent `json:"snapshot,omitempty"`
}

// SnapshotIntent is a snapshot being taken, or loaded, by a job of QEMU.
type SnapshotIntent struct {
	Tag    string                  `json:"tag"`
	Method manifest.SnapshotMethod `json:"method"`
	// Quiesce says whether the guest's file systems are frozen meanwhile; empty is
	// IfAvailable.
	Quiesce manifest.Quiesce `json:"quiesce,omitempty"`
	// Job is QEMU's job id.
	Job string `json:"job"`
}
