package imagestore

import (
	"context"
	"fmt"
	"time"

	"github.com/maqet/maqet/manifest"
)

// leastProgress is how many bytes within the time for stalling count as progress:
// a server that sends one byte every now and then has stalled all the same.
const leastProgress = 1 << 10

// stallWatch ends a context when nothing useful came for a while.
type stallWatch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
	fresh  int
}

// watchFor begins to watch. The context that it returns is the one that ends.
func watchFor(ctx context.Context, limit time.Duration) (context.Context, *stallWatch) {
	w := &stallWatch{limit: limit}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(limit, func() {
		w.cancel(fmt.Errorf("%w: less than %s came in %s (timeout \"stall\")", ErrStalled, manifest.Quantity(leastProgress), limit))
	})
	return w.ctx, w
}

// got tells that n bytes came.
func (w *stallWatch) got(n int) {
	if w.fresh += n; w.fresh >= leastProgress {
		w.reset()
	}
}

// reset gives the server the whole time again.
func (w *stallWatch) reset() {
	w.fresh = 0
	w.timer.Reset(w.limit)
}

// end ends the watch and what it watches.
func (w *stallWatch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// cause is why an attempt failed: the watch's own words when it ended it.
func (w *stallWatch) cause(err error) error {
	if err != nil && w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return err
}
