package reconcile

import (
	"context"
	"log/slog"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Watcher tells of events of one machine's QEMU. Watch returns when the process
// has ended, when it cannot be listened to, or when ctx ends; hints are only
// hints, and hint never blocks.
type Watcher interface {
	Watch(ctx context.Context, name string, hint func(driver.Hint)) error
}

// ControllerConfig is what a Controller works with.
type ControllerConfig struct {
	Engine *Engine
	// Load is manifest.Load and manifest.Admit. The error is a manifest.Errors
	// when files or objects are at fault, and then comes with what was valid.
	Load func(ctx context.Context) (*manifest.Set, error)
	// Changes tells that the folder may have changed; nil when nothing tells.
	Changes <-chan struct{}
	// Watcher tells of events of QEMU; nil leaves it to exits and the resync.
	Watcher Watcher
	// Options are the owner, what may be pruned, and what the machines' passes
	// may do. DryRun, Wait and Timeout mean nothing here.
	Options ApplyOptions
	// Workers is how many machines are looked at or changed at once; 0 is 32.
	Workers int
	// Resync is when everything is looked at again although nothing told of a
	// change; 0 takes it from the engine's timing table.
	Resync time.Duration
	// Status is told how the controller is, whenever that changes and at each
	// resync, one call at a time; nil discards.
	Status func(ControllerStatus)
	// Log gets what changed; nil discards.
	Log *slog.Logger
}

// The types of a controller's own conditions.
const (
	// ConditionStateNotWritten is a state dir that takes nothing: what has to be
	// remembered is in memory only.
	ConditionStateNotWritten = "StateNotWritten"
	// ConditionManifestsIncomplete is a listing that proves no absence, since
	// files or folders could not be read or are at fault.
	ConditionManifestsIncomplete = "ManifestsIncomplete"
	// ConditionPruneRefused is a prune that would delete more than it may.
	ConditionPruneRefused = "PruneRefused"
)

// ControllerStatus is how a controller is.
type ControllerStatus struct {
	// Machines counts those that are supervised, Phases by phase.
	Machines int           `json:"machines"`
	Phases   map[Phase]int `json:"phases,omitempty"`
	// Ready counts the machines that are Ready.
	Ready int `json:"ready"`
	// Synced is when the manifests were last read.
	Synced time.Time `json:"synced,omitzero"`
	// Faults are what is wrong with the manifests.
	Faults []string `json:"faults,omitempty"`
	// Conditions are those of the controller itself, while they are true.
	Conditions []state.Condition `json:"conditions,omitempty"`
}
