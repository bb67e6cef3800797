package reconcile

import (
	"cmp"
	"context"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// change changes a machine's record in one transaction, and says what that
// comes to for the journal.
func (e *Engine) change(ctx context.Context, op, name string, do func(*state.Machine) error) (happened []state.Event, err error) {
	err = e.cfg.Store.Update(ctx, func(tx Tx) error {
		m, err := tx.Machine(name)
		if err != nil {
			return err
		}
		if m == nil {
			return notFound(op, name)
		}
		before := *m
		if err := do(m); err != nil {
			return err
		}
		happened = e.changeEvents(&before, m)
		return tx.PutMachine(m)
	})
	return happened, err
}

// notDeleting refuses to change what is being deleted.
func notDeleting(op string, m *state.Machine) error {
	if m.Deleting == nil {
		return nil
	}
	name := m.Object.Metadata.Name
	return &Error{
		Object: "vm/" + name, Op: op, Err: ErrDeleting, Detail: "asked for by " + m.Deleting.Who,
		Hint: "run maqet delete " + name + " to see it through",
	}
}

// SetPower is start, stop, pause and resume: it writes a hold when the spec wants
// something else, or ends the hold when the spec wants just that, and converges.
func (e *Engine) SetPower(ctx context.Context, name string, req PowerRequest, opt Options) (Result, error) {
	if req.UntilBoot && e.cfg.BootID == "" {
		return Result{Machine: name}, &Error{
			Object: "vm/" + name, Op: "change", Err: ErrProblem, Detail: "a hold cannot end with a boot whose id is unknown",
			Hint: "mount /proc, or give the hold a time instead",
		}
	}
	happened, err := e.change(ctx, "change", name, func(m *state.Machine) error {
		if err := notDeleting("change", m); err != nil {
			return err
		}
		m.Hold = e.powerHold(m, req)
		m.Restore = nil // a newer word
		return nil
	})
	if err != nil {
		return Result{Machine: name}, err
	}
	opt.Start = opt.Start || req.PowerState != manifest.PowerStopped
	result, err := e.asked(ctx, name, opt, happened)
	if err == nil && !opt.NoWait {
		result.Err = result.overtaken("change", req.PowerState)
	}
	return result, result.Err
}

// overtaken says that the machine has settled otherwise than a person asked, since
// somebody's newer word counts. It is nil for one that is as it was asked to be, or
// whose problems tell why not.
func (r *Result) overtaken(op string, power manifest.PowerState) error {
	how := string(r.Status.Phase)
	switch phase := r.Status.Phase; {
	case r.Err != nil:
		return r.Err
	case r.Gone:
		how = "deleted"
	case len(r.Plan.Problems) > 0:
		return nil
	case power == manifest.PowerStopped && (phase == PhaseRunning || phase == PhasePaused || phase == PhaseStarting):
	case power == manifest.PowerRunning && (phase == PhaseStopped || phase == PhasePaused):
	case power == manifest.PowerPaused && (phase == PhaseStopped || phase == PhaseRunning):
	default:
		return nil
	}
	return &Error{
		Object: "vm/" + r.Machine, Op: op, Err: ErrOvertaken, Detail: "it is " + how + " now",
		Hint: "see who in maqet events " + r.Machine + ", then ask again",
	}
}

// hold fills in who holds a machine, since when, and which spec.
func (e *Engine) hold(m *state.Machine, h state.Hold) *state.Hold {
	h.Who = cmp.Or(h.Who, e.cfg.Who)
	h.Since, h.Generation = e.cfg.Now(), m.Generation
	return &h
}

// asked converges a machine whose hold was just asked for.
func (e *Engine) asked(ctx context.Context, name string, opt Options, happened []state.Event) (Result, error) {
	result, err := e.convergeAfter(ctx, name, opt, happened)
	result.HoldAsked = true
	return result, err
}

// Hold writes a hold; who, since and generation are filled in. One without a
// power state keeps maqet from touching the machine at all.
func (e *Engine) Hold(ctx context.Context, name string, hold state.Hold, opt Options) (Result, error) {
	happened, err := e.change(ctx, "hold", name, func(m *state.Machine) error {
		if err := notDeleting("hold", m); err != nil {
			return err
		}
		m.Hold = e.hold(m, hold)
		return nil
	})
	if err != nil {
		return Result{Machine: name}, err
	}
	return e.asked(ctx, name, opt, happened)
}

// Release ends a machine's hold and converges.
func (e *Engine) Release(ctx context.Context, name string, opt Options) (Result, error) {
	happened, err := e.change(ctx, "release", name, func(m *state.Machine) error {
		m.Hold, m.Restore = nil, nil
		return nil
	})
	if err != nil {
		return Result{Machine: name}, err
	}
	return e.convergeAfter(ctx, name, opt, happened)
}

// Restart stops a running machine once and starts it again; one that is not
// running is started. A machine that should be stopped is refused.
func (e *Engine) Restart(ctx context.Context, name string, opt Options) (Result, error) {
	want, err := e.actable(ctx, "restart", name)
	if err != nil {
		return Result{Machine: name}, err
	}
	if EffectivePower(want.Machine, e.cfg.Now()) == manifest.PowerStopped {
		return Result{Machine: name}, &Error{
			Object: "vm/" + name, Op: "restart", Err: ErrProblem, Detail: "its power state is Stopped", Hint: "run maqet start " + name,
		}
	}
	opt.Restart = true
	result, err := e.Converge(ctx, name, opt)
	if err == nil && !opt.NoWait {
		result.Err = result.overtaken("restart", EffectivePower(want.Machine, e.cfg.Now()))
	}
	return result, result.Err
}

// actable reads a machine that a person wants to act on.
func (e *Engine) actable(ctx context.Context, op, name string) (Desired, error) {
	want, err := e.desired(ctx, name)
	if err != nil {
		return want, err
	}
	if want.Machine == nil {
		return want, notFound(op, name)
	}
	if err := notDeleting(op, want.Machine); err != nil {
		return want, err
	}
	if h := activeHold(want.Machine, e.cfg.Now()); h != nil && h.PowerState == "" {
		return want, &Error{
			Object: "vm/" + name, Op: op, Err: ErrHeld, Detail: holdWords(h), Hint: "run maqet release " + name + " first",
		}
	}
	return want, nil
}

// Delete stops a machine, forgets it, and keeps or deletes its disks. It ends a
// hold, since a person's newer word stands over an older one.
func (e *Engine) Delete(ctx context.Context, name string, opt DeleteOptions) (Result, error) {
	live := e.live(ctx)
	happened, err := e.change(ctx, "delete", name, func(m *state.Machine) error {
		if live != nil && m.Owner == live.Owner && !m.Undeclared {
			return &Error{
				Object: "vm/" + name, Op: "delete", Err: ErrWatched, Detail: watchWords(live) + " and would make it again",
				Hint: "remove it from " + cmp.Or(m.Source, "its manifests") + " first",
			}
		}
		m.Hold, m.Restore = nil, nil
		if m.Deleting == nil {
			m.Deleting = &state.Deletion{Since: e.cfg.Now(), Who: e.cfg.Who}
		}
		// A delete that was asked for is only ever made to do more.
		d := *m.Deleting
		d.DeleteDisks = d.DeleteDisks || opt.DeleteDisks
		m.Deleting = &d
		return nil
	})
	if err != nil {
		return Result{Machine: name}, err
	}
	return e.convergeAfter(ctx, name, opt.Options, happened)
}
