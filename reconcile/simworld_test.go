package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// errKilled is what a killed process's calls come to: nothing.
var errKilled = errors.New("the process was killed")

// simWorld is a host with a folder, people and a controller, all of which may
// do or suffer anything. Which, is drawn from one seed.
type simWorld struct {
	t    *testing.T
	rnd  *rand.Rand
	host *simHost
	disk *memStore
	// files are the folder's, by name; gone is true while the folder is not there.
	files map[string]*simFile
	gone  bool
	// changes tells the controller of the folder.
	changes chan struct{}
	opt     ApplyOptions
	process *simProcess
	people  sync.WaitGroup
	boot    int
	// absent is since when no file has had a machine, present since when one has;
	// whole and partial are since when the folder could be read and could not.
	absent, present map[string]time.Time
	whole, partial  time.Time
	// pruned are the deletes that were judged already, by machine.
	pruned map[string]time.Time
	// lossy makes the watcher lose hints.
	lossy atomic.Bool
	made  int

	mu     sync.Mutex
	status ControllerStatus
	trail  []string
	broken []string
}

// simFile is a file of the folder.
type simFile struct {
	vms    map[string]*manifest.VirtualMachine
	snaps  map[string]*manifest.Snapshot
	broken bool
}

// simProcess is one life of the controller: what it does to the host and to the
// state, which ends when it is killed.
type simProcess struct {
	*simHost
	w          *simWorld
	controller *Controller
	cancel     context.CancelFunc
	ended      chan struct{}

	mu   sync.Mutex
	dead bool
	// left is how many calls are left until it is killed; negative is no end.
	left int
}

// alive counts a call; it fails when the process is killed before it.
func (p *simProcess) alive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 && !p.dead {
		p.dead = true
		p.cancel()
	}
	if p.left > 0 {
		p.left--
	}
	if p.dead {
		return errKilled
	}
	return nil
}

func (p *simProcess) kill(in int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = in
	if in == 0 {
		p.dead = true
		p.cancel()
	}
}

// record is what the controller knows of a machine, stored or not.
func (p *simProcess) record(ctx context.Context, name string) Desired {
	want, err := p.controller.engine.desired(ctx, name)
	if err != nil {
		return Desired{}
	}
	return want
}

func (w *simWorld) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trail = append(w.trail, time.Since(t0Sim).String()+" "+fmt.Sprintf(format, args...))
}

// t0Sim is when the time of a bubble begins.
var t0Sim = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// breaks notes a law that does not hold.
func (w *simWorld) breaks(format string, args ...any) {
	w.log("LAW "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// lawful holds a call of the controller to what it knows.
func (p *simProcess) lawful(ctx context.Context, call, name string) {
	p.w.log("controller: %s %s", call, name)
	want, now := p.record(ctx, name), time.Now()
	m, obs := want.Machine, p.obs(name)
	if m == nil {
		p.w.breaks("%s of %s, of which nothing is remembered", call, name)
		return
	}
	if saidNow(m, now) {
		return
	}
	if h := activeHold(m, now); h != nil && h.PowerState == "" {
		p.w.breaks("%s of %s, which is held untouched", call, name)
	}
	power := EffectivePower(m, now)
	switch call {
	case "start":
		p.lawfulStart(m, power, now)
	case "powerdown", "quit", "kill":
		in := obs.Intent
		begun := in != nil && in.Kind == driver.IntentRestart
		if m.Deleting == nil && power != manifest.PowerStopped && !begun {
			p.w.breaks("%s of %s, which should be %s", call, name, power)
		}
	case "pause", "resume":
		if obs.Guest == nil || (call == "pause") != (power == manifest.PowerPaused) {
			p.w.breaks("%s of %s, which should be %s", call, name, power)
		} else if s := obs.Guest.RunState; s != runRunning && s != runPaused && s != runPrelaunch {
			p.w.breaks("%s of %s, whose guest is %s", call, name, s)
		}
	case "forget":
		if m.Deleting == nil || obs.Presence != driver.Absent {
			p.w.breaks("forget of %s, which is %s and not to be deleted", name, obs.Presence)
		}
	}
}

// saidNow tells that something was said of a machine just now: then nobody can tell
// whether it was before or after what is done. A word has the time at which it was
// said, and counts when it is written, which waits for its turn; between a
// process's last look at the record and what it then does there is a moment too.
func saidNow(m *state.Machine, now time.Time) bool {
	const moment = time.Second
	just := func(at time.Time) bool { return !at.After(now) && now.Sub(at) < moment }
	return just(m.Updated) || m.Deleting != nil && just(m.Deleting.Since) || m.Hold != nil && just(m.Hold.Since)
}

func (p *simProcess) lawfulStart(m *state.Machine, power manifest.PowerState, now time.Time) {
	name := m.Object.Metadata.Name
	if m.Deleting != nil || power == manifest.PowerStopped {
		p.w.breaks("start of %s, which should be %s", name, power)
	}
	t := m.LastTermination
	if t == nil || t.Superseded || t.Generation != m.Generation {
		return
	}
	switch verdictOf(policyOf(m), t.Cause) {
	case verdictCompleted, verdictFailed:
		p.w.breaks("start of %s, which ended for good by %s", name, t.Cause)
	case verdictBackOff:
		if now.Before(m.NotBefore) {
			p.w.breaks("start of %s, %s too early after failure %d", name, m.NotBefore.Sub(now), m.Failures)
		}
	case verdictStart:
	}
}

func (p *simProcess) do(ctx context.Context, call, name string, act func() error) error {
	if err := p.alive(); err != nil {
		return err
	}
	p.lawful(ctx, call, name)
	return act()
}

func (p *simProcess) Start(ctx context.Context, req driver.StartRequest) error {
	name := req.VM.Metadata.Name
	return p.do(ctx, "start", name, func() error {
		err := p.simHost.Start(ctx, req)
		if err != nil && err.Error() == "a second QEMU" {
			p.w.breaks("a second QEMU of %s", name)
		}
		return err
	})
}

func (p *simProcess) Powerdown(ctx context.Context, name string) error {
	return p.do(ctx, "powerdown", name, func() error { return p.simHost.Powerdown(ctx, name) })
}

func (p *simProcess) AgentShutdown(ctx context.Context, name string) error {
	return p.do(ctx, "agent-shutdown", name, func() error { return p.simHost.AgentShutdown(ctx, name) })
}

func (p *simProcess) Thaw(ctx context.Context, name string) error {
	return p.do(ctx, "thaw", name, func() error { return p.simHost.Thaw(ctx, name) })
}

func (p *simProcess) Quit(ctx context.Context, name string) error {
	return p.do(ctx, "quit", name, func() error { return p.simHost.Quit(ctx, name) })
}

func (p *simProcess) Kill(ctx context.Context, name string) error {
	return p.do(ctx, "kill", name, func() error { return p.simHost.Kill(ctx, name) })
}

func (p *simProcess) SetPaused(ctx context.Context, name string, paused bool) error {
	call := "resume"
	if paused {
		call = "pause"
	}
	return p.do(ctx, call, name, func() error { return p.simHost.SetPaused(ctx, name, paused) })
}

func (p *simProcess) Forget(ctx context.Context, name string, deleteDisks bool) (kept string, err error) {
	err = p.do(ctx, "forget", name, func() error {
		m := p.record(ctx, name).Machine
		if deleteDisks && m != nil && !m.Deleting.DeleteDisks && m.Object.Spec.OnDelete.Disks != manifest.DisksDelete {
			p.w.breaks("the disks of %s are deleted without a word", name)
		}
		kept, err = p.simHost.Forget(ctx, name, deleteDisks)
		return err
	})
	return kept, err
}

func (p *simProcess) EnsureIdentity(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, error) {
	if err := p.alive(); err != nil {
		return driver.Identity{}, err
	}
	return p.simHost.EnsureIdentity(ctx, vm)
}

func (p *simProcess) WriteIntent(ctx context.Context, name string, in *driver.Intent) error {
	if err := p.alive(); err != nil {
		return err
	}
	before := p.obs(name).Intent
	if in != nil && in.Kind == driver.IntentRestart && (before == nil || before.UID != in.UID) && !p.w.opt.Options.AllowRestart {
		p.w.breaks("a restart of %s is begun, which nobody allowed", name)
	}
	return p.simHost.WriteIntent(ctx, name, in)
}

func (p *simProcess) ClearRun(ctx context.Context, name string) error {
	if err := p.alive(); err != nil {
		return err
	}
	return p.simHost.ClearRun(ctx, name)
}

func (p *simProcess) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	name := vm.Metadata.Name
	return p.do(ctx, "create-disk", name, func() error {
		if p.obs(name).Files[disk].Exists {
			p.w.breaks("disk %s of %s is made a second time", disk, name)
		}
		return p.simHost.CreateDisk(ctx, vm, disk)
	})
}

func (p *simProcess) TakeSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	return p.do(ctx, "snapshot", name, func() error {
		if _, exists := p.obs(name).Snapshots[req.Tag]; exists {
			p.w.breaks("snapshot %s of %s is taken a second time", req.Tag, name)
		}
		return p.simHost.TakeSnapshot(ctx, vm, obs, req)
	})
}

func (p *simProcess) FinishSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	return p.do(ctx, "finish-snapshot", vm.Metadata.Name, func() error { return p.simHost.FinishSnapshot(ctx, vm, obs, req) })
}

func (p *simProcess) DeleteSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error {
	name := vm.Metadata.Name
	return p.do(ctx, "delete-snapshot", name, func() error {
		s := p.record(ctx, name).snapshot(tag)
		if s == nil || s.Deleting == nil || s.Object.Spec.OnDelete != manifest.SnapshotDelete {
			p.w.breaks("the data of snapshot %s of %s is deleted without a word", tag, name)
		}
		return p.simHost.DeleteSnapshot(ctx, vm, obs, tag)
	})
}

// processStore is the state as a process sees it.
type processStore struct {
	*memStore
	p *simProcess
}

func (s processStore) Update(ctx context.Context, do func(Tx) error) error {
	if err := s.p.alive(); err != nil {
		return err
	}
	return s.memStore.Update(ctx, do)
}

// Watch tells of a machine's changes, some of them.
func (p *simProcess) Watch(ctx context.Context, name string, hint func(driver.Hint)) error {
	for {
		p.simHost.mu.Lock()
		m := p.machine(name)
		gone, changed := m.obs.Presence == driver.Absent, m.changed
		p.simHost.mu.Unlock()
		if gone {
			hint(driver.Hint{Kind: driver.HintExit})
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !p.w.lossy.Load() {
			hint(driver.Hint{Kind: "STOP"})
			hint(driver.Hint{Kind: "STOP"})
		}
	}
}

// begin starts a controller, as another life of it.
func (w *simWorld) begin() {
	ctx, cancel := context.WithCancel(w.t.Context())
	p := &simProcess{simHost: w.host, w: w, cancel: cancel, ended: make(chan struct{}), left: -1}
	ports := w.host.ports()
	ports.Power, ports.Records, ports.Storage, ports.Snapshots = p, p, p, p
	engine := NewEngine(Config{
		Ports: ports, Store: processStore{w.disk, p}, Timing: timing.Default(), Who: "watch", BootID: w.bootID(),
	})
	p.controller = NewController(ControllerConfig{
		Engine: engine, Load: w.load, Changes: w.changes, Watcher: p, Options: w.opt,
		Status: func(s ControllerStatus) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.status = s
		},
	})
	w.process = p
	w.log("a controller begins")
	go func() {
		defer close(p.ended)
		if err := p.controller.Run(ctx); err != nil {
			w.log("the controller ended: %v", err)
		}
	}()
}

// end waits until a killed or cancelled controller is gone.
func (w *simWorld) end() {
	w.process.cancel()
	<-w.process.ended
}

func (w *simWorld) bootID() string { return fmt.Sprintf("boot-%d", w.boot) }

// cli is an engine of a person's command.
func (w *simWorld) cli() *Engine {
	return NewEngine(Config{Ports: w.host.ports(), Store: w.disk, Timing: timing.Default(), Who: "ann", BootID: w.bootID()})
}

// load reads the folder as manifest.Load and manifest.Admit do.
func (w *simWorld) load(context.Context) (*manifest.Set, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	set := &manifest.Set{Roots: []string{"/vms"}, Complete: true}
	var faults manifest.Errors
	if w.gone {
		set.Complete = false
		return set, manifest.Errors{{Position: manifest.Position{File: "/vms"}, Msg: "cannot be read"}}
	}
	objects := map[string]*manifest.Object{}
	for _, file := range slices.Sorted(maps.Keys(w.files)) {
		f := w.files[file]
		at := manifest.Position{File: "/vms/" + file, Line: 1, Column: 1}
		if f.broken {
			faults = append(faults, &manifest.Error{Position: at, Msg: "does not parse"})
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(f.vms)) {
			o, err := manifest.NewObject(f.vms[name].DeepCopy())
			if err != nil {
				return nil, err
			}
			o.Position = at
			if objects[name] != nil {
				faults = append(faults, &manifest.Error{Position: at, Msg: name + " is declared twice", Conflict: []manifest.ObjectKey{o.Key()}})
				continue
			}
			objects[name] = o
		}
	}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		set.Objects = append(set.Objects, objects[name])
	}
	// What Admit finds makes no listing incomplete.
	set.Complete = len(faults) == 0
	snaps, more, err := w.loadSnapshots(objects)
	if err != nil {
		return nil, err
	}
	set.Objects, faults = append(set.Objects, snaps...), append(faults, more...)
	if len(faults) > 0 {
		return set, faults
	}
	return set, nil
}

// loadSnapshots are the snapshots of the good files. One whose machine is in no
// good file is a conflict of its own.
func (w *simWorld) loadSnapshots(machines map[string]*manifest.Object) (objects []*manifest.Object, faults manifest.Errors, err error) {
	for _, file := range slices.Sorted(maps.Keys(w.files)) {
		f := w.files[file]
		for _, name := range slices.Sorted(maps.Keys(f.snaps)) {
			if f.broken {
				continue
			}
			o, err := manifest.NewObject(f.snaps[name].DeepCopy())
			if err != nil {
				return nil, nil, err
			}
			o.Position = manifest.Position{File: "/vms/" + file, Line: 9, Column: 1}
			objects = append(objects, o)
			if machines[o.Snapshot.Spec.VirtualMachine] == nil {
				faults = append(faults, &manifest.Error{Position: o.Position, Msg: "no such machine", Conflict: []manifest.ObjectKey{o.Key()}})
			}
		}
	}
	slices.SortFunc(objects, func(a, b *manifest.Object) int { return strings.Compare(a.Key().Name, b.Key().Name) })
	return objects, faults, nil
}

// declared tells whether any file, broken ones as they were, has the machine.
func (w *simWorld) declared(name string) bool {
	for _, f := range w.files {
		if f.vms[name] != nil {
			return true
		}
	}
	return false
}

// newSimWorld is a world without machines, in which nothing happens yet.
func newSimWorld(t *testing.T, seed uint64) *simWorld {
	return &simWorld{
		t: t, host: newSimHost(), disk: newMemStore(), files: map[string]*simFile{},
		rnd:     rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // chance that can be repeated is what is wanted.
		changes: make(chan struct{}, 1), absent: map[string]time.Time{}, present: map[string]time.Time{},
		pruned: map[string]time.Time{}, opt: ApplyOptions{Owner: "/vms"},
	}
}

// inSim runs a world drawn from a seed in a bubble of its own time.
func inSim(t *testing.T, seed uint64, run func(w *simWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, seed)
		w.opt.Prune, w.opt.PruneAll = w.rnd.IntN(2) == 0, w.rnd.IntN(4) == 0
		w.opt.Options.AllowRestart = w.rnd.IntN(3) == 0
		w.host.readyTakes = 20 * time.Second
		for range 3 {
			w.addMachine()
		}
		w.begin()
		run(w)
		w.people.Wait()
		w.end()
		if len(w.broken) > 0 {
			from := max(len(w.trail)-120, 0)
			t.Errorf("%d laws broken, first: %s\n%s", len(w.broken), w.broken[0], strings.Join(w.trail[from:], "\n"))
		}
	})
}
