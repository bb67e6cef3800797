package reconcile

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Bounds of one convergence. A machine that needs more goes round in circles.
const (
	maxPasses = 500
	maxRounds = 12
	// calm is how long an event may be too early before looking is slowed down.
	calm = 5 * time.Millisecond
	// longestWait is when a wait without a deadline looks again.
	longestWait = time.Minute
)

// Converge does passes over one machine until it settles. What it cannot settle
// by itself is in the result's plan; the error is the result's.
func (e *Engine) Converge(ctx context.Context, name string, opt Options) (Result, error) {
	return e.convergeAfter(ctx, name, opt, nil)
}

// convergeDue converges a machine with which something is to be done for certain, so
// that a look without its lock would be a look too many.
func (e *Engine) convergeDue(ctx context.Context, name string, opt Options, happened []state.Event) (Result, error) {
	r := e.newRun(name, opt)
	r.events, r.due = happened, true
	r.converge(ctx)
	return r.result, r.result.Err
}

// convergeAfter converges a machine to which something has happened just now.
func (e *Engine) convergeAfter(ctx context.Context, name string, opt Options, happened []state.Event) (Result, error) {
	r := e.newRun(name, opt)
	r.events = happened
	r.converge(ctx)
	return r.result, r.result.Err
}

// run is one convergence of one machine.
type run struct {
	e      *Engine
	name   string
	opt    Options
	result Result
	// known is the record when it was read already; nil makes run read it.
	known *Desired
	// fresh says that the machine most likely has to be started, so that it
	// need not be looked at before its turn to start has come.
	fresh bool
	// due says that there is something to do.
	due bool
	// allowed is what may be done; nil is everything.
	allowed allowance
	// admitted is true while the gate counts the machine as starting.
	admitted, wantsGate bool
	// ticket is the gate's for one pass, when it was taken without waiting.
	ticket string
	// last and want are what the plan was made for.
	last driver.Observed
	want Desired
	// events are what happened and is not in the journal yet.
	events []state.Event
}

func (e *Engine) newRun(name string, opt Options) *run {
	return &run{e: e, name: name, opt: e.options(opt), result: Result{Machine: name}}
}

// converge does passes until the machine is settled or an error ends it.
func (r *run) converge(ctx context.Context) {
	defer r.flush(ctx)
	if !r.fresh && !r.due && r.peek(ctx) {
		return
	}
	r.wantsGate = r.fresh
	pause := time.Duration(0)
	for range maxPasses {
		if err := r.pass(ctx); err != nil {
			r.result.Err = err
			return
		}
		switch {
		case r.result.Gone || r.result.Plan.Settled():
			return
		case r.wantsGate || len(r.result.Plan.Steps) > 0:
			continue
		}
		if r.opt.NoWait {
			return
		}
		began := r.e.cfg.Now()
		if err := r.await(ctx, *r.result.Plan.Wait, pause); err != nil {
			r.result.Err = err
			return
		}
		pause = nextPause(pause, r.e.cfg.Now().Sub(began))
	}
	r.result.Err = &Error{
		Object: "vm/" + r.name, Op: "converge", Err: ErrUnsettled,
		Detail: "still to do: " + cmp.Or(stepWords(r.result.Plan.Steps), "nothing, but it waits again and again"),
		Hint:   "run maqet plan to see what it goes on about",
	}
}

// nextPause slows looking down when events come too early again and again.
func nextPause(last, waited time.Duration) time.Duration {
	if waited-last > calm {
		return 0
	}
	return min(max(2*last, calm), time.Second)
}

// peek looks without the lock: most of the time there is nothing to do, and
// then nobody else has to wait either. True when it is settled.
func (r *run) peek(ctx context.Context) bool {
	want, err := r.glance(ctx)
	if err != nil {
		r.result.Err = err
		return true
	}
	if !r.result.Plan.Settled() {
		return false
	}
	// How it is may be news all the same; that needs no right to act.
	r.result.Err = r.remember(context.WithoutCancel(ctx), want)
	return true
}

// glance looks without the lock and plans for what it sees.
func (r *run) glance(ctx context.Context) (Desired, error) {
	if err := r.read(ctx); err != nil {
		return Desired{}, err
	}
	want := copyDesired(*r.known)
	obs := r.look(ctx, want)
	if err := ctx.Err(); err != nil {
		return want, r.interrupted(err, r.result.Plan.Steps)
	}
	r.note(want.Machine, &obs)
	r.judge(want, obs)
	r.wantsGate = hasStart(r.result.Plan)
	return want, nil
}

// look looks at the machine before anything is done. Looking into the images of
// one that is about to be started takes longer than all the rest, and a running
// QEMU tells the same right after: so that is left out where it decides nothing.
func (r *run) look(ctx context.Context, want Desired) driver.Observed {
	grows := slices.ContainsFunc(want.vm().Spec.Disks, isNVMe)
	if len(want.Snapshots) > 0 || want.Machine.Restore != nil || grows {
		return r.e.observe(ctx, r.name, want, driver.DepthFull)
	}
	obs := r.e.observe(ctx, r.name, want, driver.DepthGuest)
	if obs.Presence == driver.Absent && !hasStart(PlanMachine(want, obs, r.opt, r.e.cfg.Now())) {
		return r.e.observe(ctx, r.name, want, driver.DepthFull)
	}
	return obs
}

// read reads the record, if that was not done yet.
func (r *run) read(ctx context.Context) error {
	if r.known == nil {
		want, err := r.e.desired(ctx, r.name)
		if err != nil {
			return &Error{Object: "vm/" + r.name, Op: "read the record of", Err: err}
		}
		r.known = &want
	}
	if r.known.Machine == nil {
		return notFound("converge", r.name)
	}
	return nil
}

// note takes what a look shows into the record.
func (r *run) note(m *state.Machine, obs *driver.Observed) {
	adopt(m, obs)
	heal(m, obs, r.opt, r.e.cfg.Now())
}

// judge plans for what was observed and keeps plan and status.
func (r *run) judge(want Desired, obs driver.Observed) {
	now := r.e.cfg.Now()
	r.last, r.want = obs, want
	r.result.Plan = PlanMachine(want, obs, r.opt, now)
	r.result.Status = statusOf(want, obs, r.result.Plan, r.opt, now)
}

// pass takes the machine's lock, then looks, plans and executes until only
// waiting is left. The lock is never held while waiting for a guest.
func (r *run) pass(ctx context.Context) error {
	if r.wantsGate {
		ticket, err := r.e.gate.enter(ctx, r.name)
		if err != nil {
			return r.interrupted(err, r.result.Plan.Steps)
		}
		r.admitted, r.wantsGate = true, false
		defer func() {
			r.admitted = false
			r.e.gate.leave(ticket)
		}()
	}
	unlock, err := r.e.lock(ctx, r.name)
	if err != nil {
		if ctx.Err() != nil {
			return r.interrupted(ctx.Err(), r.result.Plan.Steps)
		}
		return err
	}
	defer unlock()
	r.known = nil
	if err := r.read(ctx); err != nil {
		if errors.Is(err, ErrNotFound) {
			r.result.Gone = true
			return nil
		}
		return err
	}
	return r.rounds(ctx, copyDesired(*r.known))
}

// rounds looks, plans and executes. What one round did is confirmed by the
// look of the next.
func (r *run) rounds(ctx context.Context, want Desired) error {
	// What has begun is seen to its end: only between steps is it cancelled.
	calmly := context.WithoutCancel(ctx)
	obs := r.look(calmly, want)
	r.note(want.Machine, &obs)
	for range maxRounds {
		r.judge(want, obs)
		plan := r.result.Plan
		if len(plan.Steps) == 0 {
			break
		}
		if hasStart(plan) && !r.admitted {
			r.wantsGate = true
			break
		}
		if err := r.allowed.take(plan.Steps); err != nil {
			return &Error{Object: "vm/" + r.name, Op: "execute the plan for", Err: err, Hint: planAgain}
		}
		overtaken, err := r.overtaken(calmly, &want)
		if err != nil || r.result.Gone {
			return err
		}
		if overtaken {
			obs = r.look(calmly, want)
			continue
		}
		act := &execution{run: r, want: &want, obs: obs}
		failed := act.all(ctx, plan.Steps)
		r.opt = r.opt.after(Plan{Steps: act.did})
		if want.Machine == nil {
			r.result.Gone = true
			return failed
		}
		obs = act.look(calmly)
		if startsManifest(act.did) {
			noteUnmet(want.Machine, &obs)
		}
		if err := errors.Join(failed, act.confirm(obs)); err != nil {
			r.judge(want, obs)
			return errors.Join(err, r.remember(calmly, want))
		}
	}
	return r.remember(calmly, want)
}

// overtaken tells whether somebody has said something new of the machine while
// it was looked at, which may have taken long: a hold, a delete, another spec.
// Then what was planned is void.
func (r *run) overtaken(ctx context.Context, want *Desired) (bool, error) {
	now, err := r.e.desired(ctx, r.name)
	if err != nil {
		return false, &Error{Object: "vm/" + r.name, Op: "read the record of", Err: err}
	}
	if now.Machine == nil {
		r.result.Gone = true
		return true, nil
	}
	is, was := now.Machine, want.Machine
	same := is.Generation == was.Generation && is.Digest == was.Digest && is.Owner == was.Owner &&
		reflect.DeepEqual(is.Hold, was.Hold) && reflect.DeepEqual(is.Restore, was.Restore) && reflect.DeepEqual(is.Deleting, was.Deleting) &&
		len(is.Recreate) == len(was.Recreate) && maps.EqualFunc(now.Images, want.Images, sameImage)
	if same {
		return false, nil
	}
	fresh := copyDesired(now)
	// What this convergence has counted itself stays.
	m := fresh.Machine
	m.UID, m.Starts, m.Restarts, m.StartedGeneration, m.Unmet = was.UID, was.Starts, was.Restarts, was.StartedGeneration, was.Unmet
	m.StartedDisks = was.StartedDisks
	m.LastTermination = was.LastTermination
	if m.Generation == was.Generation {
		m.Failures, m.NotBefore = was.Failures, was.NotBefore
	}
	*want = fresh
	return true, nil
}

// await waits for what a plan waits for, without the lock.
func (r *run) await(ctx context.Context, w Wait, pause time.Duration) error {
	// Nobody who follows the journal has to wait for the guest, too.
	r.flush(ctx)
	if len(w.Images) > 0 {
		return r.pull(ctx, w)
	}
	r.e.tell(Event{Machine: r.name, Step: "wait", Message: "waiting for " + w.For})
	left := longestWait
	if !w.Until.IsZero() {
		left = max(w.Until.Sub(r.e.cfg.Now()), 0)
	}
	waiting, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-waiting.Done():
		}
	}
	what := driver.Awaited{Exit: w.Exit, Job: w.Job, Ready: w.Ready, Unplug: w.Unplug}
	what.Ending = r.want.Machine != nil && ending(r.want.Machine, &r.last)
	err := r.e.cfg.Ports.Observer.Await(waiting, r.name, r.vm(), what)
	switch {
	case ctx.Err() != nil:
		return r.interrupted(ctx.Err(), r.result.Plan.Steps)
	case err != nil && waiting.Err() == nil:
		return &Error{Object: "vm/" + r.name, Op: "wait for", Err: err}
	default:
		return nil
	}
}

func (r *run) vm() *manifest.VirtualMachine {
	if r.known == nil {
		return nil
	}
	return r.known.vm()
}

// interrupted says what was not done.
func (r *run) interrupted(err error, left []Step) error {
	detail := "nothing was left to do"
	switch p := r.result.Plan; {
	case len(left) > 0:
		detail = "not done: " + stepWords(left)
	case p.Wait != nil:
		detail = "still waiting for " + p.Wait.For
	case r.result.Status.Phase == "":
		detail = "nothing was done yet"
	}
	cause := ErrInterrupted
	if errors.Is(err, context.DeadlineExceeded) {
		cause = ErrTimedOut
	}
	return &Error{Object: "vm/" + r.name, Op: "converge", Err: cause, Detail: detail, Hint: "apply again to go on"}
}

// startsManifest tells that a machine was started as its manifest says.
func startsManifest(steps []Step) bool {
	for _, s := range steps {
		if s.Kind == StepStart && s.Snapshot == "" {
			return true
		}
	}
	return false
}

func hasStart(p Plan) bool {
	for _, s := range p.Steps {
		if s.Kind == StepStart {
			return true
		}
	}
	return false
}
