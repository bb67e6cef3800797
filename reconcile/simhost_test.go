package reconcile

import (
	"context"
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
// QEMU's do, to which the script in hosttest holds both; their guests take time,
// which a synctest bubble makes short.
type simHost struct {
	// turns orders the calls; nil lets all go on at once.
	turns *simTurns
	// itself is the context of what happens by itself.
	itself context.Context

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
	images       *simImages
	backups      *simBackups
	// slow ones answer, but take a while.
	slow map[string]bool
}

func newSimHost() *simHost {
	h := &simHost{
		itself:   named(context.Background(), "host"),
		machines: map[string]*simMachine{}, locks: map[string]chan struct{}{}, locked: map[string]bool{},
		fail: map[string]error{}, deaf: map[string]bool{}, deafQEMU: map[string]bool{}, silent: map[string]bool{}, hung: map[string]bool{}, slow: map[string]bool{},
		startTakes: 20 * time.Millisecond, powerOffTakes: 2 * time.Second, jobTakes: 3 * time.Second,
	}
	h.images, h.backups = newSimImages(h), newSimBackups()
	return h
}

func (h *simHost) ports() Ports {
	return Ports{Locker: h, Observer: h, Power: h, Agent: h, Records: h, Storage: h, Snapshots: h, Backups: h.backups, Images: h.images, Overlays: h}
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

// call waits for its turn, notes a call and returns the failure that was ordered for it.
func (h *simHost) call(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	h.turns.wait(ctx, text)
	h.mu.Lock()
	defer h.mu.Unlock()
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
	h.turns.wait(ctx, "lock "+name)
	h.mu.Lock()
	lock := h.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		h.locks[name] = lock
	}
	h.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	select {
	case lock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.turns.wait(ctx, "locked "+name)
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
	h.turns.wait(ctx, "observe "+name)
	if takes := h.answers(name); takes > 0 {
		after(ctx, min(takes, lookTakes))
		h.turns.wait(ctx, "observed "+name)
	}
	h.mu.Lock()
	m := h.machine(name)
	obs := m.obs
	obs.At = time.Now()
	obs.Files, obs.Snapshots = maps.Clone(obs.Files), maps.Clone(obs.Snapshots)
	if obs.Guest != nil {
		g := *obs.Guest
		g.Jobs, g.Disks = slices.Clone(g.Jobs), slices.Clone(g.Disks)
		g.Brief = depth == driver.DepthBrief
		obs.Guest = &g
	}
	for _, d := range vmDisks(vm) {
		if d.File != "" {
			obs.Files[d.Name] = driver.DiskFile{Path: d.File, Exists: true}
		}
	}
	if obs.Presence == driver.Alive {
		h.addressed(m, &obs)
	}
	after := h.observed
	h.mu.Unlock()
	if after != nil {
		after(name)
	}
	return obs
}

// answers is how long QEMU takes to answer a look.
func (h *simHost) answers(name string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machine(name)
	switch {
	case m.obs.Presence != driver.Alive:
		return 0
	case h.hung[name]:
		return lookTakes
	case m.saving() > 0:
		return m.saving()
	case h.slow[name]:
		return lookTakes / 4
	default:
		return 0
	}
}

// addressed leaves out of an observation what a QEMU that does not answer does not
// say. The host's mutex is held.
func (h *simHost) addressed(m *simMachine, obs *driver.Observed) {
	if l := obs.Launched; l != nil && l.Spec.Readiness == nil {
		obs.Ready = obs.Guest.RunState == runRunning
	}
	reason, message := driver.ReasonNoAnswer, "no answer"
	switch {
	case m.lost:
		reason, message = driver.ReasonSocketsLost, "its sockets are gone"
	case !h.hung[obs.Name] && !h.silent[obs.Name] && m.saving() == 0:
		return
	}
	obs.Guest, obs.Ready, obs.Presence, obs.Reason, obs.Message = nil, false, driver.Unresponsive, reason, message
}

func vmDisks(vm *manifest.VirtualMachine) []manifest.Disk {
	if vm == nil {
		return nil
	}
	return vm.Spec.Disks
}

func (h *simHost) Await(ctx context.Context, name string, _ *manifest.VirtualMachine, what driver.Awaited) error {
	h.turns.wait(ctx, "await "+name)
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
