package reconcile

import (
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Class is the price of a change, from nothing to data loss.
type Class string

// The classes, cheapest first.
const (
	ClassNone     Class = "none"
	ClassMetadata Class = "metadata"
	ClassLive     Class = "live"
	ClassNextBoot Class = "next-boot"
	ClassRestart  Class = "restart"
	ClassRecreate Class = "recreate"
	ClassDataLoss Class = "data-loss"
)

// Change is what is priced and shown: one field, from what is to what should be.
type Change struct {
	// Path is the manifest path, such as spec.memory.size or spec.disks[data].
	Path string `json:"path"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Class is the price.
	Class Class `json:"class"`
	// Why explains the class.
	Why string `json:"why,omitempty"`
	// Drift is true when no manifest changed: the machine did.
	Drift bool `json:"drift,omitempty"`
	// Pending is true when the change waits for permission or the next start.
	Pending bool `json:"pending,omitempty"`
}

// StepKind is one thing that a pass does. There are no compound steps.
type StepKind string

// The steps.
const (
	// StepRecordEnd stores how the last process ended and clears what it left.
	StepRecordEnd StepKind = "record-end"
	// StepIdentity writes or extends the machine's identity.
	StepIdentity StepKind = "identity"
	// StepCreateDisk makes a disk that does not exist: an empty one, or one of an image.
	StepCreateDisk StepKind = "create-disk"
	// StepSetAside moves a disk that is to be made anew to the kept ones.
	StepSetAside StepKind = "set-aside-disk"
	// StepGrowDisk makes a disk larger, through QEMU or in its absence.
	StepGrowDisk StepKind = "grow-disk"
	// StepThrottleDisk sets the limits of a drive of a running QEMU.
	StepThrottleDisk StepKind = "throttle-disk"
	// StepPlug adds an item to a running QEMU.
	StepPlug StepKind = "plug"
	// StepUnplug asks the guest to let go of a device.
	StepUnplug StepKind = "unplug"
	// StepDrop removes what was behind a device that is gone.
	StepDrop StepKind = "drop"
	// StepMedium changes what is in a cdrom of a running QEMU.
	StepMedium StepKind = "medium"
	// StepAddCPUs adds vCPUs to a running QEMU.
	StepAddCPUs StepKind = "add-cpus"
	// StepForward changes the port forwards of a running QEMU.
	StepForward StepKind = "forward"
	// StepStart starts QEMU.
	StepStart StepKind = "start"
	// StepAgentShutdown asks the guest's agent to end it.
	StepAgentShutdown StepKind = "agent-shutdown"
	// StepPowerdown asks the guest to end.
	StepPowerdown StepKind = "powerdown"
	// StepQuit tells QEMU to end.
	StepQuit StepKind = "quit"
	// StepKill ends QEMU by SIGKILL.
	StepKill StepKind = "kill"
	// StepThaw lets file systems go on that somebody froze who is gone.
	StepThaw StepKind = "thaw"
	// StepPause stops the vCPUs.
	StepPause StepKind = "pause"
	// StepResume lets them run.
	StepResume StepKind = "resume"
	// StepClearIntent drops an intent that is over or void.
	StepClearIntent StepKind = "clear-intent"
	// StepTakeSnapshot takes a snapshot, or begins the job that does.
	StepTakeSnapshot StepKind = "take-snapshot"
	// StepFinishSnapshot verifies a finished job, writes the snapshot's record
	// and dismisses the job.
	StepFinishSnapshot StepKind = "finish-snapshot"
	// StepDeleteSnapshot deletes a snapshot's data.
	StepDeleteSnapshot StepKind = "delete-snapshot"
	// StepLoadSnapshot begins to load a Full snapshot into the running QEMU.
	StepLoadSnapshot StepKind = "load-snapshot"
	// StepFinishLoad ends a restore whose job has succeeded.
	StepFinishLoad StepKind = "finish-load"
	// StepFailRestore notes that loading failed halfway.
	StepFailRestore StepKind = "fail-restore"
	// StepRevertDisks sets the disks of a stopped machine back to a snapshot.
	StepRevertDisks StepKind = "revert-disks"
	// StepEndRestore gives up a restore that has changed nothing.
	StepEndRestore StepKind = "end-restore"
	// StepScheduleSnapshot makes the Snapshot object that a schedule asks for.
	StepScheduleSnapshot StepKind = "schedule-snapshot"
	// StepExpireSnapshot has a scheduled snapshot deleted that is kept no longer.
	StepExpireSnapshot StepKind = "expire-snapshot"
	// StepForget removes the record of a machine that is stopped, and moves or
	// deletes its disks.
	StepForget StepKind = "forget"
	// StepForgetSnapshot removes the record of a Snapshot object.
	StepForgetSnapshot StepKind = "forget-snapshot"
	// StepEndHold removes a hold that is over.
	StepEndHold StepKind = "end-hold"
)

// Step is one thing to do now.
type Step struct {
	Kind StepKind `json:"kind"`
	// Disk is the disk of the disk steps, Snapshot the tag of the snapshot steps. A
	// StepStart with a tag starts the machine as that snapshot's record says.
	Disk string `json:"disk,omitempty"`
	// Image is the Image object that StepCreateDisk makes the disk of, Digest the
	// image that it is of then, or that the disk of StepSetAside was of.
	Image    string `json:"image,omitempty"`
	Digest   string `json:"digest,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
	// Size is the size that StepGrowDisk brings about.
	Size manifest.Quantity `json:"size,omitempty"`
	// Throttle are the limits of StepThrottleDisk; nil for none.
	Throttle *manifest.Throttle `json:"throttle,omitempty"`
	// Part is the item of StepPlug, StepUnplug, StepDrop and StepMedium.
	Part *driver.Part `json:"part,omitempty"`
	// File is what StepMedium puts in; empty for nothing.
	File string `json:"file,omitempty"`
	// CPUs is how many there are after StepAddCPUs.
	CPUs int `json:"cpus,omitempty"`
	// Unplug is what StepUnplug notes.
	Unplug *driver.Unplug `json:"unplug,omitempty"`
	// Slot is the time that a schedule named for StepScheduleSnapshot.
	Slot time.Time `json:"slot,omitzero"`
	// Method is the method of StepTakeSnapshot.
	Method manifest.SnapshotMethod `json:"method,omitempty"`
	// Quiesce is whether StepTakeSnapshot has the guest's file systems frozen.
	Quiesce manifest.Quiesce `json:"quiesce,omitempty"`
	// Intent is written before a step whose end is only seen later. That of
	// StepFinishSnapshot names the job; without one the disks have the tag already.
	// That of StepFinishLoad names the job, too.
	Intent *driver.Intent `json:"intent,omitempty"`
	// Paused makes StepStart leave the vCPUs stopped.
	Paused bool `json:"paused,omitempty"`
	// DeleteDisks makes StepForget delete the disks instead of keeping them.
	DeleteDisks bool `json:"deleteDisks,omitempty"`
	// Why says what for, for people.
	Why string `json:"why,omitempty"`
}

// Wait says that nothing is to be done until something happens.
type Wait struct {
	// For says what: "guest to power off", "snapshot job".
	For string `json:"for"`
	// Until is when looking again is due at the latest; zero when only an event can help.
	Until time.Time `json:"until,omitzero"`
	// Then is what is done when that time has come; empty for another look.
	Then string `json:"then,omitempty"`
	// Exit, Job, Ready and Unplug tell which event is waited for.
	Exit   bool `json:"exit,omitempty"`
	Job    bool `json:"job,omitempty"`
	Ready  bool `json:"ready,omitempty"`
	Unplug bool `json:"unplug,omitempty"`
	// Images are the Image objects that have to be fetched first. Nobody else does
	// that: whoever waits fetches them.
	Images []string `json:"images,omitempty"`
}

// Problem is why a machine cannot be brought to what it should be.
type Problem struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Err is the error behind it, for exit codes; may be nil.
	Err error `json:"-"`
}

// Plan is the answer to one look at one machine.
type Plan struct {
	Machine string   `json:"machine"`
	Changes []Change `json:"changes,omitempty"`
	// Steps are what this pass executes, in order.
	Steps []Step `json:"steps,omitempty"`
	// Wait is set when a later pass has more to do.
	Wait *Wait `json:"wait,omitempty"`
	// Problems stop the machine from converging until somebody acts.
	Problems []Problem `json:"problems,omitempty"`
	// Held is the hold that is honoured.
	Held *state.Hold `json:"held,omitempty"`
}

// Empty tells that nothing is to be done, waited for or owed.
func (p Plan) Empty() bool {
	return len(p.Steps) == 0 && p.Wait == nil && len(p.Changes) == 0 && len(p.Problems) == 0
}

// Settled tells that this pass has nothing more to do: what remains needs
// permission, a person or an event that maqet does not cause.
func (p Plan) Settled() bool { return len(p.Steps) == 0 && p.Wait == nil }

// Desired is what one machine should be: its record, the Snapshot objects that
// name it, and the Image objects that its disks name.
type Desired struct {
	Machine   *state.Machine
	Snapshots []*state.Snapshot
	// Images are by name. One that is not remembered is not in it.
	Images map[string]*state.Image
}

// Options are what the person or controller permits.
type Options struct {
	// AllowRestart permits restarts that a change needs.
	AllowRestart bool
	// Start begins a machine that is Completed.
	Start bool
	// Restart is an asked-for restart: the plan stops the machine once.
	Restart bool
	// Resume lets a guest run on that QEMU stopped because its disk failed. It is a
	// person's word, and good for one try.
	Resume bool
	// Stop ends the process whatever its power state should be, and leaves it so
	// for as long as the option lasts. Nothing remembers it.
	Stop bool
	// Force skips asking the guest when stopping.
	Force bool
	// Supervise makes the restart policy count: a machine that failed is started
	// again when its backoff is over. Without it a person asks, and it is at once.
	Supervise bool
	// NoWait returns as soon as everything is sent. What would be waited for is
	// in the result's plan, and whoever converges next goes on with it.
	NoWait bool
	// Who is written into intents.
	Who string
	// Shutdown, Quit, Kill, Launch, Ready, Snapshot and Unplug are durations from the
	// timing table; zero takes the table's own.
	Shutdown, Quit, Kill, Launch, Ready, Snapshot, Unplug time.Duration
	// Backoff, BackoffMax and BackoffReset are likewise.
	Backoff, BackoffMax, BackoffReset time.Duration
	// BootID is the host's current boot id.
	BootID string
	// brief says that only little was looked at: nothing is said of what was not.
	brief bool
}
