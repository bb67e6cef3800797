package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// beside is an engine beside a live watch of /srv/vms, which has applied web.
func (w *world) beside() *Engine {
	w.Helper()
	w.apply(ApplyOptions{}, newVM("web"))
	return NewEngine(Config{
		Ports: w.host.ports(), Store: w.store, Timing: timing.Default(), Who: "ann", BootID: "boot-1",
		Live: func(context.Context) (*LiveWatch, error) {
			return &LiveWatch{PID: 42, Owner: "/srv/vms", Roots: []string{"/srv/vms"}}, nil
		},
	})
}

func TestApply_besideWatch_refusesOtherContentOfItsObjects(t *testing.T) {
	other := func() *manifest.VirtualMachine { return newVM("web", stopped()) }
	tests := []struct {
		name  string
		roots string
		vm    *manifest.VirtualMachine
		opt   ApplyOptions
		want  error
	}{
		{"from the watched folder", "/srv/vms", other(), ApplyOptions{}, nil},
		{"one file of it", "/srv/vms/web.yaml", other(), ApplyOptions{Owner: "/srv/vms"}, nil},
		{"the same from stdin", "-", newVM("web"), ApplyOptions{Owner: OwnerStdin}, nil},
		{"another from stdin", "-", other(), ApplyOptions{Owner: OwnerStdin}, ErrWatched},
		{"from elsewhere", "/home/ann", other(), ApplyOptions{}, ErrWatched},
		{"taken over", "/home/ann", other(), ApplyOptions{TakeOver: true}, ErrWatched},
		{"under its owner's name", "/home/ann", other(), ApplyOptions{Owner: "/srv/vms"}, ErrWatched},
		{"something else", "/home/ann", newVM("new"), ApplyOptions{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				e := w.beside()
				set := setOf(tt.vm)
				set.Roots = []string{tt.roots}
				_, err := e.Apply(w.Context(), set, tt.opt)
				if !errors.Is(err, tt.want) {
					t.Fatalf("error %v, want %v", err, tt.want)
				}
				if err == nil {
					return
				}
				if !strings.Contains(err.Error(), "pid 42") || !strings.Contains(err.Error(), "maqet hold") {
					t.Errorf("the error tells neither who nor what to do: %v", err)
				}
			})
		})
	}
}

func TestDelete_besideWatch_isRefusedWhileDeclared(t *testing.T) {
	inWorld(t, func(w *world) {
		e := w.beside()
		if _, err := e.Delete(w.Context(), "web", DeleteOptions{}); !errors.Is(err, ErrWatched) {
			t.Errorf("declared: %v", err)
		}
		if _, err := e.change(w.Context(), "change", "web", func(m *state.Machine) error { m.Undeclared = true; return nil }); err != nil {
			t.Fatal(err)
		}
		if r, err := e.Delete(w.Context(), "web", DeleteOptions{}); err != nil || !r.Gone {
			t.Errorf("undeclared: %+v, %v", r, err)
		}
	})
}

func TestViews_besideWatch_sayThatItWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		e := w.beside()
		w.host.touch("web", func(m *simMachine) { m.end(driver.EndCrash) })
		for _, one := range []struct {
			engine  *Engine
			phase   Phase
			watched bool
		}{{e, PhaseCrashLoopBackOff, true}, {w.engine, PhaseFailed, false}} {
			views, err := one.engine.Views(w.Context(), nil, driver.DepthFull)
			if err != nil {
				t.Fatal(err)
			}
			if v := views[0]; v.Status.Phase != one.phase || v.Watched != one.watched {
				t.Errorf("phase %s, watched %v; want %s, %v", v.Status.Phase, v.Watched, one.phase, one.watched)
			}
		}
	})
}

func TestApply_crashed_startsAtOnceAndForgives(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web", policy(manifest.RestartNever)))
		for range 3 {
			w.host.touch("web", func(m *simMachine) { m.end(driver.EndCrash) })
			report := w.apply(ApplyOptions{}, newVM("web", policy(manifest.RestartNever)))
			if diff := cmp.Diff(map[string]Phase{"web": PhaseRunning}, phases(report)); diff != "" {
				t.Error(diff)
			}
		}
		if m := w.record("web"); m.Failures != 0 || m.Restarts != 3 {
			t.Errorf("record: %+v", m)
		}
	})
}

func TestApply_recordOfAnOlderMaqet_changesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.change(w.Context(), "change", "web", func(m *state.Machine) error {
			m.Object.Spec.RestartPolicy = ""
			o, err := manifest.NewObject(&m.Object)
			m.Digest = o.Digest
			return err
		}); err != nil {
			t.Fatal(err)
		}
		report := w.apply(ApplyOptions{}, newVM("web"))
		if w.record("web").Generation != 1 || report.Objects[0].Action != ActionUnchanged {
			t.Errorf("generation %d, %v", w.record("web").Generation, report.Objects)
		}
		report = w.apply(ApplyOptions{}, newVM("web", policy(manifest.RestartAlways)))
		plan := report.Results[0].Plan
		if w.record("web").Generation != 2 || slices.ContainsFunc(plan.Changes, func(c Change) bool { return c.Class == ClassRestart }) {
			t.Errorf("generation %d, changes %v", w.record("web").Generation, plan.Changes)
		}
	})
}

func TestApply_heldWhileLookedAt_planIsVoid(t *testing.T) {
	inWorld(t, func(w *world) {
		said := false
		w.host.observed = func(name string) {
			if said {
				return
			}
			said = true
			err := w.store.Update(w.Context(), func(tx Tx) error {
				m, err := tx.Machine(name)
				if err != nil {
					return err
				}
				m.Hold = &state.Hold{Who: "ann", Since: t0, Generation: m.Generation}
				return tx.PutMachine(m)
			})
			if err != nil {
				t.Error(err)
			}
		}
		report := w.apply(ApplyOptions{}, newVM("web"))
		w.expectCalls()
		if !report.Pending || report.Results[0].Plan.Held == nil {
			t.Errorf("report: %+v", report)
		}
	})
}

func TestApply_deletedWhileLookedAt_isGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.observed = func(name string) {
			if err := w.store.Update(w.Context(), func(tx Tx) error { return tx.DeleteMachine(name) }); err != nil {
				t.Error(err)
			}
		}
		report := w.apply(ApplyOptions{}, newVM("web"))
		w.expectCalls()
		if !report.Results[0].Gone {
			t.Errorf("report: %+v", report)
		}
	})
}
