package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// settledAs checks a command's result.
func (w *world) settledAs(r Result, err error, phase Phase) {
	w.Helper()
	if err != nil {
		w.Fatalf("error: %v", err)
	}
	if r.Status.Phase != phase {
		w.Errorf("phase is %s, want %s", r.Status.Phase, phase)
	}
	if o := r.Outcome(); o != (Outcome{}) {
		w.Errorf("outcome: %+v, plan %s", o, summary(r.Plan))
	}
}

func TestSetPower_stopAndStart_writesAndEndsAHold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		r, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped, Why: "upgrade"}, Options{})
		w.settledAs(r, err, PhaseStopped)
		if h := w.record("web").Hold; h == nil || h.PowerState != manifest.PowerStopped || h.Who != "test" || h.Why != "upgrade" || h.Generation != 1 {
			t.Fatalf("hold: %+v", h)
		}
		if report := w.apply(ApplyOptions{}, newVM("web")); !report.Pending || phases(report)["web"] != PhaseStopped {
			t.Errorf("apply must honour the hold and say so: %+v", report)
		}
		r, err = w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerRunning}, Options{})
		w.settledAs(r, err, PhaseRunning)
		if h := w.record("web").Hold; h != nil {
			t.Errorf("a hold that overrides nothing is left: %+v", h)
		}
		r, err = w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerPaused, Until: time.Now().Add(time.Hour)}, Options{})
		w.settledAs(r, err, PhasePaused)
		after(w.Context(), 2*time.Hour)
		if report := w.apply(ApplyOptions{}, newVM("web")); phases(report)["web"] != PhaseRunning || report.Pending {
			t.Errorf("the hold's time is over, yet: %+v", report)
		}
		if h := w.record("web").Hold; h != nil {
			t.Errorf("a hold that is over is left: %+v", h)
		}
	})
}

func TestSetPower_completedMachine_startsOnlyWhenAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.touch("web", func(m *simMachine) { m.end(driver.EndGuest) })
		if report := w.apply(ApplyOptions{}, newVM("web")); phases(report)["web"] != PhaseCompleted || report.Failed || report.Pending {
			t.Errorf("report: %+v", report)
		}
		r, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerRunning}, Options{})
		w.settledAs(r, err, PhaseRunning)
		// The host restarts and takes every trace of the process along.
		w.host.touch("web", func(m *simMachine) {
			m.end(driver.EndHostReboot)
			m.obs.Ended, m.obs.Launched, m.obs.Intent = nil, nil, nil
		})
		if report := w.apply(ApplyOptions{}, newVM("web")); phases(report)["web"] != PhaseRunning {
			t.Errorf("a machine that was started again is not Completed: %+v", report)
		}
	})
}

func TestHold_changedSpec_endsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.Hold(w.Context(), "web", state.Hold{Why: "hands off"}, Options{}); err != nil {
			t.Fatal(err)
		}
		calls := len(w.host.calls)
		_, err := w.engine.Restart(w.Context(), "web", Options{})
		var own *Error
		if !errors.Is(err, ErrHeld) || !errors.As(err, &own) || !strings.Contains(own.Hint, "release") {
			t.Errorf("error: %v", err)
		}
		if len(w.host.calls) != calls {
			t.Errorf("a held machine was touched: %v", w.host.calls[calls:])
		}
		if report := w.apply(ApplyOptions{}, newVM("web", stopped())); phases(report)["web"] != PhaseStopped || report.Pending {
			t.Errorf("report: %+v", report)
		}
	})
}

func TestRelease_heldMachine_goesBackToItsManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		r, err := w.engine.Hold(w.Context(), "web", state.Hold{PowerState: manifest.PowerPaused}, Options{})
		w.settledAs(r, err, PhasePaused)
		r, err = w.engine.Release(w.Context(), "web", Options{})
		w.settledAs(r, err, PhaseRunning)
	})
}

func TestRestart_stopsOnceAndStarts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		r, err := w.engine.Restart(w.Context(), "web", Options{})
		w.settledAs(r, err, PhaseRunning)
		w.expectCalls("web create root", "web start", "web powerdown", "web start")
		r, err = w.engine.Restart(w.Context(), "web", Options{Force: true})
		w.settledAs(r, err, PhaseRunning)
		w.expectCalls("web create root", "web start", "web powerdown", "web start", "web quit", "web start")
		if m := w.record("web"); m.Restarts != 2 {
			t.Errorf("restarts: %d", m.Restarts)
		}
		if _, err = w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped}, Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err = w.engine.Restart(w.Context(), "web", Options{}); !errors.Is(err, ErrProblem) {
			t.Errorf("a machine that should be stopped is not restarted: %v", err)
		}
	})
}

func TestDelete_runningMachine_isStoppedAndKept(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  DeleteOptions
		edit func(*manifest.VirtualMachineSpec)
		call string
		kept string
	}{
		{"kept", DeleteOptions{}, func(*manifest.VirtualMachineSpec) {}, "web forget false", "/kept/web"},
		{"by flag", DeleteOptions{DeleteDisks: true}, func(*manifest.VirtualMachineSpec) {}, "web forget true", ""},
		{"by key", DeleteOptions{}, func(s *manifest.VirtualMachineSpec) { s.OnDelete = &manifest.OnDelete{Disks: manifest.DisksDelete} }, "web forget true", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.apply(ApplyOptions{}, newVM("web", c.edit))
				r, err := w.engine.Delete(w.Context(), "web", c.opt)
				if err != nil || !r.Gone || r.KeptAt != c.kept {
					t.Errorf("result %+v, error %v", r, err)
				}
				w.expectCalls("web create root", "web start", "web powerdown", c.call)
				if w.record("web") != nil {
					t.Errorf("the record is left")
				}
				if _, err := w.engine.Delete(w.Context(), "web", c.opt); !errors.Is(err, ErrNotFound) {
					t.Errorf("error: %v", err)
				}
			})
		})
	}
}

func TestDelete_silentMachine_isPendingAndNeverOverwritten(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.silent["web"] = true
		r, err := w.engine.Delete(w.Context(), "web", DeleteOptions{DeleteDisks: true})
		if err != nil || r.Gone || !r.Outcome().Failed {
			t.Errorf("result %+v, error %v", r, err)
		}
		_, err = w.engine.Apply(w.Context(), setOf(newVM("web")), ApplyOptions{})
		if !errors.Is(err, ErrDeleting) {
			t.Errorf("error: %v", err)
		}
		if _, err = w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerRunning}, Options{}); !errors.Is(err, ErrDeleting) {
			t.Errorf("error: %v", err)
		}
		if m := w.record("web"); m.Deleting == nil || !m.Deleting.DeleteDisks {
			t.Errorf("the delete was overwritten: %+v", m)
		}
		r, err = w.engine.Delete(w.Context(), "web", DeleteOptions{Options: Options{Force: true}})
		if err != nil || !r.Gone {
			t.Errorf("result %+v, error %v", r, err)
		}
		w.expectCalls("web create root", "web start", "web kill", "web forget true")
	})
}

func TestCreateSnapshot_methodFollowsTheMachine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		r, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "one"})
		w.settledAs(r, err, PhaseRunning)
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		r, err = w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "two"})
		w.settledAs(r, err, PhaseStopped)
		w.expectCalls("web create root", "web start", "web take one Full", "web finish one", "web powerdown", "web take two Disk")
		for _, c := range []struct {
			req  SnapshotRequest
			want error
		}{
			{SnapshotRequest{VM: "web", Name: "one"}, ErrExists},
			{SnapshotRequest{VM: "web", Name: "three", Method: manifest.SnapshotFull}, ErrProblem},
			{SnapshotRequest{VM: "nobody", Name: "x"}, ErrNotFound},
		} {
			if _, err := w.engine.CreateSnapshot(w.Context(), c.req); !errors.Is(err, c.want) {
				t.Errorf("%+v: %v, want %v", c.req, err, c.want)
			}
		}
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "../x"}); err == nil {
			t.Errorf("a name that is no name is taken")
		}
	})
}

func TestCreateSnapshot_besideNVMe_isOfDisksUnlessSaid(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web", onNVMe))
		for _, method := range []manifest.SnapshotMethod{"", manifest.SnapshotFull} {
			if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "a" + strings.ToLower(string(method)), Method: method}); err != nil {
				t.Error(err)
			}
		}
		w.expectCalls("web create root", "web start", "web take a Disk", "web take afull Full", "web finish afull")
	})
}

func TestCreateSnapshot_fails_isNotRemembered(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.fail["web finish one"] = errors.New("no room")
		_, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "one"})
		if err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("error: %v", err)
		}
		if want, _ := w.engine.desired(w.Context(), "web"); len(want.Snapshots) != 0 {
			t.Errorf("a snapshot that failed is remembered: %+v", want.Snapshots[0])
		}
		delete(w.host.fail, "web finish one")
		r, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "one"})
		w.settledAs(r, err, PhaseRunning)
	})
}

func TestDeleteSnapshot_dataAndObjectGo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"), newVM("db"))
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "one", Method: manifest.SnapshotDisk}); err != nil {
			t.Fatal(err)
		}
		w.host.touch("web", func(m *simMachine) { m.addSnapshot("by-hand", 0) })
		if _, err := w.engine.DeleteSnapshot(w.Context(), "db", "one", Options{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("another machine's snapshot: %v", err)
		}
		for _, tag := range []string{"one", "by-hand"} {
			r, err := w.engine.DeleteSnapshot(w.Context(), "web", tag, Options{})
			w.settledAs(r, err, PhaseRunning)
			if !slices.Contains(w.host.called(), "web delete-snapshot "+tag) {
				t.Errorf("calls: %v", w.host.called())
			}
			if _, err := w.engine.DeleteSnapshot(w.Context(), "web", tag, Options{}); !errors.Is(err, ErrNotFound) {
				t.Errorf("error: %v", err)
			}
		}
	})
}

func TestAwaitReady_tellsWhetherItIs(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.readyTakes = 10 * time.Second
		w.apply(ApplyOptions{}, newVM("web", probed))
		r, err := w.engine.AwaitReady(w.Context(), "web")
		if err != nil || r.Degraded || r.Status.Conditions[0].Status != "True" {
			t.Errorf("result %+v, error %v", r, err)
		}
		w.host.touch("web", func(m *simMachine) { m.end(driver.EndCrash) })
		if r, err = w.engine.AwaitReady(w.Context(), "web"); err != nil || !r.Degraded {
			t.Errorf("result %+v, error %v", r, err)
		}
		if _, err = w.engine.AwaitReady(w.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestLocked_otherProcessWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		err := w.engine.Locked(w.Context(), "web", func(ctx context.Context, v View) error {
			if v.Status.Phase != PhaseRunning || v.Machine == nil {
				t.Errorf("view: %+v", v.Status)
			}
			other := w.newEngine()
			_, err := other.Restart(ctx, "web", Options{})
			if err == nil || len(w.host.called()) != 2 {
				t.Errorf("somebody acted on a locked machine: %v, %v", err, w.host.called())
			}
			return errors.New("mine")
		})
		if err == nil || err.Error() != "mine" {
			t.Errorf("error: %v", err)
		}
		if err := w.engine.Locked(w.Context(), "nobody", nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("error: %v", err)
		}
	})
}
