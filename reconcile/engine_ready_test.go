package reconcile

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/manifest"
)

func TestApply_waitForReady(t *testing.T) {
	for _, c := range []struct {
		name     string
		takes    time.Duration
		degraded bool
	}{{"in time", 30 * time.Second, false}, {"too late", 0, true}} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.host.readyTakes = c.takes
				report := w.apply(ApplyOptions{Wait: true}, newVM("web", probed))
				if report.Degraded != c.degraded || report.Failed {
					t.Errorf("report: %+v", report)
				}
				ready := report.Results[0].Status.Conditions[0]
				if (ready.Status == "True") == c.degraded {
					t.Errorf("condition: %+v", ready)
				}
				if report.Results[0].Status.Observed.CPUs == 0 {
					t.Errorf("the full observation is lost: %+v", report.Results[0].Status.Observed)
				}
				last := w.events[len(w.events)-1]
				if last.Step != "ready" || last.Done == c.degraded || errors.Is(last.Err, ErrNotReady) != c.degraded {
					t.Errorf("the end of the wait is not told: %+v", last)
				}
			})
		})
	}
}

func TestApply_snapshots_areTakenOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		disk, full := newSnap("disk", "web", manifest.SnapshotDisk).Object, newSnap("full", "web", manifest.SnapshotFull).Object
		objects := []any{newVM("web"), &disk, &full}
		report := w.apply(ApplyOptions{}, objects...)
		w.expectCalls("web create root", "web start", "web take disk Disk", "web take full Full", "web finish full")
		for _, s := range report.Results[0].Status.Snapshots {
			if s.Phase != SnapshotTaken {
				t.Errorf("%s is %s", s.Name, s.Phase)
			}
		}
		w.apply(ApplyOptions{}, objects...)
		w.host.touch("web", func(m *simMachine) { delete(m.obs.Snapshots, "disk") })
		report = w.apply(ApplyOptions{}, objects...)
		w.expectCalls("web create root", "web start", "web take disk Disk", "web take full Full", "web finish full")
		if s := report.Results[0].Status.Snapshots[0]; s.Phase != SnapshotMissing {
			t.Errorf("a tag deleted by hand is %s", s.Phase)
		}
	})
}

func TestApply_failedSnapshot_isTriedOncePerApply(t *testing.T) {
	inWorld(t, func(w *world) {
		full := newSnap("full", "web", manifest.SnapshotFull).Object
		w.host.fail["web finish full"] = errors.New("no room")
		for range 2 {
			report := w.apply(ApplyOptions{}, newVM("web"), &full)
			if !report.Failed || !strings.Contains(report.Results[0].Err.Error(), "no room") {
				t.Errorf("report: %+v", report)
			}
			if in := w.host.obs("web").Intent; in != nil {
				t.Errorf("the intent is left over: %+v", in)
			}
		}
		w.expectCalls("web create root", "web start", "web take full Full", "web finish full", "web take full Full", "web finish full")
	})
}
