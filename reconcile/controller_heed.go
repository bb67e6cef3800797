package reconcile

import (
	"context"
	"time"
)

const (
	// courtesy is how long whoever wrote a record has to act on it: a person's
	// command then does so itself, under its own name, and prints what it did.
	courtesy = 200 * time.Millisecond
	// readRest is the least time between two readings of the records, and restShare
	// how many times longer than a reading the time to the next one is.
	readRest  = 50 * time.Millisecond
	restShare = 9
)

// heed has the machines looked at of which other processes have written
// something: one that was applied, held, released, started or stopped beside this
// controller. What it has written itself is no news. It begins after the first look
// at everything.
func (c *Controller) heed(ctx context.Context, looked <-chan struct{}) {
	select {
	case <-looked:
	case <-ctx.Done():
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-c.cfg.Records:
			if !open {
				return
			}
		}
		began := time.Now()
		names, err := c.witness.changed(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("reading what others wrote failed", "err", err)
			nudge(c.everything)
		}
		for _, name := range names {
			c.queue.AddAfter(name, courtesy)
		}
		wait(ctx, max(readRest, restShare*time.Since(began)), nil)
	}
}
