package reconcile

import (
	"context"
	"time"

	"github.com/maqet/maqet/state"
)

// settling is how long something that another process has begun is left to it. It
// most likely ends it by itself, and QEMU 7.2 may hang when it is asked something
// while it ends.
const settling = time.Second

// beside has the machines looked at to which other processes do something: of a
// machine that somebody else starts or applies nothing else tells.
func (c *Controller) beside(ctx context.Context) {
	if c.cfg.Follow == nil {
		return
	}
	for failures := 0; ctx.Err() == nil; {
		began := c.engine.cfg.Now()
		err := c.cfg.Follow(ctx, state.Filter{Last: -1}, func(ev state.Event) error {
			c.heard(ev)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if c.engine.cfg.Now().Sub(began) >= longestUnread {
			failures = 0
		}
		c.log.Warn("what other processes do is not heard of; all machines are looked at instead", "err", err)
		// What was lost may have been about any of them.
		nudge(c.everything)
		wait(ctx, min(time.Second<<min(failures, 10), longestUnread), nil)
		failures++
	}
}

// heard has a machine looked at to which another process has done something.
func (c *Controller) heard(ev state.Event) {
	switch {
	case ev.Who == c.engine.cfg.Who:
	case ev.Reason == state.EventStarted:
		// What the new process says of its end must not go unheard.
		c.queue.Add(ev.Machine)
	default:
		c.queue.AddAfter(ev.Machine, settling)
	}
}
