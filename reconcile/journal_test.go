package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// memJournal keeps what one call after the other appends.
type memJournal struct {
	mu      sync.Mutex
	batches [][]state.Event
	err     error
}

func (j *memJournal) Append(_ context.Context, events ...state.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.batches = append(j.batches, slices.Clone(events))
	return j.err
}

// take returns the batches so far as "Type Reason, Type Reason", and forgets them.
func (j *memJournal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for _, batch := range j.batches {
		var words []string
		for _, ev := range batch {
			word := ev.Reason
			if ev.Type == state.EventWarning {
				word = "!" + word
			}
			words = append(words, word)
		}
		out = append(out, strings.Join(words, " "))
	}
	j.batches = nil
	return out
}

// messages are those of the events with a reason.
func (j *memJournal) messages(reason string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for _, ev := range slices.Concat(j.batches...) {
		if ev.Reason == reason {
			out = append(out, ev.Message)
		}
	}
	return out
}

// journalled gives the world's engine a journal.
func (w *world) journalled() *memJournal {
	j := &memJournal{}
	w.engine.cfg.Journal = j
	return j
}

func (j *memJournal) expect(tb testing.TB, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, j.take()); diff != "" {
		tb.Errorf("journal (-want +got):\n%s", diff)
	}
}

func TestJournal_applyTwice_writesOncePerMachineAndThenNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("web"))
		if got := j.messages(state.EventStarted); len(got) != 1 || !strings.Contains(got[0], "pid 4711") {
			t.Errorf("started: %q", got)
		}
		for _, ev := range slices.Concat(j.batches...) {
			if ev.Machine != "web" || ev.Who != "test" || ev.Generation != 1 || ev.Time.IsZero() || ev.Message == "" {
				t.Errorf("event: %+v", ev)
			}
		}
		j.expect(t, "Created IdentityWritten DiskCreated Started Ready")
		w.apply(ApplyOptions{Wait: true}, newVM("web"))
		j.expect(t)
		w.apply(ApplyOptions{}, newVM("web", func(s *manifest.VirtualMachineSpec) { s.Memory.Size = 1 << 30 }))
		if got := j.messages(state.EventConfigured); len(got) != 1 || !strings.Contains(got[0], "spec.memory.size") {
			t.Errorf("configured: %q", got)
		}
		j.expect(t, "Configured RestartRequired")
	})
}

func TestJournal_slowGuest_isWrittenBeforeWaitingForIt(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("web"))
		j.take()
		if _, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped, Why: "upgrade"}, Options{}); err != nil {
			t.Fatal(err)
		}
		if got := j.messages(state.EventHeld); len(got) != 1 || !strings.Contains(got[0], "held Stopped by test: upgrade") {
			t.Errorf("held: %q", got)
		}
		j.expect(t, "Held PoweringOff", "Stopped")
		if _, err := w.engine.Release(w.Context(), "web", Options{}); err != nil {
			t.Fatal(err)
		}
		j.expect(t, "Released Started Ready")
		if _, err := w.engine.Release(w.Context(), "web", Options{}); err != nil {
			t.Fatal(err)
		}
		j.expect(t)
	})
}

func TestJournal_changedSpec_endsTheHold(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.Hold(w.Context(), "web", state.Hold{Why: "hands off"}, Options{}); err != nil {
			t.Fatal(err)
		}
		j.take()
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		if got := j.messages(state.EventHoldEnded); len(got) != 1 || !strings.Contains(got[0], "hands off") {
			t.Errorf("hold ended: %q", got)
		}
		j.expect(t, "Configured HoldEnded PoweringOff", "Stopped")
	})
}

func TestJournal_crash_tellsCauseAndLastWords(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("web"))
		j.take()
		w.host.touch("web", func(m *simMachine) {
			m.end(driver.EndCrash)
			m.obs.Ended.LastLine, m.obs.Ended.Exit = "qemu: out of luck", "signal 6"
		})
		w.apply(ApplyOptions{}, newVM("web"))
		got := j.messages(state.EventCrash)
		if len(got) != 1 || !strings.Contains(got[0], "qemu: out of luck") || !strings.HasSuffix(got[0], "; signal 6") {
			t.Errorf("crash: %q", got)
		}
		j.expect(t, "!Crash Started Ready")
	})
}

func TestJournal_failedStep_isAWarning(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.host.fail["web start"] = errors.New("no such property")
		w.apply(ApplyOptions{}, newVM("web"))
		if got := j.messages(state.EventStepFailed); len(got) != 1 || !strings.Contains(got[0], "no such property") {
			t.Errorf("failed: %q", got)
		}
		j.expect(t, "Created IdentityWritten DiskCreated !StepFailed")
	})
}

func TestJournal_problem_isNewsOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("web"))
		j.take()
		w.host.silent["web"] = true
		for range 3 {
			w.apply(ApplyOptions{}, newVM("web"))
		}
		j.expect(t, "!"+driver.ReasonNoAnswer)
		w.host.silent["web"] = false
		w.apply(ApplyOptions{}, newVM("web"))
		j.expect(t, state.EventReady)
		w.host.silent["web"] = true
		w.apply(ApplyOptions{}, newVM("web"))
		j.expect(t, "!"+driver.ReasonNoAnswer)
	})
}

func TestJournal_probe_tellsReadyAndTooLate(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.host.readyTakes = time.Second
		w.apply(ApplyOptions{Wait: true}, newVM("a", probed))
		j.expect(t, "Created IdentityWritten DiskCreated Started", "Ready")
		w.host.readyTakes = time.Hour
		w.apply(ApplyOptions{Wait: true}, newVM("a", probed), newVM("b", probed))
		j.expect(t, "Created IdentityWritten DiskCreated Started", "!NotReady")
	})
}

func TestJournal_pruneAndDelete_tellWhatBecameOfIt(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("a", stopped()), newVM("b", stopped()))
		j.take()
		w.apply(ApplyOptions{Prune: true}, newVM("a", stopped()))
		if got := j.messages(state.EventDeleted); len(got) != 1 || !strings.Contains(got[0], "/kept/b") {
			t.Errorf("deleted: %q", got)
		}
		j.expect(t, "Pruned Deleted")
		w.apply(ApplyOptions{}, newVM("a"))
		j.take()
		if _, err := w.engine.Delete(w.Context(), "a", DeleteOptions{DeleteDisks: true}); err != nil {
			t.Fatal(err)
		}
		j.expect(t, "Deleting PoweringOff", "Stopped Deleted")
	})
}

func TestJournal_snapshots_areToldWithTheirMachine(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.apply(ApplyOptions{}, newVM("web"))
		j.take()
		w.host.jobTakes = 3 * lookTakes
		w.apply(ApplyOptions{}, newVM("web"), &newSnap("s1", "web", manifest.SnapshotFull).Object)
		if got := j.messages(state.EventCreated); len(got) != 1 || !strings.Contains(got[0], "snapshot s1") {
			t.Errorf("created: %q", got)
		}
		j.expect(t, "Created SavingSnapshot", "SnapshotTaken Ready")
		if _, err := w.engine.DeleteSnapshot(w.Context(), "web", "s1", Options{}); err != nil {
			t.Fatal(err)
		}
		j.expect(t, "SnapshotDeleted SnapshotForgotten")
	})
}

func TestJournal_cannotBeWritten_failsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.journalled().err = errors.New("no space left on device")
		if report := w.apply(ApplyOptions{}, newVM("web")); report.Failed || phases(report)["web"] != PhaseRunning {
			t.Errorf("report: %+v", report)
		}
	})
}

func TestJournal_interruptedStep_isNoFailure(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		ctx, cancel := context.WithCancel(w.Context())
		w.host.cutOff = cancel
		if _, err := w.engine.Apply(ctx, setOf(newVM("web")), ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := j.messages(state.EventStepFailed); len(got) > 0 {
			t.Errorf("failed: %q", got)
		}
	})
}

func TestEvent_everyStepKind_hasAReasonOfItsOwn(t *testing.T) {
	known := state.Reasons()
	for _, kind := range []StepKind{
		StepRecordEnd, StepIdentity, StepCreateDisk, StepStart, StepAgentShutdown, StepPowerdown, StepQuit, StepKill, StepThaw, StepPause, StepResume,
		StepClearIntent, StepTakeSnapshot, StepFinishSnapshot, StepDeleteSnapshot, StepForget, StepForgetSnapshot, StepEndHold,
	} {
		if _, reason := (Step{Kind: kind}).event(nil); !slices.Contains(known, reason) {
			t.Errorf("%s has the reason %s, which is not in the list", kind, reason)
		}
	}
	for _, cause := range []driver.EndCause{
		driver.EndStopped, driver.EndGuest, driver.EndSignal, driver.EndCrash, driver.EndPanic, driver.EndWatchdog,
		driver.EndQuit, driver.EndHostReboot, driver.EndStartFailed,
	} {
		if _, reason := endEvent(&driver.Ended{Cause: cause}); !slices.Contains(known, reason) {
			t.Errorf("%s has the reason %s, which is not in the list", cause, reason)
		}
	}
}

// racedStore has somebody write just before each update, once.
type racedStore struct {
	Store
	first func()
}

func (s *racedStore) Update(ctx context.Context, do func(Tx) error) error {
	if first := s.first; first != nil {
		s.first = nil
		first()
	}
	return s.Store.Update(ctx, do)
}

func TestJournal_twoProcessesSeeTheSameNews_tellItOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.journalled()
		w.host.readyTakes = 20 * time.Second
		w.apply(ApplyOptions{}, newVM("web", probed))
		j.take()
		after(w.Context(), time.Minute)
		look := func(e *Engine) {
			if _, err := e.Converge(w.Context(), "web", Options{}); err != nil {
				t.Error(err)
			}
		}
		slow := w.newEngine()
		slow.cfg.Journal = j
		slow.cfg.Store = &racedStore{Store: w.store, first: func() { look(w.engine) }}
		look(slow)
		j.expect(t, "Ready")
	})
}
