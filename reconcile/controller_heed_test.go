package reconcile

import (
	"context"
	"errors"
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

// tellingStore is a store that many processes share, and that tells of each commit.
type tellingStore struct {
	*memStore
	told chan struct{}
	// unreadable makes reading fail.
	unreadable atomic.Bool
}

func (s *tellingStore) View(ctx context.Context, do func(Tx) error) error {
	if s.unreadable.Load() {
		return errors.New("input/output error")
	}
	return s.memStore.View(ctx, do)
}

func (s *tellingStore) Update(ctx context.Context, do func(Tx) error) error {
	err := s.memStore.Update(ctx, do)
	if err == nil {
		nudge(s.told)
	}
	return err
}

// countingWatcher counts how many listen to one machine at once.
type countingWatcher struct {
	Watcher
	mu        sync.Mutex
	now, most map[string]int
}

func (w *countingWatcher) Watch(ctx context.Context, name string, hint func(driver.Hint)) error {
	w.count(name, 1)
	defer w.count(name, -1)
	return w.Watcher.Watch(ctx, name, hint)
}

func (w *countingWatcher) count(name string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now[name] += n
	w.most[name] = max(w.most[name], w.now[name])
}

// heeding is a controller that is told of what is written, and a person beside it.
type heeding struct {
	*simWorld
	store  *tellingStore
	person *Engine
	// listeners are those of the controller.
	listeners *countingWatcher
	// looks counts looks of anybody at any machine.
	looks atomic.Int64
}

// heeded runs a controller of machine a, without any resync that would help it.
func heeded(t *testing.T, test func(h *heeding)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &heeding{simWorld: newSimWorld(t, 1)}
		h.host.observed = func(string) { h.looks.Add(1) }
		h.put("a.yaml", newVM("a"))
		h.store = &tellingStore{memStore: h.disk, told: make(chan struct{}, 1)}
		engine := func(who string, ports Ports) *Engine {
			return NewEngine(Config{Ports: ports, Store: h.store, Timing: timing.Default(), Who: who, BootID: h.bootID()})
		}
		h.person = engine("ann", h.host.ports())
		ctx, cancel := context.WithCancel(t.Context())
		p := &simProcess{simHost: h.host, w: h.simWorld, left: -1, cancel: cancel}
		ports := h.host.ports()
		ports.Power = p // Which notes what the controller does.
		h.listeners = &countingWatcher{Watcher: p, now: map[string]int{}, most: map[string]int{}}
		p.controller = NewController(ControllerConfig{
			Engine: engine("watch", ports), Load: h.load, Changes: h.changes, Watcher: h.listeners, Options: ApplyOptions{Owner: "/vms"},
			Records: h.store.told, Resync: 1000 * time.Hour,
		})
		h.process = p
		ended := make(chan error, 1)
		go func() { ended <- p.controller.Run(ctx) }()
		h.passes(5 * time.Second)
		test(h)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (h *heeding) apply(vm *manifest.VirtualMachine) {
	h.t.Helper()
	set := setOf(vm)
	set.Roots = []string{"/home/ann"}
	if _, err := h.person.Apply(h.t.Context(), set, ApplyOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *heeding) must(_ Result, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestController_appliedBesideIt_isSupervisedAtOnce(t *testing.T) {
	heeded(t, func(h *heeding) {
		h.apply(newVM("hand"))
		h.passes(time.Second)
		for range 2 {
			h.crash("hand", driver.EndCrash)
			h.passes(5 * time.Second)
			h.expectRuns("a", "hand")
		}
	})
}

func TestController_startedBesideIt_isSupervisedAtOnce(t *testing.T) {
	heeded(t, func(h *heeding) {
		h.crash("a", driver.EndGuest)
		h.passes(time.Minute)
		h.must(h.person.SetPower(h.t.Context(), "a", PowerRequest{PowerState: manifest.PowerRunning}, Options{}))
		h.expectRuns("a")
		h.passes(time.Second)
		h.crash("a", driver.EndCrash)
		h.passes(5 * time.Second)
		h.expectRuns("a")
	})
}

func TestController_releasedBesideIt_isSupervisedAtOnce(t *testing.T) {
	heeded(t, func(h *heeding) {
		h.must(h.person.Hold(h.t.Context(), "a", state.Hold{}, Options{}))
		h.crash("a", driver.EndCrash)
		h.passes(time.Hour)
		h.expectRuns()
		// Whoever released it was killed before anything else.
		if _, err := h.person.change(h.t.Context(), "release", "a", func(m *state.Machine) error { m.Hold = nil; return nil }); err != nil {
			h.t.Fatal(err)
		}
		h.passes(time.Second)
		h.expectRuns("a")
	})
}

func TestController_stoppedBesideIt_isSeenThroughWhenTheCommandIsGone(t *testing.T) {
	heeded(t, func(h *heeding) {
		h.lossy.Store(true)
		h.host.set(func() { h.host.deaf["a"] = true })
		h.must(h.person.SetPower(h.t.Context(), "a", PowerRequest{PowerState: manifest.PowerStopped}, Options{NoWait: true}))
		h.passes(2 * time.Minute)
		h.expectRuns()
	})
}

func TestController_personWhoActs_isGivenTheFirstGo(t *testing.T) {
	heeded(t, func(h *heeding) {
		h.apply(newVM("hand"))
		h.passes(time.Minute)
		// A look takes a while, as it does, so both would be about to act.
		h.host.set(func() { h.host.observed = func(string) { after(h.t.Context(), 20*time.Millisecond) } })
		h.must(h.person.SetPower(h.t.Context(), "hand", PowerRequest{PowerState: manifest.PowerStopped}, Options{}))
		h.passes(time.Minute)
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, line := range h.trail {
			if strings.HasSuffix(line, " hand") {
				h.t.Errorf("the controller was faster than the person: %s", line)
			}
		}
	})
}

func TestController_itsOwnWrites_keepItBusyOnlyOnce(t *testing.T) {
	heeded(t, func(h *heeding) {
		h.apply(newVM("hand"))
		h.crash("a", driver.EndCrash)
		h.passes(time.Minute)
		h.expectRuns("a", "hand")
		before, written := h.looks.Load(), h.disk.written()
		h.passes(9 * time.Minute)
		if n := h.looks.Load() - before; n > 2 || h.disk.written() != written {
			h.t.Errorf("%d looks and %d writes while nothing happened", n, h.disk.written()-written)
		}
		h.passes(10 * time.Minute) // One look forgives the crash, and writes that down.
		if n := h.looks.Load() - before; n > 6 {
			h.t.Errorf("%d looks while nothing happened but the end of a backoff", n)
		}
	})
}

func TestController_recordsUnreadable_areReadAgain(t *testing.T) {
	heeded(t, func(h *heeding) {
		set := setOf(newVM("hand"))
		set.Roots = []string{"/home/ann"}
		if _, err := h.person.admit(h.t.Context(), set, ApplyOptions{}); err != nil {
			h.t.Fatal(err)
		}
		h.store.unreadable.Store(true)
		h.passes(time.Minute)
		h.expectRuns("a")
		h.store.unreadable.Store(false)
		h.passes(10 * time.Second)
		h.expectRuns("a", "hand")
	})
}

func TestController_recordsLost_listensOnceToWhatStillRuns(t *testing.T) {
	heeded(t, func(h *heeding) {
		writes(h.t, h.store, func(tx Tx) error { return tx.DeleteMachine("a") })
		h.passes(time.Minute)
		h.expectRuns("a")
		if m := h.records()["a"]; m == nil || h.count("a start") != 1 {
			h.t.Errorf("started %d times, record %+v", h.count("a start"), m)
		}
		h.listeners.mu.Lock()
		defer h.listeners.mu.Unlock()
		if now, most := h.listeners.now["a"], h.listeners.most["a"]; now != 1 || most != 1 {
			h.t.Errorf("%d listeners, at most %d at once", now, most)
		}
	})
}
