package reconcile

import (
	"fmt"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// QEMU's run states, as query-status names them.
const (
	runRunning       = "running"
	runPaused        = "paused"
	runPrelaunch     = "prelaunch"
	runSaveVM        = "save-vm"
	runRestoreVM     = "restore-vm"
	runFinishMigrate = "finish-migrate"
	runIOError       = "io-error"
	runInternalError = "internal-error"
	runGuestPanicked = "guest-panicked"
	runWatchdog      = "watchdog"
	runShutdown      = "shutdown"
	runSuspended     = "suspended"
)

// alive plans for a machine that runs and answers.
func (p *planner) alive() {
	if in := p.obs.Intent; in != nil && in.UID != p.uid() {
		p.dropIntent("it is of a process that is gone")
	}
	stop := p.stopWanted()
	p.thaw(stop)
	// Force is the only word that a snapshot's job does not outlast.
	if !p.forced() && (p.snapshotJob() || p.restoreJob()) {
		return
	}
	in := p.stopIntent()
	switch {
	case stop:
		p.change(Change{Path: "spec.powerState", From: p.runWords(), To: p.stopTo(), Class: ClassLive, Why: p.stopReason()})
		p.stop(driver.IntentStop, p.stopReason())
	case p.opt.Restart:
		p.stop(driver.IntentRestart, "a restart was asked for")
	case p.rec.Restore != nil:
		p.restoreAlive()
	case in != nil && in.Kind == driver.IntentRestart:
		p.stop(driver.IntentRestart, "a restart was begun by "+in.Who)
	case in != nil && p.now.Before(in.Deadline):
		// The guest was told already and may still go. Its end must read as one
		// that was asked for, or nobody would start it again.
		p.plan.Wait = &Wait{For: "a stop that is no longer wanted to happen or to run out", Until: in.Deadline, Exit: true}
	case in != nil:
		// What may have to be done next, such as a restart, begins from its start.
		p.dropIntent("the stop is no longer wanted")
		p.converge()
	default:
		p.converge()
	}
}

// thaw ends a freeze whose maker is gone. It comes before all else, since a guest with
// frozen file systems can neither work nor power off. What was tried in vain does not
// keep a guest from being stopped, restarted or restored, which end the freeze as well,
// and force waits for no agent. Only a guest that runs can answer.
func (p *planner) thaw(stop bool) {
	f := p.obs.Freeze
	switch {
	case f == nil || f.Held || p.forced():
	case f.Failed != "" && (stop || p.restarts()):
	case p.obs.Guest.RunState == runRunning:
		p.step(Step{Kind: StepThaw, Why: "they were frozen by " + f.Who + ", which is gone"})
	default:
		p.frozen("they are thawed when the guest runs again")
	}
}

// restarts tells whether the process is to end for another one, as somebody has asked.
func (p *planner) restarts() bool {
	in := p.stopIntent()
	return p.opt.Restart || p.rec.Restore != nil || in != nil && in.Kind == driver.IntentRestart
}

// frozen tells of file systems that stay frozen for now.
func (p *planner) frozen(hint string) {
	f := p.obs.Freeze
	p.problem(ReasonFrozen, fmt.Sprintf("the guest's file systems were frozen at %s by %s, which is gone", f.Since.UTC().Format(time.RFC3339), f.Who), hint)
}

func (p *planner) stopReason() string {
	switch {
	case p.rec.Deleting != nil:
		return "the machine is deleted"
	case p.held != nil && p.held.PowerState == manifest.PowerStopped:
		return "it is held stopped by " + p.held.Who
	case p.power != manifest.PowerStopped:
		return "all machines are stopped"
	default:
		return "its power state is Stopped"
	}
}

func (p *planner) stopTo() string {
	if p.rec.Deleting != nil {
		return "deleted"
	}
	return string(manifest.PowerStopped)
}

// runWords is the run state in the manifest's words.
func (p *planner) runWords() string {
	switch {
	case startedPaused(&p.obs) || p.obs.Guest.RunState == runPaused:
		return string(manifest.PowerPaused)
	case p.obs.Guest.RunState == runRunning || p.obs.Guest.RunState == runSuspended:
		return string(manifest.PowerRunning)
	default:
		return p.obs.Guest.RunState
	}
}

// converge plans for a guest that shall live on.
func (p *planner) converge() {
	owed, unmet := p.split(guestChanges(p.spec, &p.obs))
	p.notAsStarted(unmet)
	hot := p.hot(owed)
	owed = hot.owed
	if p.obs.TPMLost {
		p.problem(ReasonTPMLost, "the swtpm that is the guest's TPM is gone; the guest runs on without it", "maqet restart "+p.plan.Machine)
	}
	p.filesystemsLost()
	grow, later := p.sizes()
	owed = append(owed, later...)
	for i := range owed {
		owed[i].Pending = !p.opt.AllowRestart
	}
	p.plan.Changes = append(append(owed, hot.changes...), p.plan.Changes...)
	p.provisioning()
	images := p.imageChanges()
	p.showImages(images)
	said := anew(images)
	switch {
	case len(said) == 0 && (len(owed) == 0 || !p.opt.AllowRestart):
	case !p.ready(append(p.missingDisks(), disksOf(said)...)):
		// The guest runs on until all is here that it needs to come up again.
	case len(said) > 0:
		p.stop(driver.IntentRestart, "disk "+said[0].disk.Name+" is made anew, as was said")
		return
	default:
		p.stop(driver.IntentRestart, fmt.Sprintf("%s needs a restart, which is allowed", owed[0].Path))
		return
	}
	for _, s := range grow {
		p.step(s)
	}
	p.throttles()
	p.plug(hot)
	p.runState()
	p.snapshots()
}

// startedPaused tells that QEMU was started with its vCPUs stopped and has not
// been continued since: then it says prelaunch, not paused.
func startedPaused(o *driver.Observed) bool {
	return o.Guest != nil && o.Guest.RunState == runPrelaunch && o.Launched != nil && slices.Contains(o.Launched.Argv, "-S")
}

// runState brings the vCPUs to what is wanted, where that is safe.
func (p *planner) runState() {
	g := p.obs.Guest
	paused := p.power == manifest.PowerPaused
	switch g.RunState {
	case runRunning, runSuspended:
		if paused && g.RunState == runRunning {
			p.change(Change{Path: "spec.powerState", From: string(manifest.PowerRunning), To: string(manifest.PowerPaused), Class: ClassLive})
			p.step(Step{Kind: StepPause, Why: "it should be paused"})
		}
	case runPaused:
		p.resume(!paused)
	case runPrelaunch:
		if startedPaused(&p.obs) {
			p.resume(!paused)
			return
		}
		p.starting()
	case runSaveVM, runFinishMigrate:
	case runIOError:
		p.ioError(paused)
	case runRestoreVM:
		if jobRunning(g, "snapshot-load") {
			return
		}
		p.guestFailed()
	case runInternalError, runGuestPanicked, runWatchdog:
		p.guestFailed()
	case runShutdown:
		p.plan.Wait = &Wait{For: "QEMU to end after the guest's power-off", Until: p.later(p.opt.Quit), Exit: true}
	default:
		p.problem(ReasonRunState, "QEMU says "+g.RunState+", which maqet does not change", "see maqet qmp "+p.plan.Machine+" query-status")
	}
}

func (p *planner) resume(wanted bool) {
	if !wanted {
		return
	}
	if job := failedLoad(p.obs.Guest); job != nil {
		p.problem(ReasonRestoreFailed, "a snapshot could not be loaded: "+job.Error+"; the guest must not run on over disks of another time",
			"run maqet restart --force "+p.plan.Machine)
		return
	}
	p.change(Change{Path: "spec.powerState", From: string(manifest.PowerPaused), To: string(manifest.PowerRunning), Class: ClassLive})
	p.step(Step{Kind: StepResume, Why: "it should be running"})
}

// starting waits for a QEMU that has not begun to run its vCPUs.
func (p *planner) starting() {
	began := p.obs.StartedAt
	if p.obs.Launched != nil {
		began = p.obs.Launched.At
	}
	until := began.Add(p.opt.Launch)
	if p.now.Before(until) {
		p.plan.Wait = &Wait{For: "QEMU to start its vCPUs", Until: until, Exit: true}
		return
	}
	p.problem(ReasonStarting, "QEMU has been starting for longer than "+p.opt.Launch.String(), "see maqet logs "+p.plan.Machine)
}

func (p *planner) guestFailed() {
	p.problem(ReasonGuestFailed, "QEMU says "+p.obs.Guest.RunState+": the guest cannot run on",
		"look at it, then run maqet restart "+p.plan.Machine)
}

func jobRunning(g *driver.Guest, kind string) bool {
	return slices.ContainsFunc(g.Jobs, func(j driver.Job) bool { return j.Type == kind && !jobOver(j) })
}

// jobOver tells that a job has its result.
func jobOver(j driver.Job) bool { return j.Status == "concluded" || jobGone(j) }

// jobGone tells that a job was dismissed and is only listed still.
func jobGone(j driver.Job) bool { return j.Status == "null" }

// filesystemsLost tells of shared folders whose server has ended. QEMU cannot be given
// another one, and what the guest does in them may hang.
func (p *planner) filesystemsLost() {
	for _, name := range p.obs.FilesystemsLost {
		p.problem(ReasonFilesystemLost, "the virtiofsd of filesystem "+name+" is gone; the guest runs on, and waits in vain for what it does there",
			"maqet restart "+p.plan.Machine)
	}
}
