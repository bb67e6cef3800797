package folder

import "time"

// debounce turns a stream of changes into few reports: one when it has been
// quiet for a while, and one after a bounded time when it never is. It is used
// by one goroutine.
type debounce struct {
	quiet, most time.Duration

	timer *time.Timer
	since time.Time // of the first change that is not reported; zero: there is none
}

// newDebounce is a debounce with nothing to report.
func newDebounce(quiet, most time.Duration) *debounce {
	d := &debounce{quiet: quiet, most: most, timer: time.NewTimer(time.Hour)}
	d.timer.Stop()
	return d
}

// note takes a change in.
func (d *debounce) note() {
	now := time.Now()
	if d.since.IsZero() {
		d.since = now
	}
	d.timer.Reset(max(0, min(d.quiet, d.since.Add(d.most).Sub(now))))
}

// due receives when it is time to report; taken must then be called.
func (d *debounce) due() <-chan time.Time { return d.timer.C }

// taken begins anew: what was noted is being reported.
func (d *debounce) taken() {
	d.since = time.Time{}
	d.timer.Stop()
}
