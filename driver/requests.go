package driver

import (
	"time"

	"github.com/maqet/maqet/manifest"
)

// Depth is how much Observe asks.
type Depth int

// The depths.
const (
	// DepthBrief asks QEMU for its run state and uuid only, and looks at no image.
	DepthBrief Depth = iota
	// DepthGuest asks a running QEMU everything; of a machine that does not run it
	// looks whether the image files are there, and not into them.
	DepthGuest
	// DepthFull asks everything that a plan compares.
	DepthFull
)

// Awaited says which events Await returns on.
type Awaited struct {
	// Exit is the end of the QEMU process.
	Exit bool
	// Job is a change of a QEMU job's status.
	Job bool
	// Ready is anything that may make the readiness probe succeed.
	Ready bool
	// Unplug is a device that the guest was asked to let go of and that is gone.
	Unplug bool
	// Ending is set by who has asked for the end and waits for it: a QEMU that hangs
	// while it ends is then told to go on, as a watch does.
	Ending bool
}

// Hint tells that something may have happened to a machine. It carries no
// truth: one that is lost or comes twice changes nothing, for looking decides.
type Hint struct {
	// Kind is the name of a QMP event, such as SHUTDOWN, or one of the kinds below.
	Kind string
}

// The kinds of hints that are no events of QEMU.
const (
	// HintExit tells that the process has ended. No other comes after it.
	HintExit = "exit"
	// HintConnected tells that events are listened to from now on. Whatever happened
	// before, or was more than could be told, may have gone unnoticed.
	HintConnected = "connected"
)

// StartRequest is everything needed to start a machine.
type StartRequest struct {
	// VM is the resolved object.
	VM *manifest.VirtualMachine
	// Generation is written into the launch record.
	Generation int64
	// Paused starts with the vCPUs stopped.
	Paused bool
	// From starts the machine as it was when this snapshot was taken: with the spec
	// and the identity that are recorded, whatever VM says. Nil starts VM.
	From *SnapshotRecord
}

// RestoreReport says what setting disks back has done.
type RestoreReport struct {
	// Tag is the snapshot.
	Tag string `json:"tag"`
	// Disks are those that hold again what they held then, Untouched those that
	// are as they were before.
	Disks     []string `json:"disks"`
	Untouched []string `json:"untouched,omitempty"`
	// Method, Taken and Consistency are the snapshot's; Method and Consistency are
	// empty for one that maqet did not take.
	Method      manifest.SnapshotMethod `json:"method,omitempty"`
	Taken       time.Time               `json:"taken,omitzero"`
	Consistency string                  `json:"consistency,omitempty"`
	// MemoryNotRestored tells that the snapshot has memory too, which stays where
	// it is: the guest will boot.
	MemoryNotRestored bool `json:"memoryNotRestored,omitempty"`
	// Bitmaps are the dirty bitmaps that had to go, by disk: the next backup of such a
	// disk is a full one.
	Bitmaps map[string][]string `json:"bitmaps,omitempty"`
	// Note says in words what a person has to know.
	Note string `json:"note,omitempty"`
}
