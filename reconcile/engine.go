package reconcile

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Bounds of what is done at once.
const (
	// defaultStarting is how many machines may be starting at once.
	defaultStarting = 4
	// maxLooking is how many machines are looked at, or converged, at once. A
	// machine that does not answer holds one of these for its deadline only.
	maxLooking = 64
)

// Config is what an engine works with.
type Config struct {
	Ports Ports
	// Store is StoreOf(a state.Store).
	Store  Store
	Timing timing.Table
	// Log gets what changed; nil discards.
	Log *slog.Logger
	// Who is written into intents, holds and deletions, such as "apply (pid 4711, uid 0)".
	Who string
	// BootID is the host's current boot id.
	BootID string
	// Report is told what happens, one call at a time; nil discards.
	Report func(Event)
	// Journal gets what happened to machines; nil discards.
	Journal Journal
	// Live finds the watch that runs now, nil when none does; without Live there
	// is none. A controller's own engine has no Live: it is the watch.
	Live func(ctx context.Context) (*LiveWatch, error)
	// Parallel is how many machines may be starting at once; 0 is 4.
	Parallel int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Engine brings machines to what they should be, one pass at a time. It may be
// used by many goroutines at once.
type Engine struct {
	cfg  Config
	gate *gate
	// reporting lets one event at a time through.
	reporting sync.Mutex
}

// NewEngine makes an engine; it starts nothing.
func NewEngine(cfg Config) *Engine {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Store = thisBoot{cfg.Store, cfg.BootID}
	if cfg.Timing == (timing.Table{}) {
		cfg.Timing = timing.Default()
	}
	return &Engine{cfg: cfg, gate: newGate(cmp.Or(cfg.Parallel, defaultStarting), cfg.Now)}
}

// OwnerStdin owns what came from standard input and had no owner before. Any
// folder may take such an object.
const OwnerStdin = "stdin"

// OwnerOf is the owner of a set that is given none: the paths it came from.
func OwnerOf(set *manifest.Set) string { return strings.Join(set.Roots, ",") }

// options fills in what every machine's options share.
func (e *Engine) options(opt Options) Options {
	t := e.cfg.Timing
	opt.Who = cmp.Or(opt.Who, e.cfg.Who)
	opt.BootID = cmp.Or(opt.BootID, e.cfg.BootID)
	opt.Shutdown = cmp.Or(opt.Shutdown, t.Shutdown)
	opt.Quit = cmp.Or(opt.Quit, t.Quit)
	opt.Kill = cmp.Or(opt.Kill, t.Kill)
	opt.Launch = cmp.Or(opt.Launch, t.Start)
	opt.Ready = cmp.Or(opt.Ready, t.Ready)
	opt.Snapshot = cmp.Or(opt.Snapshot, t.Snapshot)
	opt.Unplug = cmp.Or(opt.Unplug, t.Unplug)
	opt.Backoff = cmp.Or(opt.Backoff, t.Backoff)
	opt.BackoffMax = cmp.Or(opt.BackoffMax, t.BackoffMax)
	opt.BackoffReset = cmp.Or(opt.BackoffReset, t.BackoffReset)
	return opt
}

// tell reports an event.
func (e *Engine) tell(ev Event) {
	ev.Time = e.cfg.Now()
	if ev.Done || ev.Err != nil {
		e.cfg.Log.Info("step", "vm", ev.Machine, "action", ev.Step, "message", ev.Message, "err", ev.Err)
	}
	if e.cfg.Report == nil {
		return
	}
	e.reporting.Lock()
	defer e.reporting.Unlock()
	e.cfg.Report(ev)
}

// desired reads what is remembered of one machine. Machine is nil when nothing is.
func (e *Engine) desired(ctx context.Context, name string) (Desired, error) {
	var want Desired
	err := e.cfg.Store.View(ctx, func(tx Tx) error {
		var err error
		if want.Machine, err = tx.Machine(name); err != nil {
			return err
		}
		if want.Snapshots, err = tx.SnapshotsOf(name); err != nil {
			return err
		}
		want.Images, err = imagesOf(tx, want.Machine)
		return err
	})
	return want, err
}

// desiredAll reads what is remembered of the named machines, or of all.
func (e *Engine) desiredAll(ctx context.Context, names []string) ([]Desired, error) {
	var all []Desired
	err := e.cfg.Store.View(ctx, func(tx Tx) error {
		snaps, err := tx.Snapshots()
		if err != nil {
			return err
		}
		of := make(map[string][]*state.Snapshot)
		for _, s := range snaps {
			vm := s.Object.Spec.VirtualMachine
			of[vm] = append(of[vm], s)
		}
		machines, err := e.machines(tx, names)
		if err != nil {
			return err
		}
		all = make([]Desired, 0, len(machines))
		for _, m := range machines {
			images, err := imagesOf(tx, m)
			if err != nil {
				return err
			}
			all = append(all, Desired{Machine: m, Snapshots: of[m.Object.Metadata.Name], Images: images})
		}
		return nil
	})
	return all, err
}

func (e *Engine) machines(tx Tx, names []string) ([]*state.Machine, error) {
	if len(names) == 0 {
		return tx.Machines()
	}
	machines := make([]*state.Machine, 0, len(names))
	for _, name := range names {
		m, err := tx.Machine(name)
		if err != nil {
			return nil, err
		}
		if m == nil {
			return nil, notFound("look at", name)
		}
		machines = append(machines, m)
	}
	return machines, nil
}

func notFound(op, name string) error {
	return &Error{
		Object: "vm/" + name, Op: op, Err: ErrNotFound,
		Hint: "see maqet get for the names; apply a manifest to make one",
	}
}

// Views looks at machines in parallel; without names at all of them.
func (e *Engine) Views(ctx context.Context, names []string, depth driver.Depth) ([]View, error) {
	all, err := e.desiredAll(ctx, names)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(all))
	watched := e.live(ctx) != nil
	each(len(all), func(i int) { views[i] = e.show(ctx, all[i], depth, watched) })
	return views, ctx.Err()
}

// look is one look at one machine.
func (e *Engine) look(ctx context.Context, want Desired, depth driver.Depth, watched bool) View {
	name := want.Machine.Object.Metadata.Name
	opt := e.options(Options{Supervise: watched})
	obs := e.observe(ctx, name, want, depth)
	now := e.cfg.Now()
	opt.brief = depth == driver.DepthBrief
	plan := PlanMachine(want, obs, opt, now)
	return View{
		Machine: want.Machine, Snapshots: want.Snapshots, Observed: obs, Plan: plan, Watched: watched,
		Status: statusOf(want, obs, plan, opt, now),
	}
}

// show is a look for people and programs: in full depth the guest's agent is asked, too.
// It is asked once QEMU has answered that it listens, and for a look's time at most.
func (e *Engine) show(ctx context.Context, want Desired, depth driver.Depth, watched bool) View {
	v := e.look(ctx, want, depth, watched)
	obs := &v.Observed
	if g := obs.Guest; depth == driver.DepthFull && g != nil && g.RunState == runRunning && g.Agent != nil && g.Agent.Open && obs.Freeze == nil {
		v.Status.Guest = e.cfg.Ports.Agent.AskGuest(ctx, obs.Name)
	}
	return v
}

// live is the watch that runs now; nil when there is none. One that cannot be
// found out about is taken for none: it still keeps its machines by itself.
func (e *Engine) live(ctx context.Context) *LiveWatch {
	if e.cfg.Live == nil {
		return nil
	}
	w, err := e.cfg.Live(ctx)
	if err != nil {
		e.cfg.Log.Warn("looking for a watch failed", "err", err)
		return nil
	}
	return w
}

// Locked calls do with one fresh full look at a machine while no other process
// may act on it.
func (e *Engine) Locked(ctx context.Context, name string, do func(context.Context, View) error) error {
	unlock, err := e.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	want, err := e.desired(ctx, name)
	if err != nil {
		return err
	}
	if want.Machine == nil {
		return notFound("look at", name)
	}
	return do(ctx, e.look(ctx, want, driver.DepthFull, e.live(ctx) != nil))
}

// lock takes a machine's lock within the table's time.
func (e *Engine) lock(ctx context.Context, name string) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timing.Lock)
	defer cancel()
	unlock, err := e.cfg.Ports.Locker.Lock(ctx, name)
	if err != nil {
		return nil, &Error{Object: "vm/" + name, Op: "lock", Err: err}
	}
	return unlock, nil
}

// each calls do for 0 to n-1, maxLooking at once, and returns when all have.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxLooking)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	wg.Wait()
}
