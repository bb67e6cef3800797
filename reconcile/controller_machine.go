package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/maqet/maqet/driver"
)

// soonest keeps a deadline that is just over from being one pass after the other.
const soonest = 10 * time.Millisecond

// pass looks at one machine, does what can be done now, and arranges for the
// next look: by event, by deadline, or later after an error.
func (c *Controller) pass(ctx context.Context, name string) {
	r := c.engine.once(ctx, name, c.cfg.Options.Options, func() { c.queue.Add(name) })
	if ctx.Err() != nil {
		return
	}
	if r.result.Gone {
		c.forget(name, r.result.Err == nil)
		return
	}
	if r.last.Presence != "" {
		c.noteLook(ctx, r)
	}
	now := c.engine.cfg.Now()
	if at := r.nextLook(now); !at.IsZero() {
		c.queue.AddAfter(name, max(at.Sub(now), soonest))
	}
	if err := r.result.Err; err != nil {
		c.failed(name, err)
		return
	}
	c.queue.Forget(name)
}

// failed has a machine tried again, later each time.
func (c *Controller) failed(name string, err error) {
	tries := c.queue.NumRequeues(name)
	var life *driver.LifecycleError
	c.log.Warn("a machine could not be brought to what it should be", "vm", name, "err", err, "tries", tries+1, "refused", errors.As(err, &life) && life.Refused)
	c.queue.AddRateLimited(name)
}

// nextLook is when a machine has to be looked at although nothing happens to
// it; zero when only an event can help.
func (r *run) nextLook(now time.Time) time.Time {
	var next time.Time
	due := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if w := r.result.Plan.Wait; w != nil {
		due(w.Until)
	}
	if len(r.result.Plan.Steps) > 0 && !r.wantsGate && r.result.Err == nil {
		due(now) // More was to be done than one pass does.
	}
	if p := r.last.Presence; next.IsZero() && (p == driver.Unresponsive || p == driver.Unknown) {
		// One that answers again, like a frozen process that goes on, tells nobody.
		due(now.Add(r.e.cfg.Timing.Query))
	}
	if f := r.last.Freeze; f != nil && f.Held {
		// Whoever froze may die at any time, which nothing tells of.
		due(now.Add(r.e.cfg.Timing.Look))
	}
	m := r.want.Machine
	if m == nil {
		return next
	}
	if h := activeHold(m, now); h != nil {
		due(h.Until)
	}
	due(healsAt(m, &r.last, r.opt))
	due(nextSlot(m, now))
	due(nextBackup(m, now))
	if r.notReady() {
		if at := readyDeadline(m, &r.last, r.opt); now.Before(at) {
			due(at)
		}
	}
	return next
}

// notReady tells that a guest runs and its readiness probe has not succeeded.
func (r *run) notReady() bool {
	m := r.want.Machine
	return m != nil && m.Object.Spec.Readiness != nil && r.result.Status.Phase == PhaseRunning && !r.last.Ready
}

// noteLook keeps how a machine is and arranges to hear of what happens to it.
func (c *Controller) noteLook(ctx context.Context, r *run) {
	c.mu.Lock()
	s := c.machines[r.name]
	if s == nil {
		s = &supervised{}
		c.machines[r.name] = s
	}
	status := r.result.Status
	changed := s.phase != status.Phase || s.ready != isReady(status)
	if changed && status.Phase != "" {
		c.log.Info("a machine changed", "vm", r.name, "phase", status.Phase, "reason", status.Reason)
	}
	s.phase, s.ready, s.looked = status.Phase, isReady(status), c.engine.cfg.Now()
	c.mu.Unlock()
	c.listen(ctx, r)
	c.fetchImages(ctx, r)
	c.backUp(ctx, r)
	if changed {
		c.tell(false)
	}
}

func isReady(s Status) bool {
	return len(s.Conditions) > 0 && s.Conditions[0].Type == ConditionReady && s.Conditions[0].Status == "True"
}

// forget drops a machine that is not remembered any more. When that is news its
// manifest may be there again, or still, so the manifests are read again. It is
// also when just now is: a delete that another process began may be seen through
// before the machine was ever noted.
func (c *Controller) forget(name string, just bool) {
	c.queue.Forget(name)
	c.mu.Lock()
	s := c.machines[name]
	delete(c.machines, name)
	if s != nil {
		// A process that runs still, as when the database was lost, is listened to
		// anew once its machine is remembered again.
		for _, end := range []context.CancelFunc{s.cancel, s.stop} {
			if end != nil {
				end()
			}
		}
	}
	for key, f := range c.fetches {
		c.unwait(key, f, name)
	}
	c.mu.Unlock()
	if s != nil || just {
		nudge(c.again)
		c.tell(false)
	}
}
