package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// world is an engine on a simulated host.
type world struct {
	*testing.T
	host   *simHost
	store  *memStore
	engine *Engine
	mu     sync.Mutex
	events []Event
}

// inWorld runs a test in a bubble of its own time.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, host: newSimHost(), store: newMemStore()}
		w.engine = w.newEngine()
		test(w)
		if w.host.waitedLocked {
			t.Errorf("somebody waited for a guest while holding its lock")
		}
	})
}

// newEngine is another process on the same host.
func (w *world) newEngine() *Engine {
	return NewEngine(Config{
		Ports: w.host.ports(), Store: w.store, Timing: timing.Default(), Who: "test", BootID: "boot-1",
		Report: func(ev Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, ev)
		},
	})
}

func setOf(objects ...any) *manifest.Set {
	set := &manifest.Set{Roots: []string{"/srv/vms"}, Complete: true}
	for _, o := range objects {
		one, err := manifest.NewObject(o)
		if err != nil {
			panic(err)
		}
		set.Objects = append(set.Objects, one)
	}
	slices.SortFunc(set.Objects, func(a, b *manifest.Object) int {
		return strings.Compare(order(a), order(b))
	})
	return set
}

func order(o *manifest.Object) string {
	if o.VM != nil {
		return "0" + o.VM.Metadata.Name
	}
	if o.Snapshot != nil {
		return "1" + o.Snapshot.Metadata.Name
	}
	return "2" + o.Image.Metadata.Name
}

func (w *world) apply(opt ApplyOptions, objects ...any) Report {
	w.Helper()
	report, err := w.engine.Apply(w.Context(), setOf(objects...), opt)
	if err != nil {
		w.Fatalf("apply: %v", err)
	}
	return report
}

// phases are the phases that a report ends with, by machine.
func phases(r Report) map[string]Phase {
	out := map[string]Phase{}
	for _, one := range r.Results {
		out[one.Machine] = one.Status.Phase
	}
	return out
}

func (w *world) record(name string) *state.Machine {
	w.Helper()
	want, err := w.engine.desired(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	return want.Machine
}

func (w *world) expectCalls(want ...string) {
	w.Helper()
	if diff := cmp.Diff(want, w.host.called()); diff != "" {
		w.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestApply_newMachine_isStartedAndRemembered(t *testing.T) {
	inWorld(t, func(w *world) {
		report := w.apply(ApplyOptions{}, newVM("web"))
		w.expectCalls("web create root", "web start")
		if diff := cmp.Diff(map[string]Phase{"web": PhaseRunning}, phases(report)); diff != "" {
			t.Error(diff)
		}
		if report.Failed || report.Pending || len(report.NotDone) > 0 {
			t.Errorf("report: %+v", report)
		}
		m := w.record("web")
		if m.UID == "" || m.Starts != 1 || m.Restarts != 0 || m.StartedGeneration != 1 || m.Owner != "/srv/vms" || len(m.Conditions) == 0 {
			t.Errorf("record: %+v", m)
		}
		for _, kind := range []StepKind{StepIdentity, StepCreateDisk, StepStart} {
			if !slices.ContainsFunc(w.events, func(ev Event) bool { return ev.Step == string(kind) && ev.Done }) {
				t.Errorf("no event says that %s is done", kind)
			}
		}
	})
}

func TestApply_twice_doesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		objects := []any{newVM("a", rich), newVM("b", power(manifest.PowerPaused)), newVM("c", stopped())}
		w.host.readyTakes = time.Second
		w.apply(ApplyOptions{Wait: true}, objects...)
		calls, updates := len(w.host.calls), w.store.updates
		report := w.apply(ApplyOptions{Wait: true}, objects...)
		if len(w.host.calls) != calls || w.store.updates != updates {
			t.Errorf("the second apply did %v and wrote %d times", w.host.calls[calls:], w.store.updates-updates)
		}
		for _, o := range report.Objects {
			if o.Action != ActionUnchanged {
				t.Errorf("%s is %s", o.Object, o.Action)
			}
		}
		for _, r := range report.Results {
			if !r.Plan.Empty() || len(r.Steps) > 0 {
				t.Errorf("%s: %s %v", r.Machine, summary(r.Plan), r.Plan.Changes)
			}
		}
	})
}

func TestApply_stopped_asksTheGuestAndWaitsUnlocked(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		began := time.Now()
		report := w.apply(ApplyOptions{}, newVM("web", stopped()))
		w.expectCalls("web create root", "web start", "web powerdown")
		if took := time.Since(began); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("it took %s; the guest takes 2s to power off", took)
		}
		if p := phases(report)["web"]; p != PhaseStopped {
			t.Errorf("phase %s", p)
		}
		if m := w.record("web"); m.LastTermination == nil || m.LastTermination.Cause != driver.EndStopped || m.Generation != 2 {
			t.Errorf("record: %+v", m)
		}
	})
}

func TestApply_deafGuest_isQuitThenKilled(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.deaf["web"], w.host.deafQEMU["web"] = true, true
		began := time.Now()
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		w.expectCalls("web create root", "web start", "web powerdown", "web quit", "web kill")
		if took := time.Since(began); took < 70*time.Second || took > 71*time.Second {
			t.Errorf("it took %s, want 60s for the guest and 10s for QEMU", took)
		}
	})
}

func TestApply_stopByAgent_eachWayIsTriedAndTold(t *testing.T) {
	both := withAgent(manifest.ShutdownGuestAgent, manifest.ShutdownACPI)
	for _, c := range []struct {
		name  string
		touch func(h *simHost)
		calls []string
		says  []string
		takes time.Duration
	}{
		{"the agent ends the guest", nil, []string{"web agent-shutdown"}, []string{"asked the guest agent to power off"}, 2 * time.Second},
		{
			"the agent declines", func(h *simHost) { h.fail["web agent-shutdown"] = errors.New("it refuses") },
			[]string{"web agent-shutdown", "web powerdown"},
			[]string{"could not be asked to power off: it refuses", "asked the guest to power off: it refuses"},
			2 * time.Second,
		},
		{
			"the guest is deaf", func(h *simHost) { h.deaf["web"] = true },
			[]string{"web agent-shutdown", "web powerdown", "web quit"},
			[]string{"asked the guest agent to power off", "asked the guest to power off: the guest did not power off in time", "told QEMU to quit"},
			time.Minute,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.apply(ApplyOptions{}, newVM("web", both))
				w.host.touch("web", func(m *simMachine) { m.obs.Guest.Agent.Open = true })
				if c.touch != nil {
					c.touch(w.host)
				}
				began := time.Now()
				report := w.apply(ApplyOptions{}, newVM("web", both, stopped()))
				w.expectCalls(append([]string{"web create root", "web start"}, c.calls...)...)
				if took := time.Since(began); took < c.takes || took > c.takes+time.Second {
					t.Errorf("it took %s, want %s", took, c.takes)
				}
				var said []string
				for _, s := range report.Results[0].Steps {
					said = append(said, s.Message)
				}
				for i, want := range c.says {
					if i >= len(said) || !strings.Contains(said[i], want) {
						t.Errorf("said %q, want %q at %d", said, want, i)
					}
				}
			})
		})
	}
}

func TestApply_controllerDies_deadlineOfTheStopSurvives(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.deaf["web"] = true
		ctx, cancel := context.WithTimeout(w.Context(), 40*time.Second)
		defer cancel()
		report, err := w.engine.Apply(ctx, setOf(newVM("web", stopped())), ApplyOptions{})
		if err != nil || !report.Pending || !slices.Equal(report.NotDone, []string{"web"}) {
			t.Fatalf("report %+v, error %v", report, err)
		}
		if r := report.Results[0]; !errors.Is(r.Err, ErrTimedOut) || !strings.Contains(r.Err.Error(), "power off") {
			t.Errorf("error: %v", r.Err)
		}
		w.engine = w.newEngine()
		began := time.Now()
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		w.expectCalls("web create root", "web start", "web powerdown", "web quit")
		if took := time.Since(began); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("the second process waited %s, want what was left of the first one's 60s", took)
		}
	})
}

func TestApply_changeThatNeedsRestart_waitsForPermission(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		bigger := newVM("web", func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 })
		report := w.apply(ApplyOptions{}, bigger)
		if !report.Pending || report.Failed {
			t.Errorf("want pending: %+v", report)
		}
		w.expectCalls("web create root", "web start")
		if !slices.ContainsFunc(w.record("web").Conditions, func(c state.Condition) bool { return c.Type == ConditionRestartRequired }) {
			t.Errorf("the record lacks RestartRequired: %+v", w.record("web").Conditions)
		}
		report = w.apply(ApplyOptions{Options: Options{AllowRestart: true}}, bigger)
		w.expectCalls("web create root", "web start", "web powerdown", "web start")
		if report.Pending || phases(report)["web"] != PhaseRunning || w.host.obs("web").Guest.Memory != 1<<30 {
			t.Errorf("report: %+v", report)
		}
		if m := w.record("web"); m.Restarts != 1 || m.LastTermination == nil || !m.LastTermination.Superseded {
			t.Errorf("record: %+v", m)
		}
	})
}

func TestApply_fifty_startAtMostFourAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		var objects []any
		for i := range 50 {
			objects = append(objects, newVM("vm"+string(rune('a'+i/26))+string(rune('a'+i%26))))
		}
		report := w.apply(ApplyOptions{}, objects...)
		if w.host.mostStarting != 4 {
			t.Errorf("%d started at once, want 4", w.host.mostStarting)
		}
		if report.Failed || len(report.Results) != 50 {
			t.Errorf("failed %v, %d results", report.Failed, len(report.Results))
		}
	})
}

func TestApply_eightAtOnce_startEachMachineOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		var wg sync.WaitGroup
		for range 8 {
			engine := w.newEngine()
			wg.Go(func() {
				report, err := engine.Apply(w.Context(), setOf(newVM("a"), newVM("b"), newVM("c")), ApplyOptions{})
				if err != nil || report.Failed {
					t.Errorf("report %+v, error %v", report, err)
				}
			})
		}
		wg.Wait()
		got := w.host.called()
		slices.Sort(got)
		want := []string{"a create root", "a start", "b create root", "b start", "c create root", "c start"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

func TestApply_oneFails_othersGoOn(t *testing.T) {
	inWorld(t, func(w *world) {
		refused := &driver.LifecycleError{VM: "a", Op: "start", Refused: true, Err: errors.New("no such device"), Hint: "correct it"}
		w.host.fail["a start"] = refused
		report := w.apply(ApplyOptions{}, newVM("a"), newVM("b"))
		if !report.Failed || !report.Refused {
			t.Errorf("want failed and refused: %+v", report)
		}
		if diff := cmp.Diff(map[string]Phase{"a": PhasePending, "b": PhaseRunning}, phases(report)); diff != "" {
			t.Error(diff)
		}
		if err := report.Results[0].Err; !errors.Is(err, refused.Err) {
			t.Errorf("error: %v", err)
		}
		w.host.fail = map[string]error{}
		if report = w.apply(ApplyOptions{}, newVM("a"), newVM("b")); report.Failed {
			t.Errorf("once the cause is gone it starts: %v", report.Results[0].Err)
		}
	})
}

func TestApply_silentMachine_delaysNoOtherAndIsNotTouched(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("a"), newVM("b"))
		w.host.silent["a"] = true
		report := w.apply(ApplyOptions{}, newVM("a", stopped()), newVM("b", stopped()))
		if diff := cmp.Diff(map[string]Phase{"a": PhaseUnresponsive, "b": PhaseStopped}, phases(report)); diff != "" {
			t.Error(diff)
		}
		if slices.ContainsFunc(w.host.called(), func(c string) bool { return strings.HasPrefix(c, "a ") && c != "a create root" && c != "a start" }) {
			t.Errorf("calls: %v", w.host.called())
		}
		if !report.Failed {
			t.Errorf("a machine that does not answer is a failure: %+v", report)
		}
	})
}

func TestApply_cancelled_stopsBetweenSteps(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, cancel := context.WithCancel(w.Context())
		looks := 0
		w.host.observed = func(string) {
			// The first look is the plan's; then somebody presses Ctrl-C.
			if looks++; looks == 1 {
				cancel()
			}
		}
		report, err := w.engine.Apply(ctx, setOf(newVM("web")), ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !report.Interrupted || !slices.Equal(report.NotDone, []string{"web"}) || len(w.host.called()) != 0 {
			t.Errorf("report %+v, calls %v", report, w.host.called())
		}
		if e := report.Results[0].Err; !errors.Is(e, ErrInterrupted) || !strings.Contains(e.Error(), "start") {
			t.Errorf("the error does not say what was not done: %v", e)
		}
	})
}

func TestApply_cancelledDuringAStep_saysWhatWasAndWasNotDone(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, cancel := context.WithCancel(w.Context())
		w.host.cutOff = cancel
		report, err := w.engine.Apply(ctx, setOf(newVM("web")), ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r := report.Results[0]
		if !report.Interrupted || report.Failed || !errors.Is(r.Err, context.Canceled) || !strings.Contains(r.Err.Error(), "not done: create-disk root, start") {
			t.Errorf("report %+v, error %v", report, r.Err)
		}
		if len(r.Steps) != 2 || r.Steps[0].Err != nil || r.Steps[0].Message == "" || r.Steps[1].Err == nil {
			t.Errorf("steps: %+v", r.Steps)
		}
		w.host.cutOff = nil
		if report = w.apply(ApplyOptions{}, newVM("web")); report.Failed || phases(report)["web"] != PhaseRunning {
			t.Errorf("applying again goes on: %+v", report)
		}
	})
}

func TestApply_waitForACompletedMachine_isNotDegraded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.touch("web", func(m *simMachine) { m.end(driver.EndGuest) })
		if report := w.apply(ApplyOptions{Wait: true}, newVM("web")); report.Degraded || phases(report)["web"] != PhaseCompleted {
			t.Errorf("report: %+v", report)
		}
	})
}

func TestApply_startThatWasNotRecorded_isAdopted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.observed = func(string) {
			if slices.Contains(w.host.called(), "web start") {
				w.store.fail = errors.New("killed")
			}
		}
		if report := w.apply(ApplyOptions{}, newVM("web")); !report.Failed || w.record("web").Starts != 0 {
			t.Fatalf("report %+v, record %+v", report, w.record("web"))
		}
		w.host.observed, w.store.fail = nil, nil
		w.apply(ApplyOptions{}, newVM("web"))
		w.expectCalls("web create root", "web start")
		if m := w.record("web"); m.Starts != 1 || m.Restarts != 0 || m.StartedGeneration != 1 || m.UID == "" {
			t.Errorf("record: %+v", m)
		}
		// Without its record, too, a machine that runs is only looked at.
		w.store.machines = map[string][]byte{}
		if report := w.apply(ApplyOptions{}, newVM("web")); report.Failed || report.Pending || w.record("web").UID == "" {
			t.Errorf("report %+v, record %+v", report, w.record("web"))
		}
		w.expectCalls("web create root", "web start")
	})
}

func TestApply_stepThatIsNotObserved_isNoSuccess(t *testing.T) {
	inWorld(t, func(w *world) {
		looks := 0
		w.host.observed = func(name string) {
			if looks++; looks == 1 {
				// QEMU is gone the moment after it has answered.
				time.AfterFunc(w.host.startTakes, func() { w.host.ends(name, 0, driver.EndCrash) })
			}
		}
		w.host.startTakes = time.Second
		w.engine.cfg.Ports.Power = dyingPower{w.host}
		report := w.apply(ApplyOptions{}, newVM("web"))
		if err := report.Results[0].Err; !errors.Is(err, ErrNotConfirmed) || !report.Failed {
			t.Errorf("error: %v", err)
		}
	})
}

// dyingPower starts QEMUs that crash at once.
type dyingPower struct{ *simHost }

func (d dyingPower) Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error) {
	first, err := d.simHost.Start(ctx, req)
	if err != nil {
		return nil, err
	}
	d.touch(req.VM.Metadata.Name, func(m *simMachine) { m.end(driver.EndCrash) })
	return first, nil
}
