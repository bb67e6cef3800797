package reconcile

import (
	"context"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// awaitedObserver notes what is awaited.
type awaitedObserver struct {
	Observer
	awaited []driver.Awaited
}

func (o *awaitedObserver) Await(ctx context.Context, name string, vm *manifest.VirtualMachine, what driver.Awaited) error {
	o.awaited = append(o.awaited, what)
	return o.Observer.Await(ctx, name, vm, what)
}

func TestConverge_wait_saysWhetherTheEndWasAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(w *world) (Result, error)
		ending bool
	}{
		"stop": {func(w *world) (Result, error) {
			return w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped}, Options{})
		}, true},
		"restart": {func(w *world) (Result, error) { return w.engine.Restart(w.Context(), "web", Options{}) }, true},
		"delete":  {func(w *world) (Result, error) { return w.engine.Delete(w.Context(), "web", DeleteOptions{}) }, true},
		"ready": {func(w *world) (Result, error) {
			w.host.readyTakes = time.Minute
			report := w.apply(ApplyOptions{Wait: true}, newVM("other", probed))
			return report.Results[0], nil
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.apply(ApplyOptions{}, newVM("web"))
				seen := &awaitedObserver{Observer: w.host}
				w.engine.cfg.Ports.Observer = seen
				if _, err := c.do(w); err != nil {
					t.Fatal(err)
				}
				if len(seen.awaited) == 0 {
					t.Fatal("nothing was waited for")
				}
				for _, what := range seen.awaited {
					if what.Ending != c.ending {
						t.Errorf("awaited %+v", what)
					}
				}
			})
		})
	}
}
