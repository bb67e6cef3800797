package reconcile

import (
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// stop brings the process to its end, one stage per deadline: the guest is
// asked, then QEMU is told, then it is killed. The stage that is under way, and
// its deadline, are in the intent, so they outlive whoever began it. A stage that
// was begun for another kind of end counts: the guest has had its time.
func (p *planner) stop(kind driver.IntentKind, why string) {
	in := p.stopIntent()
	if in == nil {
		p.stopBegin(kind, why)
		return
	}
	over := !p.now.Before(in.Deadline)
	switch in.Stage {
	case driver.StagePowerdown:
		switch {
		case p.opt.Force:
			p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, "force was asked for")
		case !p.listens():
			p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, "a guest that does not run cannot power itself off")
		case over:
			p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, "the guest did not power off in time")
		default:
			p.plan.Wait = &Wait{For: "the guest to power off", Until: in.Deadline, Exit: true}
		}
	case driver.StageQuit:
		if over {
			p.stopStep(StepKill, driver.StageKill, kind, p.opt.Kill, "QEMU did not quit in time")
			return
		}
		p.plan.Wait = &Wait{For: "QEMU to quit", Until: in.Deadline, Exit: true}
	case driver.StageKill:
		if over {
			p.stuck()
			return
		}
		p.plan.Wait = &Wait{For: "QEMU to be gone", Until: in.Deadline, Exit: true}
	default:
		// An intent without a stage is none that this maqet wrote.
		p.stopBegin(kind, why)
	}
}

// stopBegin takes the first stage.
func (p *planner) stopBegin(kind driver.IntentKind, why string) {
	switch {
	case p.opt.Force:
		p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, why+"; force was asked for")
	case !p.listens():
		p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, why+"; a guest that does not run cannot power itself off")
	case !p.asksGuest():
		p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, why)
	default:
		p.stopStep(StepPowerdown, driver.StagePowerdown, kind, p.shutdown(), why)
	}
}

// stopStep is one stage.
func (p *planner) stopStep(k StepKind, stage driver.Stage, kind driver.IntentKind, lasts time.Duration, why string) {
	p.step(Step{Kind: k, Why: why, Intent: &driver.Intent{
		Kind: kind, Stage: stage, Since: p.now, Deadline: p.later(lasts), Who: p.opt.Who, UID: p.uid(),
	}})
	p.plan.Wait = &Wait{For: "QEMU to end", Until: p.later(lasts), Exit: true}
}

// stopKind is what a new intent says.
func (p *planner) stopKind() driver.IntentKind {
	if p.stopWanted() {
		return driver.IntentStop
	}
	return driver.IntentRestart
}

// listens tells whether the guest runs, so that it can hear the power button.
func (p *planner) listens() bool {
	s := p.obs.Guest.RunState
	return s == runRunning || s == runSuspended
}

func (p *planner) asksGuest() bool {
	return p.spec.Shutdown == nil || len(p.spec.Shutdown.Methods) == 0 ||
		slices.Contains(p.spec.Shutdown.Methods, manifest.ShutdownACPI)
}

// shutdown is how long the guest may take. Resolving writes the default into
// every manifest, so that value leaves the word to the timing table.
func (p *planner) shutdown() time.Duration {
	if s := p.spec.Shutdown; s != nil && s.Timeout != manifest.DefaultShutdownTimeout {
		return s.Timeout.Or(p.opt.Shutdown)
	}
	return p.opt.Shutdown
}
