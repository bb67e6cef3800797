// Package reconcile decides what has to happen to machines, in which order and
// when, and does it.
//
// PlanMachine is pure: from what one machine should be and what was observed of
// it, it says what one pass does (Steps), what is waited for (Wait), what
// differs and at which price (Changes), and what needs a person (Problems).
// PlanSet gates many machines: how many start at once, what may be pruned.
// Forecast runs PlanMachine against a model to show everything ahead.
//
// Engine executes: it takes the machine's lock, looks, plans, executes the
// steps, looks again to confirm them, writes the record, and lets go of the
// lock before it waits for a guest. What was begun is in the machine's intent
// with a deadline, so whoever looks next goes on from there:
//
//	e := reconcile.NewEngine(reconcile.Config{Ports: ports, Store: reconcile.StoreOf(store), Timing: timing.Default(), Who: who})
//	report, err := e.Apply(ctx, set, reconcile.ApplyOptions{Wait: true})
//
// Controller keeps going what Engine does once. Its queue holds names, which
// events, exits, deadlines and changed manifests add to; each is looked at by one
// worker at a time, which does what can be done now and waits for nothing:
//
//	c := reconcile.NewController(reconcile.ControllerConfig{Engine: e, Load: load, Changes: folder.Changes(), Watcher: driver})
//	err := c.Run(ctx)
//
// Sync takes the good objects of a set one by one, while Apply takes all or
// nothing. WatchLock makes the watch of a state dir the only one.
//
// Two rules stand above all others. What could not be observed is not acted on:
// a machine that is Unknown or Unresponsive is never ended, started twice or
// deleted, unless a person says force to one that is known to be maqet's own.
// And data goes only by an explicit word: an onDelete key or a flag.
//
// A hold whose power state is the manifest's own would override nothing, so
// SetPower removes the hold instead of writing one.
package reconcile
