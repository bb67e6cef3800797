package driver

import "github.com/maqet/maqet/manifest"

// Depth is how much Observe asks.
type Depth int

// The depths.
const (
	// DepthBrief asks QEMU for its run state and uuid only, and looks at no image.
	DepthBrief Depth = iota
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
}

// StartRequest is everything needed to start a machine.
type StartRequest struct {
	// VM is the resolved object.
	VM *manifest.VirtualMachine
	// Generation is written into the launch record.
	Generation int64
	// Paused starts with the vCPUs stopped.
	Paused bool
}
