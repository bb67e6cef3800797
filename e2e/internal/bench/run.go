package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Case is one comparison.
type Case struct {
	// Name is what -run selects by.
	Name string
	// Does says what maqet does; Against what it is held against, empty when
	// nothing is.
	Does, Against string
	// Aim is what is hoped for, in words; nothing fails because of it.
	Aim string
	// Unit is what is measured: time, unless it says otherwise.
	Unit Unit
	// Heavy cases take seconds for each pair and get a quarter of the runs.
	Heavy bool
	// Open arranges what all pairs need. An error that is ErrSkip leaves the case
	// out, with its reason.
	Open func(ctx context.Context, lab *Lab) (Bench, error)
}

// Bench is a case that was opened.
type Bench struct {
	// Ours and Raw are the halves of a pair. An empty Raw is no comparator.
	Ours, Raw Half
	// Close undoes what Open did; it may be nil.
	Close func(ctx context.Context) error
}

// Half is one side of a comparison.
type Half struct {
	// Before arranges one run; its time does not count. It may be nil.
	Before func(ctx context.Context) error
	// Do is what is measured by how long it takes.
	Do func(ctx context.Context) error
	// Value, in place of Do, measures by itself, in the case's unit.
	Value func(ctx context.Context) (float64, error)
	// After checks that Do did what it is measured for; its time does not count.
	// It may be nil.
	After func(ctx context.Context) error
}

// ErrSkip is wrapped, with the reason, by a case that cannot be run here.
var ErrSkip = errors.New("skipped")

// Result is what a case came to.
type Result struct {
	Case  Case
	Pairs []Pair
	// Err is why there are no pairs, or fewer than asked for.
	Err error
}

// fewest is how many runs a heavy case gets at least.
const fewest = 3

// runs is how many pairs of a case are measured when n are asked for.
func (c Case) runs(n int) int {
	if !c.Heavy {
		return n
	}
	return min(n, max(fewest, n/4))
}

// Run measures n pairs of a case (fewer of a heavy one), after one more that
// fills caches and does not count. What was measured before an error is kept.
func Run(ctx context.Context, lab *Lab, c Case, n int) Result {
	result := Result{Case: c}
	b, err := c.Open(ctx, lab)
	if err != nil {
		result.Err = fmt.Errorf("%s: %w", c.Name, err)
		return result
	}
	if b.Close != nil {
		defer func() {
			if err := b.Close(ctx); err != nil {
				result.Err = errors.Join(result.Err, fmt.Errorf("%s: %w", c.Name, err))
			}
		}()
	}
	for i := range c.runs(n) + 1 {
		pair, err := b.pair(ctx)
		if err != nil {
			result.Err = fmt.Errorf("%s, run %d: %w", c.Name, i, err)
			return result
		}
		if i > 0 {
			result.Pairs = append(result.Pairs, pair)
		}
	}
	return result
}

// pair measures one half, then the other.
func (b Bench) pair(ctx context.Context) (Pair, error) {
	ours, err := b.Ours.measure(ctx)
	if err != nil || b.Raw.Do == nil && b.Raw.Value == nil {
		return Pair{Ours: ours}, err
	}
	raw, err := b.Raw.measure(ctx)
	return Pair{Ours: ours, Raw: raw}, err
}

func (h Half) measure(ctx context.Context) (float64, error) {
	if h.Before != nil {
		if err := h.Before(ctx); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	value, err := h.value(ctx)
	if err == nil && h.After != nil {
		err = h.After(ctx)
	}
	return value, err
}

// value is how long Do takes, in seconds, or what Value says.
func (h Half) value(ctx context.Context) (float64, error) {
	if h.Value != nil {
		return h.Value(ctx)
	}
	start := time.Now()
	err := h.Do(ctx)
	return time.Since(start).Seconds(), err
}
