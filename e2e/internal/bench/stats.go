package bench

import (
	"slices"
	"time"
)

// Pair is one turn: maqet, and right after it what it is held against. Raw is
// zero in cases without a comparator.
type Pair struct {
	Ours time.Duration `json:"maqet_ns"`
	Raw  time.Duration `json:"raw_ns,omitempty"`
}

// Spread is a median and its extremes.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf is the zero Spread when there are no values.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1]}
}

// Ours is how long maqet took, in seconds.
func Ours(pairs []Pair) Spread {
	return spreadOf(valuesOf(pairs, func(p Pair) (float64, bool) { return p.Ours.Seconds(), true }))
}

// Raw is how long the comparator took, in seconds.
func Raw(pairs []Pair) Spread {
	return spreadOf(valuesOf(pairs, func(p Pair) (float64, bool) { return p.Raw.Seconds(), p.Raw > 0 }))
}

// Ratio is maqet's time over the comparator's, taken within each pair. It is not
// the ratio of the medians: two halves of a pair share the computer's mood, two
// medians do not.
func Ratio(pairs []Pair) Spread {
	return spreadOf(valuesOf(pairs, func(p Pair) (float64, bool) {
		if p.Raw <= 0 {
			return 0, false
		}
		return p.Ours.Seconds() / p.Raw.Seconds(), true
	}))
}

func valuesOf(pairs []Pair, value func(Pair) (float64, bool)) []float64 {
	values := make([]float64, 0, len(pairs))
	for _, p := range pairs {
		if v, ok := value(p); ok {
			values = append(values, v)
		}
	}
	return values
}
