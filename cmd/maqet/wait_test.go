package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

// machineView is a machine in a phase.
func machineView(name string, phase reconcile.Phase) *reconcile.View {
	return &reconcile.View{
		Machine: &state.Machine{Object: manifest.VirtualMachine{Metadata: manifest.Metadata{Name: name}}},
		Status:  reconcile.Status{Phase: phase},
	}
}

func TestWaiter_looks_endWhenAllAreDecided(t *testing.T) {
	env, out, errs := pipes()
	w := &waiter{
		a: &app{env: env}, goal: reconcile.Goal{Phase: reconcile.PhaseRunning},
		open: map[string]string{"a": "", "b": ""}, known: map[string]bool{},
	}
	for _, s := range []reconcile.Sighting{
		{Name: "a", View: machineView("a", reconcile.PhasePending)},
		{Name: "a", View: machineView("a", reconcile.PhaseRunning)},
		{Name: "a", View: machineView("a", reconcile.PhaseFailed)}, // It was met once.
		{Name: "b", View: machineView("b", reconcile.PhaseStarting)},
	} {
		if err := w.saw(s); err != nil {
			t.Fatalf("%s: %v", s.View.Status.Phase, err)
		}
	}
	if err := w.ranOut(time.Second); exitCode(t.Context(), err) != exitPending || !strings.Contains(errs.String(), "vm/b phase=Running not met after 1s: phase Starting") {
		t.Errorf("error %v, stderr %q", err, errs)
	}
	if err := w.saw(reconcile.Sighting{Name: "b", View: machineView("b", reconcile.PhaseRunning)}); !errors.Is(err, errOver) {
		t.Errorf("error %v", err)
	}
	if got := out.String(); strings.Count(got, "phase=Running met") != 2 {
		t.Errorf("stdout %q", got)
	}
}

func TestWaiter_machineGone_isUnknownAtFirstAndLostLater(t *testing.T) {
	env, _, errs := pipes()
	w := &waiter{
		a: &app{env: env}, goal: reconcile.Goal{Phase: reconcile.PhaseRunning},
		open: map[string]string{"a": ""}, known: map[string]bool{},
	}
	if err := w.saw(reconcile.Sighting{Name: "a"}); exitCode(t.Context(), err) != exitInvalid {
		t.Errorf("error %v", err)
	}
	if err := w.saw(reconcile.Sighting{Name: "a", View: machineView("a", reconcile.PhasePending)}); err != nil {
		t.Errorf("error %v", err)
	}
	if err := w.saw(reconcile.Sighting{Name: "a"}); exitCode(t.Context(), err) != exitDegraded || !strings.Contains(errs.String(), "it was deleted") {
		t.Errorf("error %v, stderr %q", err, errs)
	}
}

func TestWatchGet_looksWithoutNews_printNothing(t *testing.T) {
	for kind, want := range map[string]string{
		"":     "NAME   PHASE     READY   CPUS   MEMORY   RESTARTS   UP   NOTE\nweb    Running   -       -      -        0          5m\nweb    Paused    -       -      -        0          5m\nweb    Deleted   -       -      -        -          -\n",
		"name": "vm/web\nvm/web\nvm/web\n",
	} {
		env, out, _ := pipes()
		w := &watchGet{
			env: env, format: format{kind: kind}, table: newColumns(env.out, machineHeader(false), []string{"", "Running"}),
			last: map[string]string{}, views: map[string]*reconcile.View{},
		}
		look := func(phase reconcile.Phase, up time.Duration) *reconcile.View {
			v := machineView("web", phase)
			v.Status.PID, v.Status.StartedAt = 7, time.Now().Add(-up)
			v.Status.Conditions = []state.Condition{{Type: "Stalled", Status: "False", LastTransitionTime: time.Now()}}
			return v
		}
		if err := w.begin([]reconcile.View{*look(reconcile.PhaseRunning, 5*time.Minute)}); err != nil {
			t.Fatal(err)
		}
		began := time.Now().Add(-5 * time.Minute)
		for _, phase := range []reconcile.Phase{reconcile.PhaseRunning, reconcile.PhasePaused, reconcile.PhasePaused} {
			v := look(phase, 0)
			v.Status.StartedAt = w.views["web"].Status.StartedAt
			if phase == reconcile.PhaseRunning && kind == "" {
				v.Status.StartedAt = began.Add(-time.Hour) // Only the column UP differs.
			}
			if err := w.saw(reconcile.Sighting{Name: "web", View: v}); err != nil {
				t.Fatal(err)
			}
			w.views["web"].Status.StartedAt = began
		}
		for range 2 {
			if err := w.saw(reconcile.Sighting{Name: "web"}); err != nil {
				t.Fatal(err)
			}
		}
		if got := out.String(); got != want {
			t.Errorf("%q printed\n%s\nwant\n%s", kind, got, want)
		}
	}
}
