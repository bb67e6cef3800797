package reconcile

import (
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Phase is one word for how a machine is, computed whenever it is read.
type Phase string

// The phases.
const (
	PhasePending          Phase = "Pending"
	PhaseStarting         Phase = "Starting"
	PhaseRunning          Phase = "Running"
	PhasePaused           Phase = "Paused"
	PhaseStopping         Phase = "Stopping"
	PhaseStopped          Phase = "Stopped"
	PhaseCompleted        Phase = "Completed"
	PhaseCrashLoopBackOff Phase = "CrashLoopBackOff"
	PhaseUnresponsive     Phase = "Unresponsive"
	PhaseFailed           Phase = "Failed"
	PhaseUnknown          Phase = "Unknown"
)

// Status is the .status of a VirtualMachine as it is shown to programs.
type Status struct {
	Phase Phase `json:"phase"`
	// Reason says more about the phase, such as Suspended; may be empty.
	Reason             string            `json:"reason,omitempty"`
	PID                int               `json:"pid,omitempty"`
	UID                string            `json:"uid,omitempty"`
	ObservedGeneration int64             `json:"observedGeneration,omitempty"`
	Conditions         []state.Condition `json:"conditions"`
	Restarts           int               `json:"restarts"`
	// Failures counts the ends in a row that were failures; NextTry is when a
	// watch starts the machine again.
	Failures  int       `json:"failures,omitempty"`
	NextTry   time.Time `json:"nextTry,omitzero"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Cgroup is the control group of the process; empty when it was only looked at briefly.
	Cgroup   string          `json:"cgroup,omitempty"`
	Observed *ObservedStatus `json:"observed,omitempty"`
	// Guest is what the guest's agent says; nil when none answered, or none was asked.
	Guest *driver.GuestInfo `json:"guest,omitempty"`
	// Provisioning is nil without cloudInit.
	Provisioning *ProvisioningStatus `json:"provisioning,omitempty"`
	Snapshots    []SnapshotStatus    `json:"snapshots"`
	// NextSnapshot is when the schedule asks for the next snapshot; zero without one.
	NextSnapshot time.Time `json:"nextSnapshot,omitzero"`
	// Backup is how the machine's backups are; nil without spec.backup.
	Backup          *BackupStatus      `json:"backup,omitempty"`
	LastTermination *state.Termination `json:"lastTermination,omitempty"`
	Hold            *state.Hold        `json:"hold,omitempty"`
	Deleting        *state.Deletion    `json:"deleting,omitempty"`
}

// ObservedStatus is what QEMU itself says.
type ObservedStatus struct {
	CPUs        int               `json:"cpus"`
	Memory      manifest.Quantity `json:"memory"`
	Disks       []driver.GDisk    `json:"disks"`
	NICs        []driver.GNIC     `json:"nics"`
	Devices     []driver.GDevice  `json:"devices"`
	RunState    string            `json:"runState"`
	QEMUVersion string            `json:"qemuVersion"`
	Accelerator string            `json:"accelerator"`
	MachineType string            `json:"machineType"`
	CPUModel    string            `json:"cpuModel,omitempty"`
	Firmware    string            `json:"firmware,omitempty"`
	TPM         string            `json:"tpm,omitempty"`
	Watchdog    string            `json:"watchdog,omitempty"`
}

// SnapshotPhase is one word for how a snapshot is.
type SnapshotPhase string

// The phases of snapshots.
const (
	// SnapshotPending is wanted and not taken yet.
	SnapshotPending SnapshotPhase = "Pending"
	// SnapshotTaking is being taken by a job.
	SnapshotTaking SnapshotPhase = "Taking"
	// SnapshotTaken is there.
	SnapshotTaken SnapshotPhase = "Taken"
	// SnapshotMissing was taken and is gone; it is not taken again.
	SnapshotMissing SnapshotPhase = "Missing"
	// SnapshotFailed could not be taken.
	SnapshotFailed SnapshotPhase = "Failed"
	// SnapshotDeleting is to be deleted.
	SnapshotDeleting SnapshotPhase = "Deleting"
)

// SnapshotStatus is one snapshot of a machine: wanted, found, or both.
type SnapshotStatus struct {
	Name   string                  `json:"name"`
	Phase  SnapshotPhase           `json:"phase"`
	Method manifest.SnapshotMethod `json:"method,omitempty"`
	// Declared is true when a Snapshot object wants it.
	Declared    bool      `json:"declared"`
	TakenAt     time.Time `json:"takenAt,omitzero"`
	Consistency string    `json:"consistency,omitempty"`
	// NotQuiesced is why a CrashConsistent one is not Quiesced.
	NotQuiesced string            `json:"notQuiesced,omitempty"`
	Disks       []string          `json:"disks,omitempty"`
	MemorySize  manifest.Quantity `json:"memorySize,omitempty"`
	// Duration is how long taking it lasted, Paused for how long the guest stood still.
	Duration manifest.Duration `json:"duration,omitempty"`
	Paused   manifest.Duration `json:"paused,omitempty"`
	// PausedAtMost tells that Paused is an upper bound.
	PausedAtMost bool `json:"pausedAtMost,omitempty"`
	// Parent is the snapshot that the machine was at when this one was taken.
	Parent  string `json:"parent,omitempty"`
	Message string `json:"message,omitempty"`
}
