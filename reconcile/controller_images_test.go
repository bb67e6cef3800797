package reconcile

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// withImages changes the folder's images.
func (w *simWorld) withImages(images ...*manifest.Image) {
	w.change(func() { w.images = images })
}

// reasonOf is a machine's phase and reason as another process sees them.
func (w *simWorld) reasonOf(name string) (Phase, string) {
	w.t.Helper()
	views, err := w.cli().Views(w.t.Context(), []string{name}, driver.DepthBrief)
	if err != nil {
		w.t.Fatal(err)
	}
	return views[0].Status.Phase, views[0].Status.Reason
}

// TestController_diskOfAnImage_isFetchedBesideEverythingElse has a slow fetch, during
// which other machines are kept, and two machines that want the same image.
func TestController_diskOfAnImage_isFetchedBesideEverythingElse(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		w.host.images.set(func() { w.host.images.takes = time.Hour })
		w.withImages(newImage("img", "/img", "aa"))
		w.put("web.yaml", newVM("web", of("img")))
		w.put("db.yaml", newVM("db", of("img")))
		w.passes(time.Minute)
		w.expectRuns("a")
		if got := w.host.images.begun(); got != "/img" {
			t.Errorf("fetched %q", got)
		}
		if phase, reason := w.reasonOf("web"); phase != PhasePending || reason != ReasonImagePulling {
			t.Errorf("phase %s, reason %s", phase, reason)
		}
		w.crash("a", driver.EndCrash)
		w.passes(5 * time.Second)
		w.expectRuns("a")
		w.passes(time.Hour)
		w.expectRuns("a", "db", "web")
		if got := w.host.images.begun(); got != "/img" {
			t.Errorf("fetched %q", got)
		}
	})
}

func TestController_imageCannotBeFetched_isTriedAgainLaterEachTime(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		w.host.images.set(func() {
			w.host.images.takes = 10 * time.Millisecond
			w.host.images.fail["/img"] = errors.New("no route to host")
		})
		w.withImages(newImage("img", "/img", "aa"))
		w.put("web.yaml", newVM("web", of("img")))
		for i, at := range []time.Duration{0, 1, 2, 4, 8} {
			w.passes(at*time.Second + 50*time.Millisecond)
			if n := len(strings.Fields(w.host.images.begun())); n != i+1 {
				t.Fatalf("%d tries, want %d", n, i+1)
			}
		}
		if phase, reason := w.reasonOf("web"); phase != PhasePending || reason != ReasonImagePullFailed {
			t.Errorf("phase %s, reason %s", phase, reason)
		}
		w.host.images.set(func() { clear(w.host.images.fail) })
		w.passes(20 * time.Second)
		w.expectRuns("web")
	})
}

// TestController_imageChanges_theOldFetchIsGivenUp mends a wrong URL while it is
// still being tried.
func TestController_imageChanges_theOldFetchIsGivenUp(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		w.host.images.set(func() { w.host.images.takes = time.Hour })
		w.withImages(newImage("img", "/wrong", "aa"))
		w.put("web.yaml", newVM("web", of("img")))
		w.passes(time.Minute)
		w.host.images.set(func() { w.host.images.takes = time.Second })
		w.withImages(newImage("img", "/right", "bb"))
		w.passes(10 * time.Second)
		w.expectRuns("web")
		if w.host.images.givenUp() != 1 || w.host.images.begun() != "/wrong /right" {
			t.Errorf("%d given up, begun %q", w.host.images.givenUp(), w.host.images.begun())
		}
	})
}

// TestController_machineDeletedWhileFetching_endsTheFetch has nobody wait for it any more.
func TestController_machineDeletedWhileFetching_endsTheFetch(t *testing.T) {
	controlled(t, nil, ApplyOptions{Prune: true, PruneAll: true}, func(w *simWorld) {
		w.host.images.set(func() { w.host.images.takes = time.Hour })
		w.withImages(newImage("img", "/img", "aa"))
		w.put("web.yaml", newVM("web", of("img")))
		w.passes(time.Minute)
		began := time.Now()
		w.change(func() { delete(w.files, "web.yaml") })
		w.passes(10 * time.Second)
		if w.records()["web"] != nil || time.Since(began) > time.Minute {
			t.Errorf("the machine is there still: %+v", w.records()["web"])
		}
		if w.host.images.givenUp() != 1 {
			t.Errorf("%d fetches were given up", w.host.images.givenUp())
		}
		w.process.controller.mu.Lock()
		left := len(w.process.controller.fetches)
		w.process.controller.mu.Unlock()
		if left != 0 {
			t.Errorf("%d fetches are left", left)
		}
	})
}

// TestController_imageOfADiskChanges_isShownAndDiskStays never costs a disk by itself.
func TestController_imageOfADiskChanges_isShownAndDiskStays(t *testing.T) {
	controlled(t, nil, ApplyOptions{Options: Options{AllowRestart: true}}, func(w *simWorld) {
		w.host.images.set(func() { w.host.images.takes = time.Second })
		w.withImages(newImage("img", "/old", "aa"))
		w.put("web.yaml", newVM("web", of("img")))
		w.passes(10 * time.Second)
		w.withImages(newImage("img", "/new", "bb"))
		w.passes(10 * time.Minute)
		w.crash("web", driver.EndCrash)
		w.passes(10 * time.Second)
		w.expectRuns("web")
		if got := w.host.images.begun(); got != "/old" || w.count("web aside root") != 0 || w.count("web powerdown") != 0 {
			t.Errorf("begun %q, calls %q", got, w.host.called())
		}
		m := w.records()["web"]
		if conditionOf(m.Conditions, ConditionRecreateRequired).Status != "True" {
			t.Errorf("conditions %+v", m.Conditions)
		}
		// A person's word by another process is seen through, by whoever is first.
		set := setOf(newVM("web", of("img")), newImage("img", "/new", "bb"))
		set.Roots = []string{"/vms"}
		report, err := w.cli().Apply(w.t.Context(), set, ApplyOptions{Owner: "/vms", Recreate: []DiskName{{"web", "root"}}})
		if err != nil || report.Failed {
			t.Errorf("report %+v, %v", report, err)
		}
		w.passes(10 * time.Second)
		w.expectRuns("web")
		if w.count("web aside root") != 1 || w.host.obs("web").Files["root"].Image != digest("bb") {
			t.Errorf("calls %q", w.host.called())
		}
	})
}

// TestController_ends_whileFetching_returnsSoon has the watch told to end.
func TestController_ends_whileFetching_returnsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, 1)
		w.host.images.takes = time.Hour
		w.images = []*manifest.Image{newImage("img", "/img", "aa")}
		w.put("web.yaml", newVM("web", of("img")))
		w.begin()
		w.passes(time.Second)
		began := time.Now()
		w.end()
		if lasted := time.Since(began); lasted > time.Second || w.host.images.givenUp() != 1 {
			t.Errorf("it took %s, %d fetches given up", lasted, w.host.images.givenUp())
		}
		for _, law := range w.broken {
			t.Errorf("a law does not hold: %s", law)
		}
	})
}
