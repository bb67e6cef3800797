package reconcile

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// PlanMachine says what one pass does to one machine. It is pure: whatever it
// goes by is in its arguments, so that the same look gives the same plan.
func PlanMachine(want Desired, obs driver.Observed, opt Options, now time.Time) Plan {
	p := newPlanner(want, obs, opt, now)
	if p.rec == nil {
		// Nobody wants anything of it, which is no reason to touch it.
		return p.plan
	}
	p.hold()
	if p.held != nil && p.held.PowerState == "" {
		if p.rec.Deleting != nil {
			p.problem(ReasonHeld, "the delete waits, since the machine is held", "run maqet release "+p.rec.Object.Metadata.Name)
		}
		if f := obs.Freeze; f != nil && !f.Held {
			p.frozen("run maqet release " + p.plan.Machine)
		}
		return p.plan
	}
	switch obs.Presence {
	case driver.Absent:
		p.absent()
	case driver.Alive:
		if obs.Guest == nil {
			p.problem(driver.ReasonNoAnswer, "the process is there, but QEMU was not asked", "look again")
			break
		}
		p.alive()
	case driver.Unresponsive:
		p.unresponsive()
	case driver.Unknown:
		p.unknown()
	}
	p.clearIntent()
	return p.plan
}

// planner is one plan while it is made.
type planner struct {
	want Desired
	rec  *state.Machine
	spec *manifest.VirtualMachineSpec
	obs  driver.Observed
	opt  Options
	now  time.Time
	// held is the hold that is not over, power what the machine should be doing.
	held  *state.Hold
	power manifest.PowerState
	// void is why the intent that was observed no longer counts; empty when it does.
	void string
	plan Plan
}

func newPlanner(want Desired, obs driver.Observed, opt Options, now time.Time) *planner {
	p := &planner{want: want, rec: want.Machine, obs: obs, opt: opt.withDefaults(), now: now}
	p.plan.Machine = obs.Name
	if p.rec != nil {
		p.plan.Machine = p.rec.Object.Metadata.Name
		p.spec = &p.rec.Object.Spec
		p.held = activeHold(p.rec, now)
		p.power = EffectivePower(p.rec, now)
	}
	return p
}

// withDefaults takes what is not given from the timing table.
func (o Options) withDefaults() Options {
	t := timing.Default()
	o.Shutdown = cmp.Or(o.Shutdown, t.Shutdown)
	o.Quit = cmp.Or(o.Quit, t.Quit)
	o.Kill = cmp.Or(o.Kill, t.Kill)
	o.Launch = cmp.Or(o.Launch, t.Start)
	o.Ready = cmp.Or(o.Ready, t.Ready)
	o.Snapshot = cmp.Or(o.Snapshot, t.Snapshot)
	o.Unplug = cmp.Or(o.Unplug, t.Unplug)
	o.Backoff = cmp.Or(o.Backoff, t.Backoff)
	o.BackoffMax = cmp.Or(o.BackoffMax, t.BackoffMax)
	o.BackoffReset = cmp.Or(o.BackoffReset, t.BackoffReset)
	return o
}

// EffectivePower is what a machine should be doing: its hold's word while that
// lasts, else its manifest's.
func EffectivePower(m *state.Machine, now time.Time) manifest.PowerState {
	if h := activeHold(m, now); h != nil && h.PowerState != "" {
		return h.PowerState
	}
	return cmp.Or(m.Object.Spec.PowerState, manifest.PowerRunning)
}

// activeHold is the hold that is not over; nil when there is none.
func activeHold(m *state.Machine, now time.Time) *state.Hold {
	h := m.Hold
	if h == nil || h.Generation != m.Generation || !h.Until.IsZero() && !now.Before(h.Until) {
		return nil
	}
	return h
}

// hold ends a hold that is over and shows one that is not.
func (p *planner) hold() {
	switch {
	case p.rec.Hold == nil:
	case p.held != nil:
		h := *p.held
		p.plan.Held = &h
	case p.rec.Hold.Generation != p.rec.Generation:
		p.step(Step{Kind: StepEndHold, Why: "the spec has changed since"})
	default:
		p.step(Step{Kind: StepEndHold, Why: "its time is over"})
	}
}

// dropIntent goes on as if the observed intent were not there.
func (p *planner) dropIntent(why string) { p.obs.Intent, p.void = nil, why }

// clearIntent removes an intent that was dropped, before anything else is done to
// the process. A step that writes another one removes it all the same.
func (p *planner) clearIntent() {
	writes := func(s Step) bool { return s.Intent != nil }
	if p.void == "" || slices.ContainsFunc(p.plan.Steps, writes) {
		return
	}
	first := slices.IndexFunc(p.plan.Steps, func(s Step) bool { return s.Kind != StepEndHold })
	if first < 0 {
		first = len(p.plan.Steps)
	}
	p.plan.Steps = slices.Insert(p.plan.Steps, first, Step{Kind: StepClearIntent, Why: p.void})
}

func (p *planner) step(s Step) { p.plan.Steps = append(p.plan.Steps, s) }

func (p *planner) change(c Change) { p.plan.Changes = append(p.plan.Changes, c) }

func (p *planner) problem(reason, message, hint string) {
	p.plan.Problems = append(p.plan.Problems, Problem{Reason: reason, Message: message, Hint: hint})
}

// acting tells that this pass does, or waits for, something besides
// bookkeeping: then whatever is less urgent comes in a later pass.
func (p *planner) acting() bool {
	if p.plan.Wait != nil {
		return true
	}
	for _, s := range p.plan.Steps {
		if s.Kind != StepEndHold && s.Kind != StepClearIntent && s.Kind != StepRecordEnd {
			return true
		}
	}
	return false
}

// uid is the machine's uuid as the process, its records or the record have it.
func (p *planner) uid() string { return machineUID(p.rec, &p.obs) }

func machineUID(rec *state.Machine, obs *driver.Observed) string {
	switch {
	case obs.Guest != nil && obs.Guest.UID != "":
		return obs.Guest.UID
	case obs.Launched != nil && obs.Presence != driver.Absent:
		return obs.Launched.UID
	case obs.Identity != nil:
		return obs.Identity.UID
	case rec != nil:
		return rec.UID
	default:
		return ""
	}
}

// stopWanted tells whether the process should end, whatever comes after.
func (p *planner) stopWanted() bool {
	return p.opt.Stop || p.rec.Deleting != nil || p.power == manifest.PowerStopped
}

// forced tells that a person wants the process ended without asking the guest.
func (p *planner) forced() bool { return p.opt.Force && (p.stopWanted() || p.opt.Restart) }

// stopIntent is a begun stop or restart of the process that is there; nil when
// there is none. One of another process is void.
func (p *planner) stopIntent() *driver.Intent {
	if !ending(p.rec, &p.obs) {
		return nil
	}
	return p.obs.Intent
}

// unknown does nothing: what cannot be looked at is not guessed about.
func (p *planner) unknown() {
	// Somebody else asks QEMU just now, and longer than usual since it is busy.
	in := p.obs.Intent
	if p.obs.Reason == driver.ReasonSocketBusy && in != nil && in.UID == p.uid() && p.now.Before(in.Deadline) {
		p.plan.Wait = &Wait{For: "QEMU, to which somebody else is connected", Until: in.Deadline, Job: in.Snapshot != nil, Exit: true}
		return
	}
	p.problem(cmp.Or(p.obs.Reason, driver.ReasonLookFailed),
		cmp.Or(p.obs.Message, "it could not be found out whether the machine runs"),
		cmp.Or(p.obs.Hint, "nothing is done until looking succeeds"))
}

// unresponsive waits for a stop that is under way, since a QEMU that ends stops
// answering first. Else it does nothing, but for a person who says force.
func (p *planner) unresponsive() {
	if in := p.stopIntent(); in != nil && p.now.Before(in.Deadline) && (in.Stage == driver.StageKill || !p.opt.Force) {
		p.plan.Wait = &Wait{For: "QEMU to end", Until: in.Deadline, Exit: true}
		return
	}
	if saving(p.rec, &p.obs, p.now) && !p.forced() {
		in := p.obs.Intent
		done := " to be saved"
		if in.Kind == driver.IntentRestore {
			done = " to be loaded"
		}
		p.plan.Wait = &Wait{For: "snapshot " + in.Snapshot.Tag + done, Until: in.Deadline, Job: true, Exit: true}
		return
	}
	message := cmp.Or(p.obs.Message, "QEMU does not answer")
	hint := p.obs.Hint
	if p.obs.Reason == driver.ReasonSocketsLost {
		p.problem(driver.ReasonSocketsLost, message, cmp.Or(hint, "end the guest from inside, or kill the process yourself"))
		return
	}
	forced := p.forced() &&
		(p.obs.Reason == driver.ReasonNoAnswer || p.obs.Reason == "")
	if !forced {
		p.problem(cmp.Or(p.obs.Reason, driver.ReasonNoAnswer), message,
			cmp.Or(hint, "nothing is done to it; maqet stop --force "+p.plan.Machine+" kills it"))
		return
	}
	if in := p.stopIntent(); in != nil && in.Stage == driver.StageKill {
		p.stuck()
		return
	}
	p.stopStep(StepKill, driver.StageKill, p.stopKind(), p.opt.Kill, "QEMU does not answer and force was asked for")
}

// saving tells that a silent QEMU is most likely saving or loading memory for a
// snapshot, as maqet asked it to: while QEMU does that it answers nobody.
func saving(rec *state.Machine, obs *driver.Observed, now time.Time) bool {
	in := obs.Intent
	return obs.Presence == driver.Unresponsive && obs.Reason != driver.ReasonSocketsLost &&
		in != nil && (in.Kind == driver.IntentSnapshot || in.Kind == driver.IntentRestore) && in.Snapshot != nil && in.UID == machineUID(rec, obs) && now.Before(in.Deadline)
}

// ending tells that a stop or restart of the process that is there was begun.
func ending(rec *state.Machine, obs *driver.Observed) bool {
	in := obs.Intent
	return in != nil && in.UID == machineUID(rec, obs) && (in.Kind == driver.IntentStop || in.Kind == driver.IntentRestart)
}

// stuck is a process that the kernel does not end.
func (p *planner) stuck() {
	p.problem(ReasonStuck, "QEMU was killed and is still there",
		"it hangs in the kernel, often on storage that does not answer; see the host's kernel log")
}

// shortUID is what names jobs and folders.
func shortUID(uid string) string {
	short, _, _ := strings.Cut(uid, "-")
	return short
}
