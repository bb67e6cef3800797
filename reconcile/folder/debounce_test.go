package folder

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDebounce_changes_areReportedTogether(t *testing.T) {
	const ms = time.Millisecond
	steady := func(step, until time.Duration) (at []time.Duration) {
		for d := time.Duration(0); d <= until; d += step {
			at = append(at, d)
		}
		return at
	}
	tests := []struct {
		name    string
		changes []time.Duration // when they come
		want    []time.Duration // when they are reported
	}{
		{"none", nil, nil},
		{"one", []time.Duration{0}, []time.Duration{100 * ms}},
		{"a burst", []time.Duration{0, 10 * ms, 90 * ms, 180 * ms}, []time.Duration{280 * ms}},
		{"two apart", []time.Duration{0, 101 * ms}, []time.Duration{100 * ms, 201 * ms}},
		{"never quiet", steady(30*ms, 2500*ms), []time.Duration{1000 * ms, 2020 * ms, 2590 * ms}},
		{"once more after the longest delay", append(steady(50*ms, 950*ms), 1010*ms), []time.Duration{1000 * ms, 1110 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, start := newDebounce(100*ms, 1000*ms), time.Now()
				arrivals := make(chan struct{})
				go func() {
					for _, at := range tt.changes {
						<-time.After(time.Until(start.Add(at)))
						arrivals <- struct{}{}
					}
				}()
				var got []time.Duration
				for end := time.After(time.Minute); end != nil; {
					select {
					case <-arrivals:
						d.note()
					case <-d.due():
						d.taken()
						got = append(got, time.Since(start))
					case <-end:
						end = nil
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("reports (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestDebounce_takenEarly_reportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDebounce(time.Second, time.Minute)
		d.note()
		d.taken()
		select {
		case <-d.due():
			t.Error("what was taken is reported again")
		case <-time.After(time.Hour):
		}
	})
}
