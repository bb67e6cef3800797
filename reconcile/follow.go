package reconcile

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maqet/maqet/driver"
)

// slowFull is how many times rarer a full look is than a brief one, when nothing
// tells of a change: it asks the images, too.
const slowFull = 5

// FollowOptions say what to follow.
type FollowOptions struct {
	// Names are machines; empty is every machine, also one that comes later.
	Names []string
	Depth driver.Depth
	// Changes gives the name of a machine of which something may have changed, or
	// an empty one when the records may have; nil when nothing tells.
	Changes <-chan string
}

// Sighting is one look at a machine.
type Sighting struct {
	Name string
	// View is nil when nothing is remembered of the machine, or not any more.
	View *View
}

// Follow looks at machines, and at each again whenever something may have
// happened to it: its process ended, its probe succeeded, or Changes says so.
// What tells of no change by itself is looked at after the table's Look. It
// calls fn for every sighting, whether it differs from the last one or not, one
// call at a time, until ctx ends or fn fails; that error is returned. A machine
// that does not answer delays no other.
func (e *Engine) Follow(ctx context.Context, opt FollowOptions, fn func(Sighting) error) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &following{e: e, opt: opt, fn: fn, slow: e.cfg.Timing.Look, seen: make(chan sighting), machines: map[string]*followed{}, missing: map[string]bool{}}
	defer f.running.Wait()
	defer cancel()
	if opt.Depth == driver.DepthFull {
		f.slow *= slowFull
	}
	if err := f.records(ctx); err != nil {
		return err
	}
	again := time.NewTicker(e.cfg.Timing.Look)
	defer again.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
			err = f.records(ctx)
		case name := <-opt.Changes:
			err = f.changed(ctx, name)
		case s := <-f.seen:
			if f.machines[s.Name] == s.of {
				err = fn(s.Sighting)
			}
		}
		if err != nil {
			return err
		}
	}
}

// following is one call of Follow.
type following struct {
	e        *Engine
	opt      FollowOptions
	fn       func(Sighting) error
	slow     time.Duration
	seen     chan sighting
	machines map[string]*followed
	// missing are the names asked for of which fn knows that nothing is remembered.
	missing map[string]bool
	watched atomic.Bool
	running sync.WaitGroup
}

// sighting knows for which of the machines that had its name it was made.
type sighting struct {
	Sighting
	of *followed
}

// followed is a machine that a goroutine of its own looks at.
type followed struct {
	name string
	want atomic.Pointer[Desired]
	// poke holds one value when it shall be looked at now.
	poke chan struct{}
	stop context.CancelFunc
}

func (m *followed) look() {
	select {
	case m.poke <- struct{}{}:
	default: // It is about to be looked at.
	}
}

// changed looks at what may have changed.
func (f *following) changed(ctx context.Context, name string) error {
	if m := f.machines[name]; m != nil {
		m.look()
		return nil
	}
	return f.records(ctx)
}

// records reads what should be, and follows what is new or different in it.
func (f *following) records(ctx context.Context) error {
	all, err := f.e.desiredAll(ctx, nil)
	if err != nil {
		return err
	}
	f.watched.Store(f.e.live(ctx) != nil)
	there := make(map[string]bool)
	for _, want := range all {
		name := want.Machine.Object.Metadata.Name
		if !wants(f.opt.Names, name) {
			continue
		}
		there[name] = true
		m := f.machines[name]
		switch {
		case m == nil:
			f.begin(ctx, name, want)
		case !reflect.DeepEqual(*m.want.Load(), want):
			m.want.Store(&want)
			m.look()
		}
	}
	return f.gone(there)
}

// begin follows one machine.
func (f *following) begin(ctx context.Context, name string, want Desired) {
	ctx, cancel := context.WithCancel(ctx)
	m := &followed{name: name, poke: make(chan struct{}, 1), stop: cancel}
	m.want.Store(&want)
	f.machines[name] = m
	delete(f.missing, name)
	f.running.Go(func() { f.machine(ctx, m) })
}

// gone tells of the machines of which nothing is remembered any more.
func (f *following) gone(there map[string]bool) error {
	for name, m := range f.machines {
		if there[name] {
			continue
		}
		m.stop()
		delete(f.machines, name)
		f.missing[name] = true
		if err := f.fn(Sighting{Name: name}); err != nil {
			return err
		}
	}
	for _, name := range f.opt.Names {
		if there[name] || f.missing[name] {
			continue
		}
		f.missing[name] = true
		if err := f.fn(Sighting{Name: name}); err != nil {
			return err
		}
	}
	return nil
}

// machine looks at one machine again and again.
func (f *following) machine(ctx context.Context, m *followed) {
	pause := time.Duration(0)
	for {
		v := f.e.show(ctx, *m.want.Load(), f.opt.Depth, f.watched.Load())
		select {
		case <-ctx.Done():
			return
		case f.seen <- sighting{Sighting{m.name, &v}, m}:
		}
		began := f.e.cfg.Now()
		f.wait(ctx, m, &v, pause)
		if ctx.Err() != nil {
			return
		}
		pause = nextPause(pause, f.e.cfg.Now().Sub(began))
	}
}

// wait returns when a machine should be looked at again.
func (f *following) wait(ctx context.Context, m *followed, v *View, pause time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, f.slow)
	defer cancel()
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	happened := make(chan struct{})
	if p := v.Observed.Presence; p == driver.Alive || p == driver.Unresponsive {
		what := driver.Awaited{Exit: true, Ready: v.Status.Phase == PhaseRunning && !v.Observed.Ready}
		awaiting, stop := context.WithCancel(ctx)
		var over sync.WaitGroup
		defer over.Wait()
		defer stop()
		over.Go(func() {
			// What cannot be awaited is looked at when its time has come.
			if f.e.cfg.Ports.Observer.Await(awaiting, m.name, &v.Machine.Object, what) == nil {
				close(happened)
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-m.poke:
	case <-happened:
	}
}
