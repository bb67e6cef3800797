package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/state"
)

// fetch is an image that machines wait for. It is fetched beside everything else:
// no worker waits for it.
type fetch struct {
	// waiting are the machines that need it.
	waiting map[string]bool
	// cancel ends the fetch that goes on; nil while none does.
	cancel context.CancelFunc
	// failures counts the tries in a row that failed, and notBefore is when the next
	// one begins.
	failures  int
	notBefore time.Time
}

// fetchKey tells images apart, and the versions of an object: a changed one is
// fetched at once, whatever became of the one before.
func fetchKey(image *state.Image) string { return image.Object.Metadata.Name + "\n" + image.Digest }

// fetchImages has the images fetched that a machine waits for, and gives up those
// that nobody waits for any more.
func (c *Controller) fetchImages(ctx context.Context, r *run) {
	wanted := map[string]*state.Image{}
	if w := r.result.Plan.Wait; w != nil && !r.result.Gone {
		for _, name := range w.Images {
			if image := r.want.Images[name]; image != nil {
				wanted[fetchKey(image)] = image
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, f := range c.fetches {
		if wanted[key] == nil && f.waiting[r.name] {
			c.unwait(key, f, r.name)
		}
	}
	now := c.engine.cfg.Now()
	for key, image := range wanted {
		f := c.fetches[key]
		if f == nil {
			f = &fetch{waiting: map[string]bool{}}
			c.fetches[key] = f
		}
		f.waiting[r.name] = true
		switch {
		case f.cancel != nil:
		case now.Before(f.notBefore):
			c.queue.AddAfter(r.name, f.notBefore.Sub(now))
		default:
			fetching, cancel := context.WithCancel(ctx)
			f.cancel = cancel
			c.goroutines.Go(func() { c.fetchImage(fetching, cancel, key, f, image) })
		}
	}
}

// unwait takes a machine out of those that wait for an image. The controller's
// mutex is held.
func (c *Controller) unwait(key string, f *fetch, machine string) {
	delete(f.waiting, machine)
	if len(f.waiting) > 0 {
		return
	}
	if f.cancel != nil {
		f.cancel()
	}
	delete(c.fetches, key)
}

// fetchImage fetches one image, and has the machines looked at that wait for it.
func (c *Controller) fetchImage(ctx context.Context, cancel context.CancelFunc, key string, f *fetch, image *state.Image) {
	defer cancel()
	name := image.Object.Metadata.Name
	c.log.Info("an image is fetched", "image", name)
	// Its machines are shown as what they wait for from now on.
	got, err := c.engine.cfg.Ports.Images.Pull(ctx, image.Object.Spec, func(driver.Transfer) {})
	c.mu.Lock()
	f.cancel = nil
	waiting := slices.Sorted(maps.Keys(f.waiting))
	current := c.fetches[key] == f && ctx.Err() == nil
	var pause time.Duration
	if current && err != nil {
		f.failures++
		pause = c.engine.options(Options{}).backoff(f.failures)
		f.notBefore = c.engine.cfg.Now().Add(pause)
	}
	if current && err == nil {
		delete(c.fetches, key)
	}
	c.mu.Unlock()
	switch {
	case !current:
		c.log.Info("an image is not waited for any more", "image", name)
		return
	case err != nil:
		c.log.Warn("an image could not be fetched", "image", name, "err", err, "again", pause)
	default:
		c.log.Info("an image is here", "image", name, "digest", got.Digest)
	}
	for _, machine := range waiting {
		event := c.engine.event(machine, 0, state.EventNormal, state.EventImagePulled, imageHere(name, got))
		if err != nil {
			event.Type, event.Reason, event.Message = state.EventWarning, state.EventImagePullFailed, "pull img/"+name+": "+err.Error()
		}
		c.engine.journal(ctx, []state.Event{event})
		// Even when it failed: how it is has changed. The next try comes by itself.
		c.queue.Add(machine)
		if pause > 0 {
			c.queue.AddAfter(machine, pause)
		}
	}
}
