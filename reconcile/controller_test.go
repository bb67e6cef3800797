package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// controlled runs a controller over files of one machine each, which run
// already when the test begins.
func controlled(t *testing.T, names []string, opt ApplyOptions, test func(w *simWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, 1)
		w.opt = opt
		w.opt.Owner = "/vms"
		for _, name := range names {
			w.put(name+".yaml", newVM(name))
		}
		w.begin()
		w.passes(5 * time.Second)
		test(w)
		w.people.Wait()
		w.end()
		for _, law := range w.broken {
			t.Errorf("a law does not hold: %s", law)
		}
	})
}

// passes lets time pass, and everything happen that is due then.
func (w *simWorld) passes(d time.Duration) {
	after(w.t.Context(), d)
	w.settle()
}

// told is what the controller told last of how it is.
func (w *simWorld) told() ControllerStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// put writes a file of one machine.
func (w *simWorld) put(file string, vm *manifest.VirtualMachine) {
	w.change(func() {
		w.files[file] = &simFile{vms: map[string]*manifest.VirtualMachine{vm.Metadata.Name: vm}, snaps: map[string]*manifest.Snapshot{}}
	})
}

// change changes the folder and tells of it.
func (w *simWorld) change(do func()) {
	w.mu.Lock()
	do()
	w.mu.Unlock()
	nudge(w.changes)
}

// runs tells which machines run, by name, and what their guests do.
func (w *simWorld) runs() map[string]string {
	out := map[string]string{}
	for name, obs := range w.observations() {
		if obs.Presence == driver.Alive {
			out[name] = obs.Guest.RunState
		}
	}
	return out
}

func (w *simWorld) expectRuns(names ...string) {
	w.t.Helper()
	want := map[string]string{}
	for _, name := range names {
		want[name] = runRunning
	}
	if diff := cmp.Diff(want, w.runs()); diff != "" {
		w.t.Errorf("running (-want +got):\n%s", diff)
	}
}

func (w *simWorld) crash(name string, cause driver.EndCause) {
	w.host.touch(name, func(m *simMachine) { m.dies(cause) })
}

func (w *simWorld) count(call string) int {
	n := 0
	for _, c := range w.host.called() {
		if c == call {
			n++
		}
	}
	return n
}

func (w *simWorld) has(kind string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.status.Conditions, func(c state.Condition) bool { return c.Type == kind })
}

func TestController_brokenFile_keepsLastGoodAndTakesTheOthers(t *testing.T) {
	controlled(t, []string{"a", "b"}, ApplyOptions{Prune: true}, func(w *simWorld) {
		w.change(func() { w.files["a.yaml"].broken = true })
		w.put("c.yaml", newVM("c"))
		w.passes(10 * time.Second)
		w.expectRuns("a", "b", "c")
		m := w.records()["a"]
		if m.Invalid == nil || !strings.Contains(m.Invalid.Message, "does not parse") {
			t.Fatalf("a is not marked: %+v", m.Invalid)
		}
		since := m.Invalid.Since
		if !w.has(ConditionManifestsIncomplete) {
			t.Errorf("the controller does not say that the manifests are incomplete: %+v", w.told())
		}
		status := StatusOf(Desired{Machine: m}, w.host.obs("a"), Plan{}, time.Now())
		if !slices.ContainsFunc(status.Conditions, func(c state.Condition) bool { return c.Type == ConditionManifestInvalid }) {
			t.Errorf("no condition tells of it: %+v", status.Conditions)
		}
		w.crash("a", driver.EndCrash)
		w.passes(10 * time.Minute)
		w.expectRuns("a", "b", "c")
		if got := w.records()["a"].Invalid; got == nil || !got.Since.Equal(since) {
			t.Errorf("invalid since %+v, was %s", got, since)
		}
		w.change(func() { w.files["a.yaml"].broken = false })
		w.passes(time.Second)
		if m := w.records()["a"]; m.Invalid != nil || w.has(ConditionManifestsIncomplete) {
			t.Errorf("it is mended and still marked: %+v", m.Invalid)
		}
	})
}

func TestController_conflict_holdsOnlyTheObjectsInIt(t *testing.T) {
	controlled(t, []string{"a", "b"}, ApplyOptions{}, func(w *simWorld) {
		w.change(func() {
			w.files["z.yaml"] = &simFile{vms: map[string]*manifest.VirtualMachine{"a": newVM("a", stopped())}}
			w.files["a.yaml"].vms["a"] = newVM("a", stopped())
			w.files["b.yaml"].vms["b"] = newVM("b", stopped())
		})
		w.passes(10 * time.Second)
		w.expectRuns("a")
		if w.records()["a"].Invalid == nil || w.records()["b"].Invalid != nil {
			t.Errorf("a %+v, b %+v", w.records()["a"].Invalid, w.records()["b"].Invalid)
		}
		w.change(func() { delete(w.files, "z.yaml") })
		w.passes(10 * time.Second)
		w.expectRuns()
	})
}

func TestController_folderGone_deletesNothingAndSupervises(t *testing.T) {
	controlled(t, []string{"a", "b"}, ApplyOptions{Prune: true, PruneAll: true}, func(w *simWorld) {
		w.change(func() { w.gone = true })
		w.passes(time.Minute)
		w.crash("a", driver.EndCrash)
		w.passes(time.Hour)
		w.expectRuns("a", "b")
		if m := w.records()["a"]; m.Invalid == nil || m.Undeclared {
			t.Errorf("a: invalid %+v, undeclared %v", m.Invalid, m.Undeclared)
		}
	})
}

func TestController_absence_countsOnlyWhenItLastsAndIsAllowed(t *testing.T) {
	gone := func(w *simWorld, files ...string) {
		w.change(func() {
			for _, f := range files {
				delete(w.files, f)
			}
		})
	}
	tests := []struct {
		name  string
		opt   ApplyOptions
		do    func(w *simWorld)
		left  []string
		guard bool
	}{
		{"one is gone", ApplyOptions{Prune: true}, func(w *simWorld) { gone(w, "a.yaml") }, []string{"b"}, false},
		{"prune is not allowed", ApplyOptions{}, func(w *simWorld) { gone(w, "a.yaml") }, []string{"a", "b"}, false},
		{"all are gone", ApplyOptions{Prune: true}, func(w *simWorld) { gone(w, "a.yaml", "b.yaml") }, []string{"a", "b"}, true},
		{"all are gone, which may be", ApplyOptions{Prune: true, PruneAll: true}, func(w *simWorld) { gone(w, "a.yaml", "b.yaml") }, nil, false},
		{"more than may be", ApplyOptions{Prune: true, PruneAll: true, MaxDeletions: 1}, func(w *simWorld) { gone(w, "a.yaml", "b.yaml") }, []string{"a", "b"}, true},
		{"another file is broken", ApplyOptions{Prune: true}, func(w *simWorld) {
			w.change(func() { w.files["b.yaml"].broken = true })
			gone(w, "a.yaml")
		}, []string{"a", "b"}, false},
		{"it comes back soon", ApplyOptions{Prune: true}, func(w *simWorld) {
			gone(w, "a.yaml")
			w.passes(1900 * time.Millisecond)
			w.put("renamed.yaml", newVM("a"))
		}, []string{"a", "b"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			controlled(t, []string{"a", "b"}, tt.opt, func(w *simWorld) {
				tt.do(w)
				w.passes(time.Minute)
				w.expectRuns(tt.left...)
				if got := w.has(ConditionPruneRefused); got != tt.guard {
					t.Errorf("refused to prune: %v, want %v", got, tt.guard)
				}
				for _, name := range []string{"a", "b"} {
					if kept := w.count(name+" forget true") == 0; !kept {
						t.Errorf("the disks of %s are deleted", name)
					}
				}
			})
		})
	}
}

func TestController_appliedByHand_isSupervisedToo(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{Prune: true, PruneAll: true}, func(w *simWorld) {
		set := setOf(newVM("hand"))
		set.Roots = []string{"/home/ann"}
		if _, err := w.cli().Apply(w.t.Context(), set, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		w.process.controller.LookAgain()
		w.passes(time.Second)
		for range 3 {
			w.crash("hand", driver.EndCrash)
			w.passes(10 * time.Second)
		}
		w.expectRuns("a", "hand")
		if n := w.count("hand start"); n != 4 {
			t.Errorf("started %d times, want 4", n)
		}
	})
}

func TestController_hand_isCorrectedAtOnceWhereThatIsSafe(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		set := func(s string) { w.host.touch("a", func(m *simMachine) { m.obs.Guest.RunState = s }) }
		set(runPaused)
		w.passes(between)
		w.expectRuns("a")
		w.crash("a", driver.EndQuit)
		w.passes(between)
		w.expectRuns("a")
		for _, s := range []string{runIOError, runGuestPanicked, runInternalError} {
			set(s)
			w.passes(time.Hour)
			if got := w.runs()["a"]; got != s {
				t.Errorf("a guest that is %s was made %s", s, got)
			}
		}
	})
}

func TestController_crashLoop_backsOffAndIsForgivenLater(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			w.crash("a", driver.EndCrash)
			w.passes(wait - time.Millisecond)
			w.expectRuns()
			if got := w.told().Phases[PhaseCrashLoopBackOff]; got != 1 {
				t.Errorf("failure %d: %+v", i+1, w.told().Phases)
			}
			w.passes(100 * time.Millisecond)
			w.expectRuns("a")
		}
		if m := w.records()["a"]; m.Failures != 3 {
			t.Errorf("%d failures", m.Failures)
		}
		w.passes(10 * time.Minute)
		if m := w.records()["a"]; m.Failures != 0 {
			t.Errorf("%d failures after 10 min of health", m.Failures)
		}
	})
}

// TestController_startRefused_backsOff is a QEMU that does not come up: nothing is
// left of it, and the next try waits all the same.
func TestController_startRefused_backsOff(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		refused := &driver.StartError{Exit: "exit status 1", LastLine: "no such property"}
		w.host.set(func() {
			w.host.fail["a start"] = &driver.LifecycleError{VM: "a", Op: "start", Refused: true, Err: refused}
		})
		w.put("a.yaml", newVM("a"))
		w.passes(500 * time.Millisecond)
		for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if got := w.count("a start"); got != i+1 {
				t.Errorf("failure %d: started %d times", i+1, got)
			}
			if got := w.told().Phases[PhaseCrashLoopBackOff]; got != 1 {
				t.Errorf("failure %d: %+v", i+1, w.told().Phases)
			}
			m := w.records()["a"]
			if last := m.LastTermination; m.Failures != i+1 || last == nil || last.LastLine != "no such property" || last.Cause != driver.EndStartFailed {
				t.Errorf("failure %d: %d failures, %+v", i+1, m.Failures, last)
				return
			}
			w.passes(time.Until(m.NotBefore) - time.Millisecond)
			if got := w.count("a start"); got != i+1 {
				t.Errorf("failure %d: tried again before %s", i+1, wait)
			}
			if got := m.NotBefore.Sub(m.LastTermination.At); got != wait {
				t.Errorf("failure %d: waits %s, want %s", i+1, got, wait)
			}
			w.passes(200 * time.Millisecond)
		}
		w.host.set(func() { clear(w.host.fail) })
		w.passes(time.Minute)
		w.expectRuns("a")
	})
}

func TestController_completed_lastsOverRestarts(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		w.crash("a", driver.EndGuest)
		w.passes(time.Minute)
		w.end()
		w.boot++
		w.begin()
		w.passes(time.Hour)
		w.expectRuns()
		w.put("a.yaml", newVM("a", func(s *manifest.VirtualMachineSpec) { s.Memory.Size += 1 << 20 }))
		w.passes(time.Second)
		w.expectRuns("a")
	})
}

func TestController_hungMachines_delayNoOther(t *testing.T) {
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("hung%d", i))
	}
	controlled(t, append(names, "web"), ApplyOptions{}, func(w *simWorld) {
		w.host.set(func() {
			for _, name := range names {
				w.host.hung[name] = true
			}
		})
		w.process.controller.LookAgain()
		w.passes(100 * time.Millisecond)
		w.crash("web", driver.EndCrash)
		w.passes(1100 * time.Millisecond)
		if w.runs()["web"] != runRunning {
			t.Errorf("web waits for others that hang")
		}
		w.passes(time.Minute)
		if got := w.told().Phases[PhaseUnresponsive]; got != len(names) {
			t.Errorf("unresponsive: %d", got)
		}
	})
}

func TestController_manyStarts_areGatedAndNoneIsForgotten(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("vm%d", i))
	}
	controlled(t, names, ApplyOptions{}, func(w *simWorld) {
		w.expectRuns(names...)
		if w.host.mostStarting != defaultStarting {
			t.Errorf("%d started at once, want %d", w.host.mostStarting, defaultStarting)
		}
		w.passes(time.Second)
		if w.told().Machines != 40 || w.told().Ready != 40 || w.told().Phases[PhaseRunning] != 40 {
			t.Errorf("status: %+v", w.told())
		}
	})
}

func TestController_hold_isHonouredAndItsEndNoticed(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		until := time.Now().Add(30 * time.Second)
		if _, err := w.cli().Hold(w.t.Context(), "a", state.Hold{Until: until}, Options{}); err != nil {
			t.Fatal(err)
		}
		w.process.controller.Poke("a")
		w.crash("a", driver.EndCrash)
		w.passes(29 * time.Second)
		w.expectRuns()
		w.passes(3 * time.Second)
		w.expectRuns("a")
	})
}

func TestController_readiness_isNoticedWithoutHints(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		w.host.set(func() { w.host.readyTakes = 20 * time.Second })
		w.lossy.Store(true)
		w.put("a.yaml", newVM("a", probed))
		w.passes(10 * time.Second)
		if w.told().Ready != 0 || w.told().Phases[PhaseRunning] != 1 {
			t.Errorf("before: %+v", w.told())
		}
		w.passes(12 * time.Second)
		if w.told().Ready != 1 {
			t.Errorf("after: %+v", w.told())
		}
	})
}

func TestController_diskFull_supervisesFromMemoryAndWritesLater(t *testing.T) {
	controlled(t, []string{"a", "b"}, ApplyOptions{}, func(w *simWorld) {
		w.disk.setFail(errors.New("no space left on device"))
		w.crash("a", driver.EndCrash)
		w.crash("b", driver.EndGuest)
		w.put("c.yaml", newVM("c"))
		w.passes(10 * time.Minute)
		w.expectRuns("a")
		if !w.has(ConditionStateNotWritten) || w.told().Phases[PhaseCompleted] != 1 {
			t.Errorf("status: %+v", w.told())
		}
		if m := w.records()["a"]; m.Starts != 1 {
			t.Errorf("something was written: %+v", m)
		}
		w.disk.setFail(nil)
		w.passes(2 * time.Minute)
		w.expectRuns("a", "c")
		a, b := w.records()["a"], w.records()["b"]
		if a.Starts != 2 || b.LastTermination == nil || b.LastTermination.Cause != driver.EndGuest || w.has(ConditionStateNotWritten) {
			t.Errorf("a %+v, b %+v, status %+v", a, b, w.told())
		}
	})
}

func TestController_loadFails_supervisesAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, 1)
		w.put("a.yaml", newVM("a"))
		loads := 0
		p := &simProcess{simHost: w.host, w: w, left: -1}
		engine := NewEngine(Config{Ports: w.host.ports(), Store: w.disk, Who: "watch", BootID: "boot-0"})
		p.controller = NewController(ControllerConfig{
			Engine: engine, Watcher: p, Options: w.opt,
			Load: func(ctx context.Context) (*manifest.Set, error) {
				if loads++; loads < 4 {
					return nil, errors.New("too many open files")
				}
				return w.load(ctx)
			},
		})
		ctx, cancel := context.WithCancel(w.t.Context())
		done := make(chan error)
		go func() { done <- p.controller.Run(ctx) }()
		w.passes(6 * time.Second)
		w.expectRuns()
		w.passes(2 * time.Second)
		w.expectRuns("a")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestController_gone_isMadeAgainWhenStillDeclared(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		uid := w.records()["a"].UID
		if _, err := w.cli().Delete(w.t.Context(), "a", DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.process.controller.Poke("a")
		w.passes(10 * time.Second)
		w.expectRuns("a")
		if m := w.records()["a"]; m == nil || m.Starts != 1 || uid == "" {
			t.Errorf("record: %+v", m)
		}
	})
}

func TestController_stepFails_isTriedAgainLaterEachTime(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		w.host.set(func() { w.host.fail["a create root"] = errors.New("permission denied") })
		w.put("a.yaml", newVM("a"))
		for i, at := range []time.Duration{0, 1, 2, 4, 8} {
			w.passes(at*time.Second + 50*time.Millisecond)
			if n := w.count("a create root"); n != i+1 {
				t.Fatalf("%d tries, want %d", n, i+1)
			}
		}
		w.host.set(func() { clear(w.host.fail) })
		w.passes(20 * time.Second)
		w.expectRuns("a")
	})
}
