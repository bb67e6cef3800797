package reconcile

import (
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Event is told while a machine is converged.
type Event struct {
	Time time.Time `json:"time"`
	// Machine is the machine's name.
	Machine string `json:"machine"`
	// Step is the kind of a step, or "wait" or "ready".
	Step string `json:"step"`
	// Image is the Image object that is fetched, Transfer how far that is; empty for
	// anything else.
	Image    string           `json:"image,omitempty"`
	Transfer *driver.Transfer `json:"transfer,omitempty"`
	// Message is for people: "started, pid 4711".
	Message string `json:"message"`
	// Err is why a step failed.
	Err error `json:"-"`
	// Done is true once the step is confirmed by observation; before, it has begun.
	Done bool `json:"done"`
}

// StepResult is one step that was tried.
type StepResult struct {
	Step
	// Took is how long it lasted.
	Took time.Duration `json:"took"`
	// Message says what was observed then.
	Message string `json:"message,omitempty"`
	// Err is why it failed; nil when it is confirmed by observation.
	Err error `json:"-"`
}

// Result is what came of converging one machine.
type Result struct {
	Machine string `json:"machine"`
	// Plan is the last one: what is still to be done, owed or wrong.
	Plan Plan `json:"plan"`
	// Status is the machine as last observed.
	Status Status `json:"status"`
	// Steps are those that were tried, in order.
	Steps []StepResult `json:"steps,omitempty"`
	// Restored is what setting disks back to a snapshot has done; nil when that was
	// not asked for.
	Restored *driver.RestoreReport `json:"restored,omitempty"`
	// Degraded is true when the machine did not become Ready in time.
	Degraded bool `json:"degraded,omitempty"`
	// HoldAsked is true when the hold in the plan is what was just asked for.
	HoldAsked bool `json:"-"`
	// Gone is true when the machine was deleted.
	Gone bool `json:"gone,omitempty"`
	// KeptAt is where the disks of a deleted machine are; empty when there are none.
	KeptAt string `json:"keptAt,omitempty"`
	// Err is why it stopped short; nil when it settled.
	Err error `json:"-"`
}

// ObjectAction is what apply did, or would do, to the record of an object.
type ObjectAction string

// The actions.
const (
	ActionCreated    ObjectAction = "created"
	ActionConfigured ObjectAction = "configured"
	ActionUnchanged  ObjectAction = "unchanged"
	ActionPruned     ObjectAction = "pruned"
	// ActionLeft is an object of the owner that is in no manifest and, without
	// permission to prune, stays as it is.
	ActionLeft ObjectAction = "left"
)

// ObjectChange is one object and what happened to its record.
type ObjectChange struct {
	Object manifest.ObjectKey `json:"object"`
	Action ObjectAction       `json:"action"`
}

// ApplyOptions are what apply may do.
type ApplyOptions struct {
	// Owner is whom the objects belong to. Empty: OwnerOf the set.
	Owner string
	// TakeOver permits taking objects from another owner.
	TakeOver bool
	// Prune deletes the owner's objects that are in no manifest, PruneAll even all of them.
	Prune, PruneAll bool
	// MaxDeletions bounds how many machines one prune may delete; 0 is no bound.
	MaxDeletions int
	// Recreate are disks to make anew of what the manifests name now.
	Recreate []DiskName
	// Planned is a forecast outside of which nothing is done; nil is no bound. Where it
	// is not what would be done now, nothing is done at all (ErrPlanLeft).
	Planned *PlanReport
	// DryRun changes nothing: the report has the forecast.
	DryRun bool
	// Wait waits until every running machine is Ready, too.
	Wait bool
	// Timeout bounds the whole; 0 is no bound besides ctx.
	Timeout time.Duration
	// Options are for each machine.
	Options Options
}

// DiskName is a disk of a machine.
type DiskName struct{ Machine, Disk string }

// Report is what came of an apply. Failed to Interrupted tell the exit code.
type Report struct {
	Objects []ObjectChange `json:"objects,omitempty"`
	// Results are by machine name.
	Results []Result `json:"results,omitempty"`
	// Forecast is set for a dry run.
	Forecast *PlanReport `json:"forecast,omitempty"`
	// Failed is true when any machine failed, Refused when QEMU or QMP said no.
	Failed  bool `json:"failed,omitempty"`
	Refused bool `json:"refused,omitempty"`
	// Pending is true when something is owed: a restart, a held machine, a
	// snapshot that cannot be taken yet, a wait that ran out.
	Pending bool `json:"pending,omitempty"`
	// Degraded is true when a machine did not become Ready in time.
	Degraded bool `json:"degraded,omitempty"`
	// Interrupted is true when ctx was cancelled; NotDone then names the
	// machines that were not settled.
	Interrupted bool     `json:"interrupted,omitempty"`
	NotDone     []string `json:"notDone,omitempty"`
}

// MachineForecast is what apply would do to one machine.
type MachineForecast struct {
	Machine string       `json:"machine"`
	Action  ObjectAction `json:"action"`
	// Digest is that of the manifest.
	Digest string `json:"digest,omitempty"`
	// Class is the highest price of the changes.
	Class Class `json:"class"`
	// Changes are all of them, those of the record and those of the guest.
	Changes []Change `json:"changes,omitempty"`
	// Passes are the plans one after the other, each on the result of the one before.
	Passes []Plan `json:"passes,omitempty"`
	// Problems are those of the last pass.
	Problems []Problem   `json:"problems,omitempty"`
	Held     *state.Hold `json:"held,omitempty"`
	// Phase is the phase now.
	Phase Phase `json:"phase"`
}

// Empty tells that apply would do nothing to the machine and owes it nothing.
func (f MachineForecast) Empty() bool {
	if f.Held != nil || len(f.Changes) > 0 || len(f.Problems) > 0 {
		return false
	}
	for _, p := range f.Passes {
		if !p.Empty() {
			return false
		}
	}
	return f.Action == ActionUnchanged || f.Action == ActionLeft
}

// PlanReport is what an apply would do.
type PlanReport struct {
	Owner    string            `json:"owner"`
	Objects  []ObjectChange    `json:"objects,omitempty"`
	Machines []MachineForecast `json:"machines,omitempty"`
	// Class is the highest price of all.
	Class Class `json:"class"`
	// Empty is true when apply would do nothing.
	Empty bool `json:"empty"`
}

// View is one machine as it is now.
type View struct {
	Machine   *state.Machine    `json:"machine"`
	Snapshots []*state.Snapshot `json:"snapshots,omitempty"`
	Observed  driver.Observed   `json:"-"`
	Plan      Plan              `json:"plan"`
	Status    Status            `json:"status"`
	// Watched is true while a watch runs: then the restart policy acts.
	Watched bool `json:"watched"`
}

// PowerRequest is a person's start, stop, pause or resume.
type PowerRequest struct {
	// PowerState is what the machine shall be doing.
	PowerState manifest.PowerState
	// Why is shown with the hold.
	Why string
	// Until ends the hold by itself; zero means until released.
	Until time.Time
	// UntilBoot ends the hold by itself when the host has booted again, and
	// brings back the hold that there was before.
	UntilBoot bool
}

// DeleteOptions are what a delete may do.
type DeleteOptions struct {
	// DeleteDisks deletes the disks that maqet made, whatever onDelete says.
	DeleteDisks bool
	Options     Options
}

// RestoreRequest is a person's word to set a machine back to a snapshot.
type RestoreRequest struct {
	VM   string
	Name string
	// Stop permits to stop a running machine for it, where its disks have to be set
	// back while nothing has them open.
	Stop bool
	// DisksOnly leaves the memory of a Full snapshot where it is: the guest will boot.
	DisksOnly bool
	// Safety is the name of a snapshot that is taken before, of how the machine is now;
	// empty takes none.
	Safety  string
	Options Options
}

// SnapshotRequest is a person's snapshot.
type SnapshotRequest struct {
	VM   string
	Name string
	// Method is Full or Disk. Empty: Full when the machine runs, Disk when not.
	Method manifest.SnapshotMethod
	// Quiesce says whether the guest's file systems are frozen. Empty: IfAvailable.
	Quiesce manifest.Quiesce
	// Deadline bounds taking it. Zero: that of the timing table.
	Deadline time.Duration
	Options  Options
}
