package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// diary is a bench that writes down what is done.
type diary struct {
	entries []string
	// fails is the entry, counted from 1, at which an error comes.
	fails int
}

var errDiary = errors.New("the diary is full")

func (d *diary) note(entry string, lasts time.Duration) func(context.Context) error {
	return func(context.Context) error {
		d.entries = append(d.entries, entry)
		<-time.After(lasts)
		if len(d.entries) == d.fails {
			return errDiary
		}
		return nil
	}
}

func (d *diary) open(context.Context, *Lab) (Bench, error) {
	return Bench{
		Ours:  Half{Before: d.note("prepare maqet", time.Hour), Do: d.note("maqet", 3*time.Second), After: d.note("check maqet", time.Hour)},
		Raw:   Half{Before: d.note("prepare raw", time.Hour), Do: d.note("raw", 2*time.Second)},
		Close: d.note("close", time.Hour),
	}, nil
}

func TestRun_pairs_inTurnAndFirstNotCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		r := Run(t.Context(), nil, Case{Name: "c", Open: d.open}, 2)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		turn := []string{"prepare maqet", "maqet", "check maqet", "prepare raw", "raw"}
		want := append(slices.Repeat(turn, 3), "close")
		if diff := cmp.Diff(want, d.entries); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
		// What is arranged before a half and checked after it is not in its time.
		pair := Pair{Ours: 3, Raw: 2}
		if diff := cmp.Diff([]Pair{pair, pair}, r.Pairs); diff != "" {
			t.Errorf("pairs (-want +got):\n%s", diff)
		}
	})
}

func TestRun_failure_keepsWhatWasMeasuredAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := diary{fails: 14}
		r := Run(t.Context(), nil, Case{Name: "c", Open: d.open}, 5)
		if !errors.Is(r.Err, errDiary) || !strings.HasPrefix(r.Err.Error(), "c, run 2: ") {
			t.Errorf("error %v, want the cause and the run it came in", r.Err)
		}
		if len(r.Pairs) != 1 {
			t.Errorf("%d pairs, want the one measured before", len(r.Pairs))
		}
		if last := d.entries[len(d.entries)-1]; last != "close" {
			t.Errorf("last came %q, want close", last)
		}
	})
}

func TestRun_noComparator_measuresMaqetAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		open := func(context.Context, *Lab) (Bench, error) {
			return Bench{Ours: Half{Do: d.note("maqet", time.Second)}}, nil
		}
		r := Run(t.Context(), nil, Case{Name: "c", Open: open}, 1)
		if diff := cmp.Diff([]Pair{{Ours: 1}}, r.Pairs); diff != "" || r.Err != nil {
			t.Errorf("error %v, pairs (-want +got):\n%s", r.Err, diff)
		}
	})
}

func TestRun_figuresThatAreNoTimes_takenAsTheyAre(t *testing.T) {
	t.Parallel()
	figure := func(v float64) Half {
		return Half{Value: func(context.Context) (float64, error) { return v, nil }}
	}
	open := func(context.Context, *Lab) (Bench, error) { return Bench{Ours: figure(0.5), Raw: figure(0.25)}, nil }
	r := Run(t.Context(), nil, Case{Name: "c", Unit: Cores, Open: open}, 1)
	if diff := cmp.Diff([]Pair{{Ours: 0.5, Raw: 0.25}}, r.Pairs); diff != "" || r.Err != nil {
		t.Errorf("error %v, pairs (-want +got):\n%s", r.Err, diff)
	}
}

func TestRun_cannotOpen_isSkippedOrFailed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err     error
		skipped bool
	}{
		{fmt.Errorf("%w: no such tool", ErrSkip), true},
		{errDiary, false},
	} {
		open := func(context.Context, *Lab) (Bench, error) { return Bench{}, tt.err }
		r := Run(t.Context(), nil, Case{Name: "c", Open: open}, 1)
		if !errors.Is(r.Err, tt.err) || r.Skipped() != tt.skipped {
			t.Errorf("error %v, skipped %v; want %v, %v", r.Err, r.Skipped(), tt.err, tt.skipped)
		}
	}
}

func TestRun_interrupted_startsNothingMore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	measured := 0
	open := func(context.Context, *Lab) (Bench, error) {
		return Bench{Ours: Half{Do: func(context.Context) error {
			measured++
			cancel()
			return nil
		}}}, nil
	}
	r := Run(ctx, nil, Case{Name: "c", Open: open}, 5)
	if !errors.Is(r.Err, context.Canceled) || measured != 1 {
		t.Errorf("error %v after %d runs, want %v after 1", r.Err, measured, context.Canceled)
	}
}

func TestCase_runs_fewerWhenHeavy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		heavy   bool
		n, want int
	}{
		{false, 20, 20}, {true, 20, 5}, {true, 8, 3}, {true, 2, 2}, {false, 1, 1}, {true, 1, 1},
	} {
		if got := (Case{Heavy: tt.heavy}).runs(tt.n); got != tt.want {
			t.Errorf("heavy %v: %d runs of %d, want %d", tt.heavy, got, tt.n, tt.want)
		}
	}
}

func TestCases_names_differAndAreSelectable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Cases(Config{Machines: 50, Manifests: 2000}) {
		if seen[c.Name] || c.Name == "" || c.Does == "" || c.Open == nil {
			t.Errorf("case %q: the name must be its own, and nothing may be missing", c.Name)
		}
		seen[c.Name] = true
	}
}
