package reconcile

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

const (
	// between is how far apart looks are that hints ask for: a guest that makes
	// QEMU tell of a thousand things a second is looked at ten times.
	between = 100 * time.Millisecond
	// brief is how long listening or awaiting has to last to count as such.
	brief = time.Second
	// longestDeaf is the longest time between two tries to listen.
	longestDeaf = time.Minute
)

// listen arranges to hear of what happens to the machine: by the watcher while
// its process is there, and by waiting for what the watcher does not tell.
func (c *Controller) listen(ctx context.Context, r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.machines[r.name]
	present := r.last.Presence == driver.Alive || r.last.Presence == driver.Unresponsive
	now := c.engine.cfg.Now()
	if l := r.last.Launched; l != nil && !l.At.Equal(s.process) {
		// That an earlier one could not be listened to says nothing of this process.
		s.process, s.deaf, s.listenAfter, s.hasty = l.At, 0, time.Time{}, false
	}
	if present && c.cfg.Watcher != nil && !s.listening && !now.Before(s.listenAfter) {
		s.listening = true
		process := s.process
		listening, stop := context.WithCancel(ctx)
		s.stop = stop
		c.goroutines.Go(func() {
			defer stop()
			c.watch(listening, r.name, s, process)
		})
	}
	what := driver.Awaited{}
	if present {
		what.Ready = r.notReady()
		what.Exit = !s.listening
		what.Job = !s.listening && r.result.Plan.Wait != nil && r.result.Plan.Wait.Job
		what.Unplug = !s.listening && r.result.Plan.Wait != nil && r.result.Plan.Wait.Unplug
	}
	if s.cancel != nil && s.awaited == what {
		return
	}
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
	if what == (driver.Awaited{}) {
		return
	}
	waiting, cancel := context.WithTimeout(ctx, longestWait)
	s.awaited, s.cancel = what, cancel
	vm := r.want.Machine.Object.DeepCopy()
	c.goroutines.Go(func() { c.await(waiting, cancel, vm, s, what) })
}

// watch listens to one process until it ends or cannot be listened to.
func (c *Controller) watch(ctx context.Context, name string, s *supervised, process time.Time) {
	began := c.engine.cfg.Now()
	err := c.cfg.Watcher.Watch(ctx, name, func(h driver.Hint) {
		if !idle(h) && !last(h) {
			c.hinted(name, s)
		}
	})
	if ctx.Err() != nil {
		return
	}
	now := c.engine.cfg.Now()
	c.mu.Lock()
	s.listening = false
	if err == nil && now.Sub(began) >= brief || !process.Equal(s.process) {
		s.deaf, s.listenAfter = 0, time.Time{}
	} else {
		s.deaf++
		s.listenAfter = now.Add(min(time.Second<<min(s.deaf-1, 10), longestDeaf))
	}
	after := s.listenAfter
	c.mu.Unlock()
	if err != nil {
		c.log.Warn("listening to QEMU failed", "vm", name, "err", err)
	}
	// The end of listening most likely is the end of QEMU.
	c.queue.Add(name)
	if !after.IsZero() {
		c.queue.AddAfter(name, after.Sub(now))
	}
}

// idle tells of an event that concerns nothing that is looked at, and that some
// guests make QEMU tell all the time.
func idle(h driver.Hint) bool {
	switch h.Kind {
	case "RTC_CHANGE", "BALLOON_CHANGE", "NIC_RX_FILTER_CHANGED", "VSERPORT_CHANGE", "MEMORY_DEVICE_SIZE_CHANGE":
		return true
	default:
		return strings.HasPrefix(h.Kind, "VNC_") || strings.HasPrefix(h.Kind, "SPICE_")
	}
}

// last tells of an event after which the process ends, or stops its guest, which
// is told as well. QEMU 7.2 may hang when it is asked something while it ends.
func last(h driver.Hint) bool { return h.Kind == "SHUTDOWN" }

// hinted has a machine looked at now, or soon when it was just looked at.
func (c *Controller) hinted(name string, s *supervised) {
	c.mu.Lock()
	left := between - c.engine.cfg.Now().Sub(s.looked)
	c.mu.Unlock()
	if left > between {
		left = between // The clock was set back.
	}
	c.queue.AddAfter(name, left)
}

// await waits for what the watcher does not tell, and has the machine looked at then.
func (c *Controller) await(ctx context.Context, cancel context.CancelFunc, vm *manifest.VirtualMachine, s *supervised, what driver.Awaited) {
	defer cancel()
	name := vm.Metadata.Name
	began := c.engine.cfg.Now()
	err := c.engine.cfg.Ports.Observer.Await(ctx, name, vm, what)
	now := c.engine.cfg.Now()
	c.mu.Lock()
	current := s.cancel != nil && s.awaited == what && !errors.Is(ctx.Err(), context.Canceled)
	var hurry time.Duration
	if current {
		s.cancel = nil
		// One that is over at once again and again must not keep a processor busy.
		hasty := now.Sub(began) < brief
		if s.hasty && hasty {
			hurry = brief
		}
		s.hasty = hasty
	}
	c.mu.Unlock()
	switch {
	case !current:
		return
	case err != nil && ctx.Err() == nil:
		c.log.Warn("waiting for a machine failed", "vm", name, "err", err)
	}
	c.queue.AddAfter(name, hurry)
}
