package reconcile

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// snapshotJob deals with a snapshot that is being taken; true when the machine
// has to be left alone because of it.
func (p *planner) snapshotJob() bool {
	in := p.obs.Intent
	if in == nil || in.Kind != driver.IntentSnapshot || in.Snapshot == nil {
		return false
	}
	if p.obs.Guest.Brief {
		p.plan.Wait = &Wait{For: "the job of snapshot " + in.Snapshot.Tag, Until: in.Deadline, Job: true, Exit: true}
		return true
	}
	i := slices.IndexFunc(p.obs.Guest.Jobs, func(j driver.Job) bool { return j.ID == in.Snapshot.Job && !jobGone(j) })
	switch {
	case i < 0:
		// It was never begun, or somebody dismissed it. The tags tell which.
		p.dropIntent("the job of snapshot " + in.Snapshot.Tag + " is gone")
		return false
	case jobOver(p.obs.Guest.Jobs[i]):
		p.step(Step{Kind: StepFinishSnapshot, Snapshot: in.Snapshot.Tag, Method: in.Snapshot.Method, Intent: in, Why: "its job is over"})
	case p.now.Before(in.Deadline):
		p.plan.Wait = &Wait{For: "the job of snapshot " + in.Snapshot.Tag, Until: in.Deadline, Job: true, Exit: true}
	default:
		p.problem(ReasonSnapshotStuck, "the job of snapshot "+in.Snapshot.Tag+" is past its deadline and still runs",
			"wait, or cancel it with maqet qmp "+p.plan.Machine+" job-cancel --arg id="+in.Snapshot.Job)
	}
	return true
}

// snapshots plans at most one snapshot, once nothing else is to be done.
func (p *planner) snapshots() {
	if p.opt.brief {
		return
	}
	all := slices.Clone(p.want.Snapshots)
	slices.SortFunc(all, func(a, b *state.Snapshot) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Object.Metadata.Name, b.Object.Metadata.Name))
	})
	for _, s := range all {
		if p.acting() {
			return
		}
		if s.Deleting != nil {
			p.deleteSnapshot(s)
		} else {
			p.wantSnapshot(s)
		}
	}
	if !p.acting() {
		p.schedule()
	}
}

func (p *planner) deleteSnapshot(s *state.Snapshot) {
	tag := s.Object.Metadata.Name
	_, exists := p.obs.Snapshots[tag]
	// Without an explicit word only data goes that was taken for this object.
	data := s.Deleting.DeleteDisks || s.TakenUID != "" && s.Object.Spec.OnDelete == manifest.SnapshotDelete
	switch {
	case !data:
		p.step(Step{Kind: StepForgetSnapshot, Snapshot: tag, Why: "its object is deleted; its data is kept"})
	case !p.obs.SnapshotsKnown:
		p.snapshotsUnknown(tag)
	case exists:
		p.step(Step{Kind: StepDeleteSnapshot, Snapshot: tag, Why: "its object is deleted, and its data with it"})
	default:
		p.step(Step{Kind: StepForgetSnapshot, Snapshot: tag, Why: "its data is gone"})
	}
}

func (p *planner) snapshotsUnknown(tag string) {
	p.problem(ReasonSnapshotsUnknown, "snapshot "+tag+": the disks could not be asked for their snapshots",
		"see whether the images can be read and qemu-img is installed")
}

// wantSnapshot plans a snapshot that is not taken yet.
func (p *planner) wantSnapshot(s *state.Snapshot) {
	tag := s.Object.Metadata.Name
	uid := p.uid()
	if s.TakenUID != "" && s.TakenUID == uid {
		return
	}
	if s.Failed != "" {
		p.problem(ReasonSnapshotFailed, "snapshot "+tag+": "+s.Failed, "apply again to try again")
		return
	}
	if p.obs.Guest != nil && p.obs.Guest.Brief {
		return
	}
	if p.obs.Presence == driver.Absent && (uid == "" || !p.hasDisks()) {
		p.snapshotPending(tag, "the machine has no disks yet", "it is taken once the machine has been started")
		return
	}
	if !p.obs.SnapshotsKnown {
		p.snapshotsUnknown(tag)
		return
	}
	if found, exists := p.obs.Snapshots[tag]; exists {
		p.foundSnapshot(s, found)
		return
	}
	p.change(Change{Path: "snapshots[" + tag + "]", To: string(s.Object.Spec.Method), Class: ClassLive, Why: "the snapshot is taken"})
	owed := len(p.plan.Changes) - 1
	if p.obs.Presence == driver.Absent {
		p.offlineSnapshot(s)
	} else {
		p.onlineSnapshot(s)
	}
	p.plan.Changes[owed].Pending = !p.acting()
}

// foundSnapshot takes a tag that is there already as taken, if it holds what is wanted.
func (p *planner) foundSnapshot(s *state.Snapshot, found driver.SnapshotState) {
	tag := s.Object.Metadata.Name
	if s.Object.Spec.Method == manifest.SnapshotFull && found.VMStateSize == 0 {
		p.problem(ReasonSnapshotConflict, "snapshot "+tag+": the disks have a snapshot of that name without memory",
			"give the Snapshot another name, or method Disk")
		return
	}
	p.step(Step{
		Kind: StepFinishSnapshot, Snapshot: tag, Method: s.Object.Spec.Method, Quiesce: s.Object.Spec.Quiesce, Why: "the disks have it",
	})
}

func (p *planner) snapshotPending(tag, message, hint string) {
	p.problem(ReasonSnapshotPending, "snapshot "+tag+": "+message, hint)
}

func (p *planner) offlineSnapshot(s *state.Snapshot) {
	tag := s.Object.Metadata.Name
	if s.Object.Spec.Method == manifest.SnapshotFull {
		p.snapshotPending(tag, "method Full saves memory, and the machine is not running", "start the machine, or use method Disk")
		return
	}
	p.step(Step{Kind: StepTakeSnapshot, Snapshot: tag, Method: s.Object.Spec.Method, Why: "the machine is stopped"})
}

func (p *planner) onlineSnapshot(s *state.Snapshot) {
	tag, g := s.Object.Metadata.Name, p.obs.Guest
	if g.RunState != runRunning && g.RunState != runPaused && g.RunState != runSuspended && !startedPaused(&p.obs) {
		p.snapshotPending(tag, "QEMU says "+g.RunState, "it is taken once the machine runs")
		return
	}
	if p.spec.Readiness != nil && !p.obs.Ready {
		p.awaitReady(tag)
		return
	}
	if why, hint := p.unquiet(s.Object.Spec); why != "" {
		p.snapshotPending(tag, why, hint)
		return
	}
	step := Step{
		Kind: StepTakeSnapshot, Snapshot: tag, Method: s.Object.Spec.Method, Quiesce: s.Object.Spec.Quiesce, Why: "the machine runs",
	}
	if s.Object.Spec.Method == manifest.SnapshotFull {
		lasts := p.opt.Snapshot
		if s.Object.Spec.Deadline != manifest.DefaultSnapshotDeadline {
			lasts = s.Object.Spec.Deadline.Or(p.opt.Snapshot)
		}
		step.Intent = &driver.Intent{
			Kind: driver.IntentSnapshot, Since: p.now, Deadline: p.later(lasts), Who: p.opt.Who, UID: p.uid(),
			Snapshot: &driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotFull, Job: jobName(p.uid())},
		}
		p.plan.Wait = &Wait{For: "the job of snapshot " + tag, Until: p.later(lasts), Job: true, Exit: true}
	}
	p.step(step)
}

// unquiet is why a freeze that is required cannot be had of the running guest; empty
// when it can be tried, or need not be.
func (p *planner) unquiet(want manifest.SnapshotSpec) (why, hint string) {
	g := p.obs.Guest
	if want.Quiesce != manifest.QuiesceRequired || want.Method == manifest.SnapshotFull || !p.listens() {
		return "", ""
	}
	const remedy = ", or let it be taken without: quiesce IfAvailable"
	switch {
	case g.Agent == nil:
		return "quiesce is Required, and the machine runs without a port for a guest agent",
			"add guestAgent: {} to its spec and apply with --allow-restart" + remedy
	case !g.Agent.Open:
		return "quiesce is Required, and no agent runs in the guest", "install qemu-guest-agent in the guest and start it" + remedy
	default:
		return "", ""
	}
}

// awaitReady puts a snapshot off until the guest is Ready.
func (p *planner) awaitReady(tag string) {
	until := readyDeadline(p.rec, &p.obs, p.opt)
	switch {
	case p.power == manifest.PowerPaused:
		p.snapshotPending(tag, "the guest has not been Ready and is paused", "it is taken once the guest runs and is Ready")
	case p.now.Before(until):
		p.plan.Wait = &Wait{For: "the guest to be Ready for snapshot " + tag, Until: until, Ready: true, Exit: true}
	default:
		p.snapshotPending(tag, "the guest did not become Ready in time", "see maqet logs "+p.plan.Machine+" and spec.readiness")
	}
}

// hasDisks tells whether there is an image that a snapshot could be on.
func (p *planner) hasDisks() bool {
	for _, f := range p.obs.Files {
		if f.Exists {
			return true
		}
	}
	return false
}

// readyDeadline is when a guest counts as late.
func readyDeadline(rec *state.Machine, obs *driver.Observed, opt Options) time.Time {
	began := obs.StartedAt
	if obs.Launched != nil {
		began = obs.Launched.At
	}
	lasts := opt.Ready
	if r := rec.Object.Spec.Readiness; r != nil && r.Timeout != manifest.DefaultReadinessTimeout {
		lasts = r.Timeout.Or(opt.Ready)
	}
	return began.Add(lasts)
}

// jobName says which job belongs to which machine.
func jobName(uid string) string { return "maqet-snapshot-" + shortUID(uid) }
