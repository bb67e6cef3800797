package reconcile

import "context"

// noMachine is a key that is no machine's name. A worker that gets it only tells
// that it is there.
const noMachine = ""

// Alive returns once it has seen that machines are still being supervised: that a
// worker ended a turn after it was called, and that the controller's own notes can
// be read. While all workers are stuck it does not return until ctx ends. One
// caller at a time is told.
//
// Reading the manifests is no part of it: a folder that hangs keeps nobody from
// being supervised, and would hang for the next process as well.
func (c *Controller) Alive(ctx context.Context) error {
	select {
	case <-c.turned:
	default:
	}
	c.status()
	c.queue.Add(noMachine)
	select {
	case <-c.turned:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turn takes one key of the queue.
func (c *Controller) turn(ctx context.Context, name string) {
	if name != noMachine && ctx.Err() == nil {
		c.pass(ctx, name)
	}
	c.queue.Done(name)
	nudge(c.turned)
}
