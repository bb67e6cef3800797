package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// simHost is a host in memory that implements all ports. Its machines behave as
// the model's do; their guests take time, which a synctest bubble makes short.
type simHost struct {
	mu       sync.Mutex
	machines map[string]*simMachine
	locks    map[string]chan struct{}
	// calls are what was asked of the host, such as "web start".
	calls []string
	// starting and mostStarting count starts at once.
	starting, mostStarting int
	// locked counts machines whose lock is held.
	locked map[string]bool
	// waitedLocked is set when somebody waited for a guest under its lock.
	waitedLocked bool
	// fail makes a call fail, such as "web start".
	fail map[string]error
	// observed is called after each look.
	observed func(name string)
	// startTakes and powerOffTakes are how long QEMU and a guest take.
	startTakes, powerOffTakes, jobTakes, readyTakes time.Duration
	// deaf are guests that hear no power button; deafQEMU does not quit either.
	deaf, deafQEMU map[string]bool
	// cutOff is called when a disk is being created, which then never ends by itself.
	cutOff func()
	// silent machines do not answer; hung ones take a look's whole time for it.
	silent, hung map[string]bool
	// slow ones answer, but take a while.
	slow map[string]bool
}

// simMachine is a machine of the host.
type simMachine struct {
	*model
	changed chan struct{}
}

func newSimHost() *simHost {
	return &simHost{
		machines: map[string]*simMachine{}, locks: map[string]chan struct{}{}, locked: map[string]bool{},
		fail: map[string]error{}, deaf: map[string]bool{}, deafQEMU: map[string]bool{}, silent: map[string]bool{}, hung: map[string]bool{}, slow: map[string]bool{},
		startTakes: 20 * time.Millisecond, powerOffTakes: 2 * time.Second, jobTakes: 3 * time.Second,
	}
}

func (h *simHost) ports() Ports {
	return Ports{Locker: h, Observer: h, Power: h, Agent: h, Records: h, Storage: h, Snapshots: h}
}

// machine is the machine of that name. The host's mutex is held.
func (h *simHost) machine(name string) *simMachine {
	m := h.machines[name]
	if m == nil {
		obs := driver.Observed{Name: name, Presence: driver.Absent, SnapshotsKnown: true}
		m = &simMachine{model: newModel(Desired{}, obs, time.Now(), "boot-1"), changed: make(chan struct{})}
		h.machines[name] = m
	}
	m.now = time.Now()
	return m
}

// touch does something to a machine and wakes whoever waits for it.
func (h *simHost) touch(name string, do func(*simMachine)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machine(name)
	do(m)
	close(m.changed)
	m.changed = make(chan struct{})
}

// call notes a call and returns the failure that was ordered for it.
func (h *simHost) call(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	h.calls = append(h.calls, text)
	return h.fail[text]
}

// called are the calls without those that concern records.
func (h *simHost) called() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.calls), func(c string) bool {
		return strings.HasSuffix(c, " identity") || strings.HasSuffix(c, " clear-run") || strings.Contains(c, " intent")
	})
}

func (h *simHost) obs(name string) driver.Observed {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.machine(name).obs
}

func (h *simHost) Lock(ctx context.Context, name string) (func(), error) {
	h.mu.Lock()
	lock := h.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		h.locks[name] = lock
	}
	h.mu.Unlock()
	select {
	case lock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.setLocked(name, true)
	return func() {
		h.setLocked(name, false)
		<-lock
	}, nil
}

func (h *simHost) setLocked(name string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.locked[name] = on
}

// lookTakes is how long a look at a hung QEMU takes.
const lookTakes = 8 * time.Second

func (h *simHost) Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed {
	h.mu.Lock()
	hung := h.hung[name] && h.machine(name).obs.Presence == driver.Alive
	slow := h.slow[name]
	h.mu.Unlock()
	switch {
	case hung:
		after(ctx, lookTakes)
	case slow:
		after(ctx, lookTakes/4)
	}
	h.mu.Lock()
	m := h.machine(name)
	obs := m.obs
	obs.At = time.Now()
	obs.Files, obs.Snapshots = maps.Clone(obs.Files), maps.Clone(obs.Snapshots)
	if obs.Guest != nil {
		g := *obs.Guest
		g.Jobs = slices.Clone(g.Jobs)
		g.Brief = depth == driver.DepthBrief
		obs.Guest = &g
	}
	for _, d := range vmDisks(vm) {
		if d.File != "" {
			obs.Files[d.Name] = driver.DiskFile{Path: d.File, Exists: true}
		}
	}
	if (hung || h.silent[name]) && obs.Presence == driver.Alive {
		obs.Guest, obs.Presence, obs.Reason, obs.Message = nil, driver.Unresponsive, driver.ReasonNoAnswer, "no answer"
	}
	after := h.observed
	h.mu.Unlock()
	if after != nil {
		after(name)
	}
	return obs
}

func vmDisks(vm *manifest.VirtualMachine) []manifest.Disk {
	if vm == nil {
		return nil
	}
	return vm.Spec.Disks
}

func (h *simHost) Await(ctx context.Context, name string, _ *manifest.VirtualMachine, what driver.Awaited) error {
	h.mu.Lock()
	h.waitedLocked = h.waitedLocked || h.locked[name]
	m := h.machine(name)
	changed := m.changed
	over := what.Exit && m.obs.Presence == driver.Absent
	h.mu.Unlock()
	if over {
		return nil
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *simHost) Start(ctx context.Context, req driver.StartRequest) error {
	name := req.VM.Metadata.Name
	if err := h.call("%s start", name); err != nil {
		h.touch(name, func(m *simMachine) {
			m.obs.Ended = &driver.Ended{Cause: driver.EndStartFailed, At: m.now, LastLine: err.Error()}
		})
		return err
	}
	h.mu.Lock()
	h.starting++
	h.mostStarting = max(h.mostStarting, h.starting)
	if h.machine(name).obs.Presence != driver.Absent {
		h.mu.Unlock()
		return errors.New("a second QEMU")
	}
	h.mu.Unlock()
	after(ctx, h.startTakes)
	h.touch(name, func(m *simMachine) {
		h.starting--
		m.want.Machine = &stateMachine{Object: *req.VM, Generation: req.Generation}
		m.start(req.Paused)
		m.obs.PID = 4711
		if req.VM.Spec.Readiness != nil && h.readyTakes > 0 {
			time.AfterFunc(h.readyTakes, func() { h.touch(name, func(m *simMachine) { m.obs.Ready = m.obs.Presence == driver.Alive }) })
		}
	})
	return nil
}

// after waits for a time or for ctx.
func after(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// ends ends a machine's process after a while.
func (h *simHost) ends(name string, in time.Duration, cause driver.EndCause) {
	time.AfterFunc(in, func() {
		h.touch(name, func(m *simMachine) {
			if m.obs.Presence == driver.Alive {
				m.end(cause)
			}
		})
	})
}

func (h *simHost) Powerdown(_ context.Context, name string) error {
	if err := h.call("%s powerdown", name); err != nil || h.deaf[name] {
		return err
	}
	h.ends(name, h.powerOffTakes, driver.EndStopped)
	return nil
}

// AgentShutdown ends a guest by its agent. One that is deaf takes the order and stays.
func (h *simHost) AgentShutdown(_ context.Context, name string) error {
	if err := h.call("%s agent-shutdown", name); err != nil || h.deaf[name] {
		return err
	}
	h.ends(name, h.powerOffTakes, driver.EndStopped)
	return nil
}

func (h *simHost) AskGuest(_ context.Context, name string) *driver.GuestInfo {
	if h.call("%s ask-guest", name) != nil {
		return nil
	}
	return &driver.GuestInfo{Hostname: name}
}

func (h *simHost) Thaw(_ context.Context, name string) error {
	if err := h.call("%s thaw", name); err != nil {
		h.touch(name, func(m *simMachine) {
			f := *m.obs.Freeze
			f.Failed = err.Error()
			m.obs.Freeze = &f
		})
		return err
	}
	h.touch(name, func(m *simMachine) { m.obs.Freeze = nil })
	return nil
}

func (h *simHost) FrozenMachines(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, m := range h.machines {
		if m.obs.Freeze != nil {
			names = append(names, name)
		}
	}
	return names, nil
}

// freeze marks a guest as frozen, by somebody who is there still or not.
func (h *simHost) freeze(name string, held bool) {
	h.touch(name, func(m *simMachine) {
		m.obs.Freeze = &driver.Freeze{UID: testUID, Since: m.now, Deadline: m.now.Add(time.Minute), Who: "snapshot (pid 7, root)", Held: held}
	})
}

func (h *simHost) Quit(_ context.Context, name string) error {
	if err := h.call("%s quit", name); err != nil || h.deafQEMU[name] {
		return err
	}
	h.ends(name, time.Millisecond, driver.EndStopped)
	return nil
}

func (h *simHost) Kill(_ context.Context, name string) error {
	h.ends(name, time.Millisecond, driver.EndStopped)
	return h.call("%s kill", name)
}

func (h *simHost) SetPaused(_ context.Context, name string, paused bool) error {
	err := h.call("%s paused %v", name, paused)
	h.touch(name, func(m *simMachine) {
		m.obs.Guest.RunState = runRunning
		if paused {
			m.obs.Guest.RunState = runPaused
		}
	})
	return err
}

func (h *simHost) EnsureIdentity(_ context.Context, vm *manifest.VirtualMachine) (driver.Identity, error) {
	name := vm.Metadata.Name
	err := h.call("%s identity", name)
	h.touch(name, func(m *simMachine) {
		m.want.Machine = &stateMachine{Object: *vm}
		m.identify()
	})
	return *h.obs(name).Identity, err
}

func (h *simHost) WriteIntent(_ context.Context, name string, in *driver.Intent) error {
	h.touch(name, func(m *simMachine) { m.obs.Intent = in })
	return h.call("%s intent", name)
}

func (h *simHost) ClearRun(_ context.Context, name string) error {
	h.touch(name, func(m *simMachine) { m.obs.Ended, m.obs.Launched, m.obs.Intent = nil, nil, nil })
	return h.call("%s clear-run", name)
}

func (h *simHost) Forget(_ context.Context, name string, deleteDisks bool) (string, error) {
	if err := h.call("%s forget %v", name, deleteDisks); err != nil {
		return "", err
	}
	h.touch(name, func(m *simMachine) { m.doHost(Step{Kind: StepForget}) })
	if deleteDisks {
		return "", nil
	}
	return "/kept/" + name, nil
}

func (h *simHost) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, disk string) error {
	name := vm.Metadata.Name
	if err := h.call("%s create %s", name, disk); err != nil {
		return err
	}
	if h.cutOff != nil {
		h.cutOff()
		<-ctx.Done()
		return ctx.Err()
	}
	h.touch(name, func(m *simMachine) {
		m.want.Machine = &stateMachine{Object: *vm}
		m.createDisk(disk)
	})
	return nil
}

func (h *simHost) TakeSnapshot(_ context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	if err := h.call("%s take %s %s", name, req.Tag, req.Method); err != nil {
		return err
	}
	online := obs.Presence == driver.Alive && req.Method == manifest.SnapshotFull
	h.touch(name, func(m *simMachine) {
		if !online {
			m.addSnapshot(req.Tag, 0)
			return
		}
		m.obs.Guest.Jobs = append(m.obs.Guest.Jobs, driver.Job{ID: req.Job, Type: "snapshot-save", Status: "running"})
	})
	if online {
		time.AfterFunc(h.jobTakes, func() {
			h.touch(name, func(m *simMachine) {
				if m.obs.Guest == nil {
					return
				}
				for i := range m.obs.Guest.Jobs {
					m.obs.Guest.Jobs[i].Status = "concluded"
				}
			})
		})
	}
	return nil
}

func (h *simHost) FinishSnapshot(_ context.Context, vm *manifest.VirtualMachine, _ driver.Observed, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	err := h.call("%s finish %s", name, req.Tag)
	h.touch(name, func(m *simMachine) {
		if m.obs.Guest != nil {
			m.obs.Guest.Jobs = nil
		}
		if _, exists := m.obs.Snapshots[req.Tag]; err == nil && !exists {
			m.addSnapshot(req.Tag, 1)
		}
	})
	return err
}

func (h *simHost) DeleteSnapshot(_ context.Context, vm *manifest.VirtualMachine, _ driver.Observed, tag string) error {
	name := vm.Metadata.Name
	h.touch(name, func(m *simMachine) { delete(m.obs.Snapshots, tag) })
	return h.call("%s delete-snapshot %s", name, tag)
}
