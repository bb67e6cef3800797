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
)

// stuckObserver looks for ever, until it is let go, whatever the context says.
type stuckObserver struct {
	Observer
	letGo chan struct{}
}

func (o stuckObserver) Observe(ctx context.Context, name string, vm *manifest.VirtualMachine, depth driver.Depth) driver.Observed {
	<-o.letGo
	return o.Observer.Observe(ctx, name, vm, depth)
}

func TestController_alive_isSaidByWorkersThatWork(t *testing.T) {
	for name, c := range map[string]struct {
		workers int
		stuck   bool
		want    error
	}{
		"idle":                   {workers: 1},
		"one of two in one look": {workers: 2, stuck: true},
		"all in a look for ever": {workers: 1, stuck: true, want: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host, store := newSimHost(), newMemStore()
				ports := host.ports()
				letGo := make(chan struct{})
				ports.Observer = stuckObserver{host, letGo}
				set := &manifest.Set{Roots: []string{"/vms"}, Complete: true}
				if c.stuck {
					o, err := manifest.NewObject(newVM("a"))
					if err != nil {
						t.Fatal(err)
					}
					set.Objects = append(set.Objects, o)
				}
				controller := NewController(ControllerConfig{
					Engine:  NewEngine(Config{Ports: ports, Store: store, Timing: timing.Default(), Who: "watch", BootID: "boot-1"}),
					Load:    func(context.Context) (*manifest.Set, error) { return set, nil },
					Options: ApplyOptions{Owner: "/vms"}, Workers: c.workers,
				})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- controller.Run(ctx) }()
				synctest.Wait()

				asking, enough := context.WithTimeout(ctx, time.Hour)
				defer enough()
				for range 2 {
					if err := controller.Alive(asking); !errors.Is(err, c.want) {
						t.Errorf("Alive = %v, want %v", err, c.want)
					}
				}
				close(letGo)
				if err := controller.Alive(ctx); err != nil {
					t.Errorf("let go: Alive = %v", err)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
