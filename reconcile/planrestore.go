package reconcile

import (
	"reflect"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// restoreJob deals with a snapshot that is being loaded; true when the machine has
// to be left alone because of it.
func (p *planner) restoreJob() bool {
	in := p.obs.Intent
	if in == nil || in.Kind != driver.IntentRestore || in.Snapshot == nil {
		return false
	}
	tag := in.Snapshot.Tag
	wait := &Wait{For: "snapshot " + tag + " to be loaded", Until: in.Deadline, Job: true, Exit: true}
	if p.obs.Guest.Brief {
		p.plan.Wait = wait
		return true
	}
	i := slices.IndexFunc(p.obs.Guest.Jobs, func(j driver.Job) bool { return j.ID == in.Snapshot.Job && !jobGone(j) })
	switch {
	case i < 0:
		// QEMU keeps a job until it is dismissed, so this one was never begun.
		p.step(Step{Kind: StepClearIntent, Why: "snapshot " + tag + " was not begun to be loaded"})
		p.obs.Intent = nil
		return false
	case p.obs.Guest.Jobs[i].Error != "":
		p.step(Step{Kind: StepFailRestore, Snapshot: tag, Why: p.obs.Guest.Jobs[i].Error})
	case jobOver(p.obs.Guest.Jobs[i]):
		p.step(Step{Kind: StepFinishLoad, Snapshot: tag, Method: manifest.SnapshotFull, Intent: in, Why: "its job is over"})
	case p.now.Before(in.Deadline):
		p.plan.Wait = wait
	default:
		p.problem(ReasonRestoreFailed, "snapshot "+tag+" is past its deadline and still being loaded",
			"wait, or end it with maqet stop --force "+p.plan.Machine)
	}
	return true
}

// restored is the snapshot to go back to; nil, and planned for, when there is none
// to be seen.
func (p *planner) restored() *driver.SnapshotState {
	tag := p.rec.Restore.Snapshot
	if !p.obs.SnapshotsKnown || p.obs.Guest != nil && p.obs.Guest.Brief {
		p.snapshotsUnknown(tag)
		return nil
	}
	found, exists := p.obs.Snapshots[tag]
	if !exists {
		p.endRestore("the disks do not have it any more")
		return nil
	}
	return &found
}

// withMemory tells that memory is to be loaded, not only disks set back.
func (p *planner) withMemory(found *driver.SnapshotState) bool {
	return found.VMStateSize > 0 && found.Record != nil && found.Record.Method == manifest.SnapshotFull && !p.rec.Restore.DisksOnly
}

func (p *planner) endRestore(why string) {
	p.step(Step{Kind: StepEndRestore, Snapshot: p.rec.Restore.Snapshot, Why: why})
}

// restoreAlive plans for a machine that runs and shall become what it was. Its
// memory is loaded into the QEMU that is there if that has just the devices of then,
// and else into one that is started as it was then. Disks alone are set back while
// nothing has them open.
func (p *planner) restoreAlive() {
	r := p.rec.Restore
	why := "snapshot " + r.Snapshot + " is restored"
	if r.Failed != "" {
		// Never to be continued: its disks may be of another time than its memory.
		p.opt.Force = true
		p.stop(driver.IntentRestart, "snapshot "+r.Snapshot+" could not be loaded")
		return
	}
	found := p.restored()
	if found == nil {
		return
	}
	if !p.withMemory(found) {
		p.stop(driver.IntentRestart, why)
		return
	}
	others := driver.DeviceDifferences(found.Record.Guest, p.obs.Guest)
	switch {
	case len(others) == 0 && p.stopIntent() == nil:
		p.load(found)
	case len(others) > 0 && r.Launched:
		p.endRestore("QEMU, started as it was then, has other devices: " + others[0])
	default:
		// What the guest holds in memory is given up either way.
		p.opt.Force = true
		p.stop(driver.IntentRestart, why)
	}
}

func (p *planner) load(found *driver.SnapshotState) {
	until := p.later(p.opt.Snapshot)
	p.step(Step{
		Kind: StepLoadSnapshot, Snapshot: found.Tag, Method: manifest.SnapshotFull, Why: "the machine has its devices",
		Intent: &driver.Intent{
			Kind: driver.IntentRestore, Since: p.now, Deadline: until, Who: p.opt.Who, UID: p.uid(),
			Snapshot: &driver.SnapshotIntent{Tag: found.Tag, Method: manifest.SnapshotFull, Job: restoreJobName(p.uid())},
		},
	})
	p.plan.Wait = &Wait{For: "snapshot " + found.Tag + " to be loaded", Until: until, Job: true, Exit: true}
}

// restoreAbsent plans for a stopped machine that shall become what it was.
func (p *planner) restoreAbsent() {
	r := p.rec.Restore
	if r.GaveUp != "" {
		p.problem(ReasonRestoreFailed, "snapshot "+r.Snapshot+" could not be loaded ("+r.Failed+"), nor started without its memory: "+r.GaveUp,
			"maqet snapshot restore "+p.plan.Machine+" "+r.Snapshot+" tries again, maqet start "+p.plan.Machine+" starts it as its manifest says")
		return
	}
	if r.Failed != "" && p.power == manifest.PowerStopped {
		p.endRestore("it could not be loaded, and the machine should be stopped")
		return
	}
	found := p.restored()
	switch {
	case found == nil:
	case r.Failed != "":
		p.step(Step{
			Kind: StepStart, Snapshot: r.Snapshot, Paused: p.power == manifest.PowerPaused,
			Why: "cold, as it was then, since its memory could not be loaded: " + r.Failed,
		})
	case p.withMemory(found) && p.power != manifest.PowerStopped:
		p.step(Step{Kind: StepStart, Snapshot: r.Snapshot, Paused: true, Why: "as it was when snapshot " + r.Snapshot + " was taken"})
	default:
		p.step(Step{Kind: StepRevertDisks, Snapshot: r.Snapshot, Why: "the machine is stopped"})
	}
}

// failedLoad is a job that loaded a snapshot and failed; nil when there is none.
func failedLoad(g *driver.Guest) *driver.Job {
	i := slices.IndexFunc(g.Jobs, func(j driver.Job) bool {
		return j.Type == "snapshot-load" && jobOver(j) && !jobGone(j) && j.Error != ""
	})
	if i < 0 {
		return nil
	}
	return &g.Jobs[i]
}

// restoreJobName says which job belongs to which machine.
func restoreJobName(uid string) string { return "maqet-restore-" + shortUID(uid) }

// from is the record that a start goes by; nil for one that goes by the manifest.
func (s Step) from(obs *driver.Observed) *driver.SnapshotRecord {
	if s.Kind != StepStart || s.Snapshot == "" {
		return nil
	}
	return obs.Snapshots[s.Snapshot].Record
}

// asThen tells that a snapshot was taken of a machine with just this spec.
func asThen(m *state.Machine, from *driver.SnapshotRecord) bool {
	return from.Launched != nil && reflect.DeepEqual(from.Launched.Spec, m.Object.Spec)
}
