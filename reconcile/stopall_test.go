package reconcile

import (
	"testing"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func TestStopAll_machinesStop_andNothingRemembersIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"), newVM("db"), newVM("alone"))
		if _, err := w.engine.Hold(w.Context(), "alone", state.Hold{Why: "hands off"}, Options{}); err != nil {
			t.Fatal(err)
		}
		results, err := w.engine.StopAll(w.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]Phase{"web": PhasePending, "db": PhasePending, "alone": PhaseRunning}
		for _, r := range results {
			if r.Err != nil || r.Status.Phase != want[r.Machine] {
				t.Errorf("%s is %s, error %v; want %s", r.Machine, r.Status.Phase, r.Err, want[r.Machine])
			}
		}
		if h := w.record("web").Hold; h != nil {
			t.Errorf("stopping all left a hold: %+v", h)
		}
		if report := w.apply(ApplyOptions{}, newVM("web")); phases(report)["web"] != PhaseRunning {
			t.Errorf("the next apply does not start it: %+v", report)
		}
	})
}

func TestPlanMachine_stopOption_endsWhatShouldRunAndStartsNothing(t *testing.T) {
	stopping := func(s *scene) { s.opt.Stop = true }
	runPlanCases(t, []planCase{
		{"running", newScene().up().with(stopping), "powerdown(Stop,1m0s);", PhaseRunning},
		{"absent", newScene().with(stopping), "", PhasePending},
		{"paused", newScene(power(manifest.PowerPaused)).up().with(stopping), "quit(Stop,10s);", PhasePaused},
	})
}
