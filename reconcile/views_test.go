package reconcile

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// slowObserver takes a second for each look.
type slowObserver struct{ *simHost }

func (s slowObserver) Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed {
	after(ctx, time.Second)
	return s.simHost.Observe(ctx, name, vm, depth)
}

func TestViews_manyMachines_areLookedAtInParallel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("a"), newVM("b"), newVM("c", stopped()))
		w.engine.cfg.Ports.Observer = slowObserver{w.host}
		began := time.Now()
		views, err := w.engine.Views(w.Context(), nil, driver.DepthBrief)
		if err != nil || len(views) != 3 {
			t.Fatalf("%d views, error %v", len(views), err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s, want the time of one look", took)
		}
		for i, want := range []Phase{PhaseRunning, PhaseRunning, PhaseStopped} {
			if views[i].Status.Phase != want {
				t.Errorf("%s is %s, want %s", views[i].Machine.Object.Metadata.Name, views[i].Status.Phase, want)
			}
		}
		w.host.touch("c", func(m *simMachine) {
			m.obs.SnapshotsKnown = false
			m.obs.Files["root"] = driver.DiskFile{Exists: true}
		})
		snap := newSnap("s", "c", manifest.SnapshotDisk)
		if err := w.store.Update(w.Context(), func(tx Tx) error { return tx.PutSnapshot(snap) }); err != nil {
			t.Fatal(err)
		}
		if views, err = w.engine.Views(w.Context(), []string{"c"}, driver.DepthBrief); err != nil || len(views[0].Plan.Problems) != 0 {
			t.Errorf("a brief look finds a problem with what it did not look at: %+v, %v", views, err)
		}
		if views, err = w.engine.Views(w.Context(), []string{"b"}, driver.DepthFull); err != nil || len(views) != 1 {
			t.Errorf("%d views, error %v", len(views), err)
		}
		if _, err = w.engine.Views(w.Context(), []string{"b", "nobody"}, driver.DepthFull); !errors.Is(err, ErrNotFound) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestGate_cancelledWait_makesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, time.Now)
		first, err := g.enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.enter(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error: %v", err)
		}
		entered := make(chan string)
		go func() {
			ticket, _ := g.enter(t.Context(), "a")
			entered <- ticket
		}()
		synctest.Wait()
		g.leave(first)
		g.leave(<-entered)
		if len(g.views)+len(g.waiting) != 0 {
			t.Errorf("left over: %v %v", g.views, g.waiting)
		}
	})
}

// spuriousObserver returns from each wait at once.
type spuriousObserver struct{ *simHost }

func (spuriousObserver) Await(context.Context, string, *manifest.VirtualMachine, driver.Awaited) error {
	return nil
}

func TestConverge_spuriousEvents_slowDownAndStillSettle(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.powerOffTakes = 50 * time.Second
		w.engine.cfg.Ports.Observer = spuriousObserver{w.host}
		looks := 0
		w.host.observed = func(string) { looks++ }
		if report := w.apply(ApplyOptions{}, newVM("web", stopped())); report.Failed || phases(report)["web"] != PhaseStopped {
			t.Errorf("report: %+v", report)
		}
		if looks > 100 {
			t.Errorf("%d looks for one stop", looks)
		}
	})
}

func TestConverge_storeFails_isSaidAndNothingActed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.touch("web", func(m *simMachine) { m.end(driver.EndCrash) })
		full := errors.New("no space left on device")
		w.store.fail = full
		report := w.apply(ApplyOptions{}, newVM("web"))
		if err := report.Results[0].Err; !errors.Is(err, full) || !report.Failed {
			t.Errorf("error: %v", err)
		}
		if w.host.obs("web").Ended == nil {
			t.Errorf("what tells how the process ended was cleared before it was written down")
		}
		w.store.fail = nil
		if report = w.apply(ApplyOptions{}, newVM("web")); report.Failed {
			t.Errorf("error: %v", report.Results[0].Err)
		}
	})
}
