package reconcile

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// planOf is a plan as it is after it was written to a file and read again.
func (w *world) planOf(objects ...any) *PlanReport {
	w.Helper()
	made, err := w.engine.Plan(w.Context(), setOf(objects...), ApplyOptions{})
	if err != nil {
		w.Fatal(err)
	}
	text, err := json.Marshal(made)
	if err != nil {
		w.Fatal(err)
	}
	read := new(PlanReport)
	if err := json.Unmarshal(text, read); err != nil {
		w.Fatal(err)
	}
	if d := made.Differs(read); d != "" {
		w.Fatalf("a plan is another one after it was read back: %s", d)
	}
	return read
}

func TestApply_planned_doesWhatWasForecast(t *testing.T) {
	inWorld(t, func(w *world) {
		objects := []any{newVM("a", rich), newVM("b", power(manifest.PowerPaused)), newVM("c", stopped())}
		w.apply(ApplyOptions{Planned: w.planOf(objects...)}, objects...)
		if n := len(w.host.called()); n == 0 {
			t.Error("nothing was done")
		}
		// A stop goes as far as it has to.
		w.host.deaf["a"] = true
		report := w.apply(ApplyOptions{Planned: w.planOf(newVM("a", rich, stopped()))}, newVM("a", rich, stopped()))
		if phases(report)["a"] != PhaseStopped {
			t.Errorf("report: %+v", report)
		}
	})
}

func TestApply_worldLeftThePlan_nothingIsDone(t *testing.T) {
	inWorld(t, func(w *world) {
		plan := w.planOf(newVM("web"))
		for name, change := range map[string]func() []any{
			"anotherManifest": func() []any { return []any{newVM("web", rich)} },
			"oneMore":         func() []any { return []any{newVM("web"), newVM("db")} },
			"anotherLabel": func() []any {
				return []any{labelled(newVM("web"))}
			},
		} {
			_, err := w.engine.Apply(t.Context(), setOf(change()...), ApplyOptions{Planned: plan})
			if !errors.Is(err, ErrPlanLeft) || !strings.Contains(err.Error(), "the plan says") {
				t.Errorf("%s: Apply = %v", name, err)
			}
		}
		w.expectCalls()
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.Apply(t.Context(), setOf(newVM("web")), ApplyOptions{Planned: plan}); !errors.Is(err, ErrPlanLeft) {
			t.Errorf("after it has come true: Apply = %v", err)
		}
	})
}

// TestApply_worldLeavesThePlanMeanwhile_stepIsNotDone has a machine crash between the
// comparison and the look before acting.
func TestApply_worldLeavesThePlanMeanwhile_stepIsNotDone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		changed := labelled(newVM("web"))
		plan := w.planOf(changed)
		looks := 0
		w.host.observed = func(name string) {
			if looks++; looks == 1 {
				w.host.touch(name, func(m *simMachine) { m.end(driver.EndCrash) })
			}
		}
		report := w.apply(ApplyOptions{Planned: plan}, changed)
		if err := report.Results[0].Err; !errors.Is(err, ErrPlanLeft) {
			t.Errorf("the machine was started again, which nobody had planned: %+v, %v", report.Results[0].Steps, err)
		}
		w.expectCalls("web create root", "web start")
	})
}

// TestAllowance_stepsOfTheSameKind_areToldApart holds that leave to plug one thing in is
// none to plug in another, and that a guest may be asked again.
func TestAllowance_stepsOfTheSameKind_areToldApart(t *testing.T) {
	part := func(kind StepKind, name string) Step {
		return Step{Kind: kind, Part: &driver.Part{List: driver.ListNICs, Name: name}}
	}
	cpus := func(n int) Step { return Step{Kind: StepAddCPUs, CPUs: n} }
	limit := func(n int) Step {
		return Step{Kind: StepThrottleDisk, Disk: "root", Throttle: &manifest.Throttle{IOPS: n}}
	}
	leave := func() allowance {
		f := MachineForecast{Passes: []Plan{{Steps: []Step{part(StepPlug, "lan"), part(StepUnplug, "dmz"), cpus(2), limit(10), {Kind: StepQuit}}}}}
		return f.allow()
	}
	for _, s := range []Step{part(StepPlug, "dmz"), part(StepUnplug, "lan"), cpus(3), limit(20), {Kind: StepStart}} {
		if err := leave().take([]Step{s}); !errors.Is(err, ErrPlanLeft) {
			t.Errorf("%s: %v, want it refused", s.effect(), err)
		}
	}
	a := leave()
	for _, s := range []Step{part(StepUnplug, "dmz"), part(StepUnplug, "dmz"), part(StepPlug, "lan"), {Kind: StepQuit}, {Kind: StepKill}, {Kind: StepClearIntent}} {
		if err := a.take([]Step{s}); err != nil {
			t.Errorf("%s: %v", s.effect(), err)
		}
	}
	if err := a.take([]Step{part(StepPlug, "lan")}); !errors.Is(err, ErrPlanLeft) {
		t.Errorf("plugged in twice: %v", err)
	}
}

func labelled(vm *manifest.VirtualMachine) *manifest.VirtualMachine {
	vm.Metadata.Labels = map[string]string{"a": "b"}
	return vm
}
