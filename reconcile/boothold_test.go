package reconcile

import (
	"errors"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// boots ends every process of the host and lets another boot begin.
func (w *world) boots(id string, names ...string) {
	w.Helper()
	for _, name := range names {
		w.host.touch(name, func(m *simMachine) {
			m.end(driver.EndHostReboot)
			m.obs.Ended, m.obs.Launched, m.obs.Intent = nil, nil, nil
		})
	}
	w.engine = NewEngine(Config{Ports: w.host.ports(), Store: w.store, Timing: timing.Default(), Who: "test", BootID: id})
}

// goesDown is what a host does to its machines before it ends.
func (w *world) goesDown(names ...string) {
	w.Helper()
	for _, name := range names {
		r, err := w.engine.SetPower(w.Context(), name, PowerRequest{PowerState: manifest.PowerStopped, UntilBoot: true}, Options{})
		w.settledAs(r, err, PhaseStopped)
	}
}

func TestSetPower_untilBoot_keepsTheMachineOffForThatBootOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.goesDown("web")
		if h := w.record("web").Hold; h == nil || h.Boot != "boot-1" || h.Under != nil || h.PowerState != manifest.PowerStopped {
			t.Fatalf("hold: %+v", h)
		}
		if report := w.apply(ApplyOptions{}, newVM("web")); !report.Pending || phases(report)["web"] != PhaseStopped {
			t.Errorf("apply while the host goes down must start nothing, and say so: %+v", report)
		}
		w.boots("boot-2", "web")
		if report := w.apply(ApplyOptions{}, newVM("web")); report.Pending || phases(report)["web"] != PhaseRunning {
			t.Errorf("apply after the boot: %+v", report)
		}
		if h := w.record("web").Hold; h != nil {
			t.Errorf("the hold of a boot that is over is left: %+v", h)
		}
	})
}

func TestSetPower_untilBoot_whatAPersonHeldStandsAfterTheBoot(t *testing.T) {
	inWorld(t, func(w *world) {
		off := newVM("off")
		off.Spec.PowerState = manifest.PowerStopped
		w.apply(ApplyOptions{}, newVM("stopped"), newVM("alone"), newVM("released"), newVM("late"), off)
		ask := func(name string, req PowerRequest) {
			t.Helper()
			if _, err := w.engine.SetPower(w.Context(), name, req, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		ask("stopped", PowerRequest{PowerState: manifest.PowerStopped, Why: "broken"})
		ask("off", PowerRequest{PowerState: manifest.PowerRunning, Why: "a visit"})
		ask("late", PowerRequest{PowerState: manifest.PowerPaused, Until: time.Now().Add(time.Minute)})
		if _, err := w.engine.Hold(w.Context(), "alone", state.Hold{Why: "hands off"}, Options{}); err != nil {
			t.Fatal(err)
		}
		names := []string{"stopped", "alone", "released", "late", "off"}
		w.goesDown(names...)
		// A second word of the same kind, as of a unit that is stopped twice, buries nothing.
		w.goesDown(names...)
		if r, err := w.engine.Release(w.Context(), "released", Options{}); err != nil || r.Status.Phase != PhaseRunning {
			t.Errorf("release during that boot: %s, %v", r.Status.Phase, err)
		}
		after(w.Context(), 2*time.Minute)
		w.boots("boot-2", names...)

		if h := w.record("stopped").Hold; h == nil || h.Why != "broken" || h.Boot != "" {
			t.Errorf("what a person stopped: %+v", h)
		}
		report := w.apply(ApplyOptions{}, newVM("stopped"), newVM("alone"), newVM("released"), newVM("late"), off)
		// Who left a machine alone said that nothing starts it either.
		want := map[string]Phase{"stopped": PhaseStopped, "off": PhaseRunning, "alone": PhasePending, "released": PhaseRunning, "late": PhaseRunning}
		got := phases(report)
		for name, phase := range want {
			if got[name] != phase {
				t.Errorf("%s is %s after the boot, want %s", name, got[name], phase)
			}
		}
		if h := w.record("off").Hold; h == nil || h.Why != "a visit" || h.Boot != "" || h.Under != nil {
			t.Errorf("what a person started: %+v", h)
		}
	})
}

func TestSetPower_untilBootOfAnUnknownBoot_isRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.engine = NewEngine(Config{Ports: w.host.ports(), Store: w.store, Timing: timing.Default(), Who: "test"})
		_, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped, UntilBoot: true}, Options{})
		if !errors.Is(err, ErrProblem) {
			t.Errorf("error: %v", err)
		}
		if h := w.record("web").Hold; h != nil {
			t.Errorf("hold: %+v", h)
		}
	})
}

func TestEngine_unknownBoot_endsNoHold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.goesDown("web")
		w.engine = NewEngine(Config{Ports: w.host.ports(), Store: w.store, Timing: timing.Default(), Who: "test"})
		if report := w.apply(ApplyOptions{}, newVM("web")); !report.Pending || phases(report)["web"] != PhaseStopped {
			t.Errorf("report: %+v", report)
		}
	})
}
