package bench

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpreadOf_values_medianAndExtremes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		values []float64
		want   Spread
	}{
		{"none", nil, Spread{}},
		{"one", []float64{3}, Spread{Median: 3, Min: 3, Max: 3}},
		{"an odd number, unsorted", []float64{9, 1, 4}, Spread{Median: 4, Min: 1, Max: 9}},
		{"an even number", []float64{4, 1, 2, 10}, Spread{Median: 3, Min: 1, Max: 10}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, spreadOf(tt.values)); diff != "" {
				t.Errorf("spreadOf (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRatio_computerSlowsDown_takenWithinPairs(t *testing.T) {
	t.Parallel()
	// The computer became ten times slower in the middle: each pair still says 2,
	// which the ratio of the medians would not.
	pairs := []Pair{
		{Ours: 0.02, Raw: 0.01},
		{Ours: 0.2, Raw: 0.1},
		{Ours: 0.24, Raw: 0.08},
	}
	if diff := cmp.Diff(Spread{Median: 2, Min: 2, Max: 3}, Ratio(pairs)); diff != "" {
		t.Errorf("Ratio (-want +got):\n%s", diff)
	}
}

func TestRatio_noComparator_isZero(t *testing.T) {
	t.Parallel()
	pairs := []Pair{{Ours: 1}, {Ours: 3}}
	if got := Ratio(pairs); got != (Spread{}) {
		t.Errorf("Ratio = %v, want none", got)
	}
	if diff := cmp.Diff(Spread{Median: 2, Min: 1, Max: 3}, Ours(pairs)); diff != "" {
		t.Errorf("Ours (-want +got):\n%s", diff)
	}
}
