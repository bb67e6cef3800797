package qemu

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

const (
	// jobInterval is how often QEMU is asked for its jobs while somebody else is at the
	// socket on which it would tell by itself.
	jobInterval = 250 * time.Millisecond
	// firstTry and lastTry are the shortest and the longest time between two tries of
	// a probe that nothing tells the success of.
	firstTry = 50 * time.Millisecond
	lastTry  = time.Second
)

// Await returns when something of the wanted kind may have happened to the machine,
// or with ctx's error when it ends first. The end of the process, which ends every
// hope for anything else, is always such a thing. Looking again decides.
func (d *Driver) Await(ctx context.Context, name string, vm *manifest.VirtualMachine, what driver.Awaited) error {
	const op = "wait for"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	l, err := d.look(name)
	if err != nil {
		return fail(op, name, err, "")
	}
	defer l.close()
	switch l.standing {
	case standingAbsent:
		return nil
	case standingForeign:
		return fail(op, name, l.foreign(), l.presentHint(name))
	case standingOurs, standingLost:
	}
	waits := []func(context.Context) error{l.process.wait}
	if what.Ending {
		waits[0] = (&watcher{driver: d, name: name, look: l, asked: true, hints: make(chan driver.Hint)}).run
	}
	if what.Job {
		waits = append(waits, func(ctx context.Context) error { return d.awaitJob(ctx, name) })
	}
	if what.Unplug {
		waits = append(waits, func(ctx context.Context) error { return d.awaitUnplug(ctx, name) })
	}
	if what.Ready {
		waits = append(waits, func(ctx context.Context) error { return d.awaitReady(ctx, name, vm, l.launched) })
	}
	err = first(ctx, waits)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return fail(op, name, err, "")
}

// first runs all waits and returns what the first of them returns, once all have ended.
func first(ctx context.Context, waits []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(waits))
	var all sync.WaitGroup
	for _, wait := range waits {
		all.Go(func() { results <- wait(ctx) })
	}
	err := <-results
	cancel()
	all.Wait()
	return err
}

// pause waits for a while.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitJob returns when QEMU has no job that still goes on. It listens at the socket
// for events when nobody else does, and asks again and again otherwise.
func (d *Driver) awaitJob(ctx context.Context, name string) error {
	lock, err := d.locks.TryLock(d.layout.QMPLock(name))
	if err != nil {
		return d.pollJobs(ctx, name)
	}
	defer func() { _ = lock.Unlock() }() // the kernel frees it all the same
	// A QEMU that saves memory does not even greet until it is done.
	var jobs []jobReply
	list := qmp.NewCall("query-jobs", nil, &jobs)
	conn, err := qmp.DialPipelined(ctx, d.layout.QMPSocket(name), qmp.Options{Handshake: d.timing.Snapshot}, list)
	if err != nil {
		return d.pollJobs(ctx, name)
	}
	defer func() { _ = conn.Close() }() // it only listened
	events := conn.Subscribe()
	if err := list.Wait(ctx); err != nil || !goesOn(jobs) {
		return endedIsFine(err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-events.C():
			if !ok || e.Name == "JOB_STATUS_CHANGE" || events.Dropped() > 0 {
				return nil
			}
		}
	}
}

// endedIsFine takes the end of QEMU for something that was waited for.
func endedIsFine(err error) error {
	if errors.Is(err, qmp.ErrClosed) {
		return nil
	}
	return err
}

// goesOn tells whether a job is not over.
func goesOn(jobs []jobReply) bool {
	for _, j := range jobs {
		if j.Status != jobConcluded && j.Status != "null" {
			return true
		}
	}
	return false
}

// pollJobs asks for jobs until none goes on. A visit that fails is tried again: what
// is in its way may pass, and the wait has an end of its own.
func (d *Driver) pollJobs(ctx context.Context, name string) error {
	for {
		var jobs []jobReply
		err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
			defer cancel()
			return c.Do(ctx, "query-jobs", nil, &jobs)
		})
		if err == nil && !goesOn(jobs) || errors.Is(err, ErrNotRunning) {
			return nil
		}
		if err := pause(ctx, jobInterval); err != nil {
			return err
		}
	}
}

// awaitReady returns when the readiness probe has succeeded.
func (d *Driver) awaitReady(ctx context.Context, name string, vm *manifest.VirtualMachine, launched *driver.Launched) error {
	probe := readiness(vm, launched)
	if latched(probe, launched) {
		return nil
	}
	if probe != nil && probe.Serial != nil && launched != nil {
		return d.awaitSerial(ctx, d.layout.SerialLog(name), launched.SerialOffset, probe.Serial.Match)
	}
	for wait := firstTry; ; wait = min(2*wait, lastTry) {
		// A look tries the probe. It is brief, and tells of its success to all.
		o := d.Observe(ctx, name, vm, driver.DepthBrief)
		if o.Ready || o.Presence == driver.Absent {
			return nil
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// awaitSerial returns when the guest has written what the probe looks for.
func (d *Driver) awaitSerial(ctx context.Context, path string, from int64, match string) (err error) {
	scan, err := newSerialScan(path, from, match)
	if err != nil {
		return err
	}
	watch, err := d.watchFile(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.close()) }()
	for {
		found, err := scan.more()
		if err != nil || found {
			return err
		}
		if err := watch.next(ctx); err != nil {
			return err
		}
	}
}
