package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/maqet/maqet/state"
)

const (
	// unwrittenRetry is how often writing is tried while the state dir takes nothing.
	unwrittenRetry = 5 * time.Second
	// spread is how far apart machines are looked at when all are, so that a
	// resync is no burst.
	spread = 10 * time.Millisecond
)

// Run keeps the machines as they should be until ctx ends, and returns when all
// that it began has ended. Guests run on. It may be called once.
func (c *Controller) Run(ctx context.Context) error {
	first, looked := make(chan struct{}), make(chan struct{})
	for range c.cfg.Workers {
		c.goroutines.Go(func() { c.work(ctx) })
	}
	c.goroutines.Go(func() { c.follow(ctx, first) })
	c.goroutines.Go(func() { c.resync(ctx, first, looked) })
	c.goroutines.Go(func() { c.heed(ctx, looked) })
	c.goroutines.Go(func() { c.rewrite(ctx) })
	c.goroutines.Go(func() { c.thaws(ctx) })
	<-ctx.Done()
	c.queue.ShutDown()
	c.goroutines.Wait()
	// What could not be written so far has one more chance.
	if c.memory.pending() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.engine.cfg.Timing.Lock)
		defer cancel()
		if err := c.memory.retry(last); err != nil {
			return &Error{
				Object: c.cfg.Options.Owner, Op: "watch", Err: err, Detail: "what happened last is not remembered",
				Hint: "make room in the state dir",
			}
		}
	}
	return nil
}

// Poke has a machine looked at.
func (c *Controller) Poke(name string) { c.queue.Add(name) }

// LookAgain has the manifests read and all machines looked at.
func (c *Controller) LookAgain() {
	nudge(c.again)
	nudge(c.everything)
}

// nudge wakes whoever reads the channel, once however often it is called.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// work takes one machine after the other. The queue gives each to one worker at
// a time, and again when it was asked for meanwhile.
func (c *Controller) work(ctx context.Context) {
	for {
		name, over := c.queue.Get()
		if over {
			return
		}
		c.turn(ctx, name)
	}
}

// resync looks at all machines from time to time, and first when the manifests
// were read or that takes too long. Looked is closed once all were asked for.
func (c *Controller) resync(ctx context.Context, first <-chan struct{}, looked chan<- struct{}) {
	wait(ctx, c.engine.cfg.Timing.Query, first)
	// What was written so far is looked at with everything else, and is no news later.
	_, _ = c.witness.changed(ctx)
	timer := time.NewTicker(c.cfg.Resync)
	defer timer.Stop()
	for begun := false; ctx.Err() == nil; begun = true {
		again := timer.C
		if !c.all(ctx) {
			again = time.After(c.engine.cfg.Timing.Query)
		}
		if !begun {
			close(looked)
		}
		c.tell(true)
		select {
		case <-ctx.Done():
		case <-again:
		case <-c.everything:
		}
	}
}

// wait returns after a time, when ctx ends, or when something happens.
func wait(ctx context.Context, d time.Duration, event <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-event:
	}
}

// all has every machine that is remembered looked at; false when only those are
// known that were known before.
func (c *Controller) all(ctx context.Context) bool {
	var names []string
	err := c.engine.cfg.Store.View(ctx, func(tx Tx) error {
		machines, err := tx.Machines()
		names = names[:0]
		for _, m := range machines {
			names = append(names, m.Object.Metadata.Name)
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		c.log.Warn("reading the records failed", "err", err)
		c.mu.Lock()
		names = slices.Sorted(maps.Keys(c.machines))
		c.mu.Unlock()
	}
	for i, name := range names {
		c.queue.AddAfter(name, min(time.Duration(i)*spread, c.cfg.Resync/2))
	}
	return err == nil
}

// thaws has machines looked at that are marked as frozen, since nothing tells of a
// freeze, nor of the end of whoever was to thaw. Only names of files are looked at.
func (c *Controller) thaws(ctx context.Context) {
	timer := time.NewTicker(c.engine.cfg.Timing.Look)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			names, err := c.engine.cfg.Ports.Agent.FrozenMachines(ctx)
			if err != nil && ctx.Err() == nil {
				c.log.Debug("looking for frozen machines failed", "err", err)
			}
			for _, name := range names {
				// One that could not be thawed is tried again in its own time.
				if c.queue.NumRequeues(name) == 0 {
					c.queue.Add(name)
				}
			}
		}
	}
}

// rewrite writes what could not be written, as soon as that is possible.
func (c *Controller) rewrite(ctx context.Context) {
	timer := time.NewTicker(unwrittenRetry)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if !c.memory.pending() {
				continue
			}
			if err := c.memory.retry(ctx); err != nil {
				c.log.Debug("writing the state failed again", "err", err)
			}
		}
	}
}

// stateWritten notes that the state dir takes nothing, or does so again.
func (c *Controller) stateWritten(err error) {
	if err == nil {
		c.log.Info("the state is written again")
		c.condition(ConditionStateNotWritten, "", "")
		return
	}
	c.log.Error("the state cannot be written; supervising from memory", "err", err)
	c.condition(ConditionStateNotWritten, "WriteFailed", err.Error())
}

// condition sets a condition of the controller, or with no reason ends it, and
// tells whether that is news.
func (c *Controller) condition(kind, reason, message string) (news bool) {
	c.mu.Lock()
	old, was := c.conditions[kind]
	now := c.engine.cfg.Now()
	if reason == "" {
		delete(c.conditions, kind)
		news = was
	} else {
		next := state.Condition{Type: kind, Status: "True", Reason: reason, Message: message, LastTransitionTime: now}
		if was {
			next.LastTransitionTime = old.LastTransitionTime
		}
		c.conditions[kind] = next
		news = next != old
	}
	c.mu.Unlock()
	c.tell(false)
	return news
}
