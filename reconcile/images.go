package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// imagesOf are the Image objects that a machine's disks name, as far as there are
// any of these names.
func imagesOf(tx Tx, m *state.Machine) (map[string]*state.Image, error) {
	found := map[string]*state.Image{}
	if m == nil {
		return found, nil
	}
	for _, d := range m.Object.Spec.Disks {
		if d.Image == "" || found[d.Image] != nil {
			continue
		}
		image, err := tx.Image(d.Image)
		if err != nil {
			return nil, err
		}
		if image != nil {
			found[d.Image] = image
		}
	}
	return found, nil
}

// sameImage tells whether two records name the same image.
func sameImage(a, b *state.Image) bool { return a.Object.Spec == b.Object.Spec }

// observe looks at a machine, and at the images that its disks should be made of.
func (e *Engine) observe(ctx context.Context, name string, want Desired, depth driver.Depth) driver.Observed {
	obs := e.cfg.Ports.Observer.Observe(ctx, name, want.vm(), depth)
	e.lookAtImages(&obs, want)
	return obs
}

// lookAtImages looks at the images that a machine's disks should be made of.
func (e *Engine) lookAtImages(obs *driver.Observed, want Desired) {
	for image, rec := range want.Images {
		if obs.Images == nil {
			obs.Images = make(map[string]driver.ImageState, len(want.Images))
		}
		obs.Images[image] = e.cfg.Ports.Images.Look(rec.Object.Spec)
	}
}

// pull fetches the images that a plan waits for. No lock of the machine is held.
func (r *run) pull(ctx context.Context, w Wait) error {
	for _, name := range w.Images {
		rec := r.want.Images[name]
		if rec == nil {
			continue // The object is gone; looking again says so.
		}
		r.e.tell(Event{Machine: r.name, Step: stepPull, Image: name, Message: "fetching image " + name})
		got, err := r.e.cfg.Ports.Images.Pull(ctx, rec.Object.Spec, func(t driver.Transfer) {
			r.e.tell(Event{Machine: r.name, Step: stepPull, Image: name, Message: t.What + " image " + name, Transfer: &t})
		})
		switch {
		case err != nil && ctx.Err() != nil:
			return r.interrupted(ctx.Err(), r.result.Plan.Steps)
		case err == nil && !got.Present:
			err = errors.New(got.Err)
		}
		if err != nil {
			err = &Error{Object: "img/" + name, Op: "pull", Err: err}
			r.e.tell(Event{Machine: r.name, Step: stepPull, Image: name, Message: "fetching image " + name + " failed", Err: err})
			r.happened(state.EventWarning, state.EventImagePullFailed, err.Error())
			return err
		}
		message := imageHere(name, got)
		r.e.tell(Event{Machine: r.name, Step: stepPull, Image: name, Message: message, Done: true})
		r.happened(state.EventNormal, state.EventImagePulled, message)
	}
	return nil
}

// stepPull is what events call the fetch of an image, which is no step of a pass.
const stepPull = "pull"

// imageHere says that an image is present.
func imageHere(name string, s driver.ImageState) string {
	return fmt.Sprintf("image %s is here: %s of %s (%s)", name, s.Format, manifest.Quantity(s.Size), manifest.ShortDigest(s.Digest))
}
