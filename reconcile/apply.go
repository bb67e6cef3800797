package reconcile

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Apply makes the objects of a set the desired ones and converges their
// machines. All conflicts are found before anything is written, and everything
// is written in one transaction. The error is of that part; what became of each
// machine is in the report.
func (e *Engine) Apply(ctx context.Context, set *manifest.Set, opt ApplyOptions) (Report, error) {
	if opt.DryRun {
		forecast, err := e.Plan(ctx, set, opt)
		return Report{Objects: forecast.Objects, Forecast: &forecast, Pending: !forecast.Empty}, err
	}
	if opt.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.Timeout)
		defer cancel()
	}
	if err := e.stillAsPlanned(ctx, set, opt); err != nil {
		return Report{}, err
	}
	a, err := e.admit(ctx, set, opt)
	if err != nil {
		return Report{}, err
	}
	names := a.names()
	results := make([]Result, len(names))
	happened := a.events(e)
	each(len(names), func(i int) {
		results[i] = e.applyOne(ctx, a.desired(names[i]), opt, happened[names[i]])
	})
	report := Report{Objects: a.objects}
	for _, r := range results {
		report.add(r)
	}
	return report, nil
}

// planAgain is the remedy for a plan that does not fit any more.
const planAgain = "look at it once more with: maqet plan -o json"

// stillAsPlanned refuses to begin where the plan that shall be executed is not what
// would be done.
func (e *Engine) stillAsPlanned(ctx context.Context, set *manifest.Set, opt ApplyOptions) error {
	if opt.Planned == nil {
		return nil
	}
	now, err := e.Plan(ctx, set, opt)
	if err != nil {
		return err
	}
	if d := opt.Planned.Differs(&now); d != "" {
		return &Error{Object: "the plan", Op: "execute", Err: ErrPlanLeft, Detail: d, Hint: planAgain}
	}
	return nil
}

// admit decides and writes. Reading alone is enough when nothing changes.
func (e *Engine) admit(ctx context.Context, set *manifest.Set, opt ApplyOptions) (*admission, error) {
	a, err := e.preview(ctx, set, opt)
	if err != nil || !a.changes() {
		return a, err
	}
	live := e.live(ctx)
	words := a.words
	err = e.cfg.Store.Update(ctx, func(tx Tx) error {
		var err error
		// Others may have written since: what counts is decided in here.
		if a, err = admit(set, tx, opt, e.cfg.Who, e.cfg.Now(), live); err != nil {
			return err
		}
		a.recreate(words)
		return a.write(tx)
	})
	return a, err
}

// preview decides without writing.
func (e *Engine) preview(ctx context.Context, set *manifest.Set, opt ApplyOptions) (*admission, error) {
	words, err := e.recreations(ctx, set, opt)
	if err != nil {
		return nil, err
	}
	var a *admission
	live := e.live(ctx)
	err = e.cfg.Store.View(ctx, func(tx Tx) error {
		var err error
		if a, err = admit(set, tx, opt, e.cfg.Who, e.cfg.Now(), live); err == nil {
			a.words = words
			a.recreate(words)
		}
		return err
	})
	return a, err
}

// applyOne converges one machine and, if asked for, waits until it is Ready.
func (e *Engine) applyOne(ctx context.Context, want Desired, opt ApplyOptions, happened []state.Event) Result {
	m := want.Machine
	r := e.newRun(m.Object.Metadata.Name, opt.Options)
	r.events = happened
	r.known = &want
	if opt.Planned != nil {
		r.allowed = opt.Planned.machine(r.name).allow()
	}
	r.fresh = m.Starts == 0 && m.Deleting == nil && m.Hold == nil && EffectivePower(m, e.cfg.Now()) != manifest.PowerStopped
	r.converge(ctx)
	if opt.Wait && r.result.Err == nil && !r.result.Gone {
		e.ready(ctx, r)
		r.result.Err = cmp.Or(r.result.Err, r.remember(context.WithoutCancel(ctx), *r.known))
		r.flush(ctx)
	}
	return r.result
}

// AwaitReady waits until a machine is Ready, its readiness timeout is over, or
// ctx ends. It changes nothing. The result is degraded when it is not Ready.
func (e *Engine) AwaitReady(ctx context.Context, name string) (Result, error) {
	r := e.newRun(name, Options{})
	if err := r.read(ctx); err != nil {
		return r.result, err
	}
	e.ready(ctx, r)
	return r.result, r.result.Err
}

// ready waits until a machine that should be running is Ready. Only its status
// is brought up to date: a brief look is no ground for a plan.
func (e *Engine) ready(ctx context.Context, r *run) {
	if r.known == nil || r.known.Machine == nil || EffectivePower(r.known.Machine, e.cfg.Now()) != manifest.PowerRunning {
		return
	}
	for {
		obs := e.observe(ctx, r.name, *r.known, driver.DepthBrief)
		now := e.cfg.Now()
		status := statusOf(*r.known, obs, r.result.Plan, r.opt, now)
		// What was seen of disks and devices before says more than a brief look.
		if full := r.result.Status; full.Observed != nil {
			status.Observed, status.Snapshots = full.Observed, full.Snapshots
		}
		r.result.Status = status
		until := readyDeadline(r.known.Machine, &obs, r.opt)
		switch {
		case status.Conditions[0].Status == "True":
			e.tell(Event{Machine: r.name, Step: "ready", Message: "Ready", Done: true})
			return
		case status.Phase == PhaseCompleted:
			return // The guest has done what it was for.
		case status.Phase != PhaseRunning && status.Phase != PhaseStarting, !now.Before(until):
			r.result.Degraded = true
			e.tell(Event{Machine: r.name, Step: "ready", Message: "not Ready", Err: ErrNotReady})
			return
		}
		err := r.await(ctx, Wait{For: readyWords, Until: until, Ready: true, Exit: true}, 0)
		if err != nil {
			r.result.Err = stillWaiting(err, readyWords)
			return
		}
	}
}

// readyWords is what is waited for once a machine has settled.
const readyWords = "the guest to be Ready"

// stillWaiting says in an interruption what the plan, which is settled, does not.
func stillWaiting(err error, what string) error {
	stopped, ok := errors.AsType[*Error](err)
	if ok && (errors.Is(err, ErrInterrupted) || errors.Is(err, ErrTimedOut)) {
		stopped.Detail = "still waiting for " + what
	}
	return err
}

// Plan tells what Apply would do and touches nothing.
func (e *Engine) Plan(ctx context.Context, set *manifest.Set, opt ApplyOptions) (PlanReport, error) {
	a, err := e.preview(ctx, set, opt)
	if err != nil {
		return PlanReport{}, err
	}
	report := PlanReport{Owner: a.owner, Objects: a.objects, Class: ClassNone, Empty: true}
	names := a.names()
	report.Machines = make([]MachineForecast, len(names))
	each(len(names), func(i int) { report.Machines[i] = e.forecast(ctx, a, names[i], opt) })
	for _, m := range report.Machines {
		report.Class = dearer(report.Class, m.Class)
		report.Empty = report.Empty && m.Empty()
	}
	for _, o := range a.objects {
		report.Empty = report.Empty && (o.Action == ActionUnchanged || o.Action == ActionLeft)
	}
	return report, errors.Join(ctx.Err())
}

// forecast is what an apply would do to one machine.
func (e *Engine) forecast(ctx context.Context, a *admission, name string, opt ApplyOptions) MachineForecast {
	want := a.desired(name)
	obs := e.observe(ctx, name, want, driver.DepthFull)
	now := e.cfg.Now()
	f := MachineForecast{Machine: name, Action: a.action(name), Class: ClassNone, Digest: want.Machine.Digest}
	f.Phase, _ = phaseOf(want.Machine, &obs, opt.Options, now)
	plans := Forecast(want, obs, e.options(opt.Options), now)
	last := plans[len(plans)-1]
	f.Problems, f.Held = last.Problems, last.Held
	for i, p := range plans {
		if !p.Settled() {
			if len(p.Steps) > 0 {
				p.Wait = nil // The next pass shows what is waited for.
			}
			f.Passes = append(f.Passes, p)
		}
		for _, c := range p.Changes {
			// Later passes start what an earlier one stopped: no news.
			if i == 0 || c.Path != "spec.powerState" && !f.has(c.Path) {
				f.Changes = append(f.Changes, c)
			}
		}
	}
	f.addRecordChanges(ObjectChanges(a.before[name], want.vm()), &obs)
	for _, c := range f.Changes {
		f.Class = dearer(f.Class, c.Class)
	}
	return f
}

func (f *MachineForecast) has(path string) bool {
	for _, c := range f.Changes {
		if c.Path == path {
			return true
		}
	}
	return false
}

// addRecordChanges adds what changes in the record. What concerns the guest is
// news only when no guest runs: else the comparison with it has said so.
func (f *MachineForecast) addRecordChanges(changes []Change, obs *driver.Observed) {
	alive := obs.Presence == driver.Alive
	for _, c := range changes {
		switch c.Class {
		case ClassMetadata:
			c.Why = cmp.Or(seedWhy(c.Path, obs.Seed, f.Machine), "it concerns no guest")
		case ClassNone:
			c.Why = "it holds at once"
		case ClassNextBoot, ClassRestart, ClassRecreate, ClassLive, ClassDataLoss:
			if alive || c.Path == "spec.powerState" || f.has(c.Path) {
				continue
			}
			c.Class, c.Why = ClassNextBoot, "the machine is not running: it holds from its next start on"
			if f.starts() {
				c.Class, c.Why = ClassNone, "the machine is started with it"
			}
		}
		f.Changes = append(f.Changes, c)
	}
}

func (f *MachineForecast) starts() bool { return slices.ContainsFunc(f.Passes, hasStart) }

// price orders the classes.
var price = map[Class]int{
	ClassNone: 0, ClassMetadata: 1, ClassLive: 2, ClassNextBoot: 3, ClassRestart: 4, ClassRecreate: 5, ClassDataLoss: 6,
}

// dearer is the class that costs more.
func dearer(a, b Class) Class {
	if price[b] > price[a] {
		return b
	}
	return a
}
