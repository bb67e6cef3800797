package reconcile

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// wire is a journal without a past: what is appended is told to who follows.
type wire struct{ events chan state.Event }

func (j wire) Append(ctx context.Context, events ...state.Event) error {
	for _, ev := range events {
		select {
		case j.events <- ev:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (j wire) follow(ctx context.Context, _ state.Filter, fn func(state.Event) error) error {
	for {
		select {
		case ev := <-j.events:
			if err := fn(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// besideOthers runs a controller of one machine that follows what others journal,
// or cannot.
func besideOthers(t *testing.T, deaf error, test func(w *simWorld, j wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, 1)
		j := wire{make(chan state.Event, 16)}
		w.follow = j.follow
		if deaf != nil {
			w.follow = func(context.Context, state.Filter, func(state.Event) error) error { return deaf }
		}
		w.put("a.yaml", newVM("a"))
		w.begin()
		w.passes(5 * time.Second)
		test(w, j)
		w.end()
		for _, law := range w.broken {
			t.Errorf("a law does not hold: %s", law)
		}
	})
}

// byHand applies a machine as another process does.
func (w *simWorld) byHand(name string, journal Journal) {
	w.t.Helper()
	set := setOf(newVM(name))
	set.Roots = []string{"/home/ann"}
	e := NewEngine(Config{Ports: w.host.ports(), Store: w.disk, Timing: timing.Default(), Who: "ann", BootID: w.bootID(), Journal: journal})
	if _, err := e.Apply(w.t.Context(), set, ApplyOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func TestController_appliedBesideIt_isSupervisedAtOnce(t *testing.T) {
	besideOthers(t, nil, func(w *simWorld, j wire) {
		w.byHand("hand", j)
		w.passes(between)
		w.crash("hand", driver.EndCrash)
		w.passes(2 * time.Second)
		w.expectRuns("a", "hand")
	})
}

// TestController_begunBesideIt_isFinishedWhenTheOtherDoesNot writes what a process
// that was killed right after it leaves: a word and an event.
func TestController_begunBesideIt_isFinishedWhenTheOtherDoesNot(t *testing.T) {
	besideOthers(t, nil, func(w *simWorld, j wire) {
		e := w.cli()
		events, err := e.change(w.t.Context(), "change", "a", func(m *state.Machine) error {
			m.Hold = e.hold(m, state.Hold{PowerState: manifest.PowerPaused})
			return nil
		})
		if err == nil {
			err = j.Append(w.t.Context(), events...)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.passes(settling - time.Millisecond)
		w.expectRuns("a")
		w.passes(time.Second)
		if got := w.runs()["a"]; got != runPaused {
			t.Errorf("it is %s, want %s", got, runPaused)
		}
	})
}

func TestController_journalUnheard_looksAtAllNowAndThen(t *testing.T) {
	besideOthers(t, errors.New("no such folder"), func(w *simWorld, _ wire) {
		w.passes(10 * time.Minute)
		w.byHand("hand", nil)
		w.passes(longestUnread)
		w.crash("hand", driver.EndCrash)
		w.passes(2 * time.Second)
		w.expectRuns("a", "hand")
	})
}
