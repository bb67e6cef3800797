package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// errKilled is what a killed process's calls come to: nothing.
var errKilled = errors.New("the process was killed")

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

func (p *simProcess) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// record is what the controller knows of a machine, stored or not.
func (p *simProcess) record(ctx context.Context, name string) Desired {
	want, err := p.controller.engine.desired(unnamed(ctx), name)
	if err != nil {
		return Desired{}
	}
	return want
}

// turn waits for the turn of a call; it fails when the process is killed before.
func (p *simProcess) turn(ctx context.Context, call, name string) (context.Context, error) {
	ctx = p.w.turns.take(ctx, call+" "+name)
	return ctx, p.alive()
}

// do holds a call to the laws, in its turn.
func (p *simProcess) do(ctx context.Context, call, name string, act func(context.Context) error) error {
	ctx, err := p.turn(ctx, call, name)
	if err != nil {
		return err
	}
	p.lawful(ctx, call, name)
	return act(ctx)
}

func (p *simProcess) Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error) {
	name := req.VM.Metadata.Name
	return nil, p.do(ctx, "start", name, func(ctx context.Context) error {
		if p.obs(name).Presence != driver.Absent {
			p.w.breaks("a second QEMU of %s", name)
		}
		_, err := p.simHost.Start(ctx, req)
		return err
	})
}

func (p *simProcess) Powerdown(ctx context.Context, name string) error {
	return p.do(ctx, "powerdown", name, func(ctx context.Context) error { return p.simHost.Powerdown(ctx, name) })
}

func (p *simProcess) AgentShutdown(ctx context.Context, name string) error {
	return p.do(ctx, "agent-shutdown", name, func(ctx context.Context) error { return p.simHost.AgentShutdown(ctx, name) })
}

func (p *simProcess) Thaw(ctx context.Context, name string) error {
	return p.do(ctx, "thaw", name, func(ctx context.Context) error { return p.simHost.Thaw(ctx, name) })
}

func (p *simProcess) Quit(ctx context.Context, name string) error {
	return p.do(ctx, "quit", name, func(ctx context.Context) error { return p.simHost.Quit(ctx, name) })
}

func (p *simProcess) Kill(ctx context.Context, name string) error {
	return p.do(ctx, "kill", name, func(ctx context.Context) error { return p.simHost.Kill(ctx, name) })
}

func (p *simProcess) SetPaused(ctx context.Context, name string, paused bool) error {
	call := "resume"
	if paused {
		call = "pause"
	}
	return p.do(ctx, call, name, func(ctx context.Context) error { return p.simHost.SetPaused(ctx, name, paused) })
}

func (p *simProcess) Forget(ctx context.Context, name string, deleteDisks bool) (kept string, err error) {
	err = p.do(ctx, "forget", name, func(ctx context.Context) error {
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
	ctx, err := p.turn(ctx, "identity", vm.Metadata.Name)
	if err != nil {
		return driver.Identity{}, err
	}
	return p.simHost.EnsureIdentity(ctx, vm)
}

func (p *simProcess) WriteIntent(ctx context.Context, name string, in *driver.Intent) error {
	ctx, err := p.turn(ctx, "intent", name)
	if err != nil {
		return err
	}
	before := p.obs(name).Intent
	if in != nil && in.Kind == driver.IntentRestart && (before == nil || before.UID != in.UID) && !p.w.opt.Options.AllowRestart {
		p.w.breaks("a restart of %s is begun, which nobody allowed", name)
	}
	return p.simHost.WriteIntent(ctx, name, in)
}

func (p *simProcess) ClearRun(ctx context.Context, name string) error {
	ctx, err := p.turn(ctx, "clear-run", name)
	if err != nil {
		return err
	}
	return p.simHost.ClearRun(ctx, name)
}

func (p *simProcess) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	name := vm.Metadata.Name
	return p.do(ctx, "create-disk", name, func(ctx context.Context) error {
		if p.obs(name).Files[disk].Exists {
			p.w.breaks("disk %s of %s is made a second time", disk, name)
		}
		return p.simHost.CreateDisk(ctx, vm, disk)
	})
}

func (p *simProcess) GrowDisk(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, disk string) error {
	return p.do(ctx, "grow-disk", vm.Metadata.Name, func(ctx context.Context) error { return p.simHost.GrowDisk(ctx, vm, obs, disk) })
}

func (p *simProcess) ThrottleDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	return p.do(ctx, "throttle-disk", vm.Metadata.Name, func(ctx context.Context) error { return p.simHost.ThrottleDisk(ctx, vm, disk) })
}

func (p *simProcess) TakeSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	return p.do(ctx, "snapshot", name, func(ctx context.Context) error {
		if _, exists := p.obs(name).Snapshots[req.Tag]; exists {
			p.w.breaks("snapshot %s of %s is taken a second time", req.Tag, name)
		}
		if f := p.obs(name).Freeze; f != nil && p.obs(name).Presence == driver.Alive && p.running(name) {
			p.w.breaks("snapshot %s of %s is taken while file systems are frozen since %s", req.Tag, name, f.Since)
		}
		ctx = context.WithValue(context.WithValue(ctx, deadKey{}, p.isDead), aliveKey{}, p.alive)
		return p.simHost.TakeSnapshot(ctx, vm, obs, req)
	})
}

// running tells whether a guest runs.
func (p *simProcess) running(name string) bool {
	g := p.obs(name).Guest
	return g != nil && g.RunState == runRunning
}

func (p *simProcess) FinishSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	return p.do(ctx, "finish-snapshot", vm.Metadata.Name, func(ctx context.Context) error { return p.simHost.FinishSnapshot(ctx, vm, obs, req) })
}

func (p *simProcess) DeleteSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error {
	name := vm.Metadata.Name
	return p.do(ctx, "delete-snapshot", name, func(ctx context.Context) error {
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
	ctx, err := s.p.turn(ctx, "update", "")
	if err != nil {
		return err
	}
	return s.memStore.Update(ctx, do)
}

// Watch tells of a machine's changes, unless the world loses what is told.
func (p *simProcess) Watch(ctx context.Context, name string, hint func(driver.Hint)) error {
	return p.simHost.Watch(ctx, name, func(told driver.Hint) {
		if told.Kind == driver.HintExit || !p.w.lossy.Load() {
			hint(told)
		}
	})
}

// begin starts a controller, as another life of it.
func (w *simWorld) begin() {
	w.lives++
	ctx, cancel := context.WithCancel(named(w.t.Context(), fmt.Sprintf("watch %d", w.lives)))
	p := &simProcess{simHost: w.host, w: w, cancel: cancel, ended: make(chan struct{}), left: -1}
	ports := w.host.ports()
	ports.Power, ports.Agent, ports.Records, ports.Storage, ports.Snapshots = p, p, p, p, p
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
	if w.turns != nil {
		p.controller.queue.ShutDown()
		p.controller.queue = newQueue(newSimQueue(ctx, w.turns), timing.Default())
	}
	w.process = p
	w.log("a controller begins")
	go func() {
		defer close(p.ended)
		if err := p.controller.Run(ctx); err != nil {
			w.log("the controller ended: %v", err)
		}
	}()
	w.settle()
}

// end waits until a killed or cancelled controller is gone.
func (w *simWorld) end() {
	w.process.cancel()
	<-w.process.ended
}
