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
	case driver.StageAgent, driver.StagePowerdown:
		switch {
		case p.opt.Force:
			p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, "force was asked for")
		case !p.listens():
			p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, "a guest that does not run cannot power itself off")
		case in.Failed != "":
			p.askOn(kind, in, in.Failed)
		case over:
			p.askOn(kind, in, "the guest did not power off in time")
		default:
			p.plan.Wait = &Wait{For: "the guest to power off", Until: in.Deadline, Then: p.thenAsked(in), Exit: true}
		}
	case driver.StageQuit:
		if over {
			p.stopStep(StepKill, driver.StageKill, kind, p.opt.Kill, "QEMU did not quit in time")
			return
		}
		p.plan.Wait = &Wait{For: "QEMU to quit", Until: in.Deadline, Then: "QEMU is killed", Exit: true}
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
	default:
		p.ask(kind, p.methods(), p.shutdown(), why)
	}
}

// askOn asks the guest in the next way, with what is left of its time, or in none.
func (p *planner) askOn(kind driver.IntentKind, in *driver.Intent, why string) {
	// Whoever began the stop may be gone for long: then a way gets its own share.
	left := max(p.shutdown()-p.now.Sub(in.Since), p.shutdown()/time.Duration(len(p.methods())))
	p.ask(kind, p.waysAfter(in), left, why)
}

// waysAfter are the ways to ask the guest that come after the one under way.
func (p *planner) waysAfter(in *driver.Intent) []manifest.ShutdownMethod {
	all := p.methods()
	stage := manifest.ShutdownACPI
	if in.Stage == driver.StageAgent {
		stage = manifest.ShutdownGuestAgent
	}
	return all[slices.Index(all, stage)+1:]
}

// thenAsked says what is done when a guest that was asked has not gone in time.
func (p *planner) thenAsked(in *driver.Intent) string {
	agent := p.obs.Guest.Agent
	for _, m := range p.waysAfter(in) {
		switch {
		case m == manifest.ShutdownACPI:
			return "its power button is pressed"
		case agent != nil && agent.Open:
			return "its agent is asked"
		}
	}
	return "QEMU is told to quit"
}

// ask asks the guest in the first of the ways that can reach it, which has its share
// of the time that is left. When there is none, QEMU is told to quit.
func (p *planner) ask(kind driver.IntentKind, methods []manifest.ShutdownMethod, left time.Duration, why string) {
	for i, m := range methods {
		share := left / time.Duration(len(methods)-i)
		switch agent := p.obs.Guest.Agent; {
		case m == manifest.ShutdownACPI:
			p.stopStep(StepPowerdown, driver.StagePowerdown, kind, share, why)
			return
		case agent != nil && agent.Open:
			p.stopStep(StepAgentShutdown, driver.StageAgent, kind, share, why)
			return
		default:
			why += "; no agent runs in the guest"
		}
	}
	p.stopStep(StepQuit, driver.StageQuit, kind, p.opt.Quit, why)
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

// methods are the ways to ask the guest, in order.
func (p *planner) methods() []manifest.ShutdownMethod {
	if s := p.spec.Shutdown; s != nil && len(s.Methods) > 0 {
		return s.Methods
	}
	return []manifest.ShutdownMethod{manifest.ShutdownACPI}
}

// shutdown is how long the guest may take. Resolving writes the default into
// every manifest, so that value leaves the word to the timing table.
func (p *planner) shutdown() time.Duration {
	if s := p.spec.Shutdown; s != nil && s.Timeout != manifest.DefaultShutdownTimeout {
		return s.Timeout.Or(p.opt.Shutdown)
	}
	return p.opt.Shutdown
}
