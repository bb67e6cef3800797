package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// onlooker collects what Follow tells, without repetitions.
type onlooker struct {
	changes chan string
	mu      sync.Mutex
	seen    []string
	last    map[string]string
	err     chan error
	stop    context.CancelFunc
}

// follow follows machines of a world.
func (w *world) follow(names ...string) *onlooker {
	ctx, cancel := context.WithCancel(w.Context())
	f := &onlooker{changes: make(chan string), last: map[string]string{}, err: make(chan error, 1), stop: cancel}
	go func() {
		f.err <- w.engine.Follow(ctx, FollowOptions{Names: names, Changes: f.changes}, func(s Sighting) error {
			text := s.Name + " gone"
			if s.View != nil {
				text = fmt.Sprintf("%s %s ready=%s", s.Name, s.View.Status.Phase, conditionOf(s.View.Status.Conditions, ConditionReady).Status)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.last[s.Name] != text {
				f.last[s.Name] = text
				f.seen = append(f.seen, text)
			}
			return nil
		})
	}()
	w.Cleanup(cancel)
	return f
}

// expect insists on what was told since the last time.
func (f *onlooker) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(want, f.seen); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	f.seen = nil
}

func (f *onlooker) end(t *testing.T, want error) {
	t.Helper()
	f.stop()
	if err := <-f.err; !errors.Is(err, want) {
		t.Errorf("following ended with %v, want %v", err, want)
	}
}

func TestFollow_eventsOfTheHost_areSeenAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.readyTakes = time.Second
		w.apply(ApplyOptions{}, newVM("web", probed))
		f := w.follow("web")
		f.expect(t, "web Running ready=False")
		began := time.Now()
		after(w.Context(), time.Second)
		f.expect(t, "web Running ready=True")
		w.host.touch("web", func(m *simMachine) { m.end(driver.EndCrash) })
		f.expect(t, "web Failed ready=False")
		if waited := time.Since(began); waited > time.Second+100*time.Millisecond {
			t.Errorf("all this took %v", waited)
		}
		f.end(t, context.Canceled)
	})
}

func TestFollow_recordsChange_areSeenWhenToldAndAtLastWithout(t *testing.T) {
	inWorld(t, func(w *world) {
		f := w.follow()
		f.expect(t)
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		f.changes <- ""
		f.expect(t, "web Stopped ready=False")
		w.apply(ApplyOptions{}, newVM("web"))
		f.changes <- "web"
		f.expect(t, "web Running ready=True")
		// Somebody's "stop" in a monitor tells nobody.
		w.host.mu.Lock()
		w.host.machines["web"].obs.Guest.RunState = runPaused
		w.host.mu.Unlock()
		f.expect(t)
		after(w.Context(), 2*w.engine.cfg.Timing.Look)
		f.expect(t, "web Paused ready=False")
		w.apply(ApplyOptions{}, newVM("db", stopped()))
		after(w.Context(), 2*w.engine.cfg.Timing.Look)
		f.expect(t, "db Stopped ready=False")
		f.end(t, context.Canceled)
	})
}

func TestFollow_deletedAndUnknownMachines_areGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		f := w.follow("web", "nobody")
		synctest.Wait()
		f.mu.Lock()
		if len(f.seen) != 2 || f.last["nobody"] != "nobody gone" || f.last["web"] != "web Stopped ready=False" {
			t.Errorf("seen: %v", f.seen)
		}
		f.seen = nil
		f.mu.Unlock()
		if _, err := w.engine.Delete(w.Context(), "web", DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		f.changes <- ""
		f.expect(t, "web gone")
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		f.changes <- ""
		f.expect(t, "web Stopped ready=False")
		f.end(t, context.Canceled)
	})
}

func TestFollow_functionFails_endsWithItsError(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("a"), newVM("b", stopped()))
		enough := errors.New("enough")
		err := w.engine.Follow(w.Context(), FollowOptions{Depth: driver.DepthFull}, func(Sighting) error { return enough })
		if !errors.Is(err, enough) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestSetPower_noWait_sendsAndReturns(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		began := time.Now()
		r, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped}, Options{NoWait: true})
		w.settledAs(r, err, PhaseStopping)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it waited for %v", waited)
		}
		if in := w.host.obs("web").Intent; in == nil || in.Stage != driver.StagePowerdown || r.Plan.Wait == nil {
			t.Errorf("intent %+v, wait %+v", in, r.Plan.Wait)
		}
		w.expectCalls("web create root", "web start", "web powerdown")
		// A second word sends nothing again, and one that waits sees it through.
		r, err = w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped}, Options{NoWait: true})
		w.settledAs(r, err, PhaseStopping)
		r, err = w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped}, Options{})
		w.settledAs(r, err, PhaseStopped)
		w.expectCalls("web create root", "web start", "web powerdown")
	})
}
