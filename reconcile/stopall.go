package reconcile

import (
	"context"

	"github.com/maqet/maqet/driver"
)

// StopAll ends the processes of all machines, each as its manifest says a guest
// is asked to end, and leaves no trace of having been asked: whoever converges
// them next starts them again. A machine that is held to be left alone is.
func (e *Engine) StopAll(ctx context.Context, opt Options) ([]Result, error) {
	views, err := e.Views(ctx, nil, driver.DepthBrief)
	if err != nil {
		return nil, err
	}
	opt.Stop = true
	results := make([]Result, len(views))
	each(len(views), func(i int) {
		name := views[i].Machine.Object.Metadata.Name
		r, err := e.Converge(ctx, name, opt)
		r.Machine, r.Err = name, err
		results[i] = r
	})
	return results, nil
}
