package bench

import "slices"

// Pair is one turn: maqet, and right after it what it is held against, in the
// unit of the case. Raw is zero in cases without a comparator.
type Pair struct {
	Ours float64 `json:"maqet"`
	Raw  float64 `json:"raw,omitempty"`
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

// Ours is what was measured of maqet.
func Ours(pairs []Pair) Spread {
	return spreadOf(valuesOf(pairs, func(p Pair) (float64, bool) { return p.Ours, true }))
}

// Raw is what was measured of the comparator.
func Raw(pairs []Pair) Spread {
	return spreadOf(valuesOf(pairs, func(p Pair) (float64, bool) { return p.Raw, p.Raw > 0 }))
}

// Ratio is maqet's figure over the comparator's, taken within each pair. It is not
// the ratio of the medians: two halves of a pair share the computer's mood, two
// medians do not.
func Ratio(pairs []Pair) Spread {
	return spreadOf(valuesOf(pairs, func(p Pair) (float64, bool) {
		if p.Raw <= 0 {
			return 0, false
		}
		return p.Ours / p.Raw, true
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
