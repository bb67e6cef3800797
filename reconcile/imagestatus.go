package reconcile

import (
	"context"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// ImagePhase is one word for how an image is.
type ImagePhase string

// The phases of images.
const (
	// ImagePending is not here: it is fetched when a disk is to be made of it, or
	// by command.
	ImagePending ImagePhase = "Pending"
	// ImagePulling is being fetched.
	ImagePulling ImagePhase = "Pulling"
	// ImageReady is here, verified and checked.
	ImageReady ImagePhase = "Ready"
	// ImageFailed could not be fetched, or cannot be used.
	ImageFailed ImagePhase = "Failed"
)

// ImageStatus is the .status of an Image as it is shown to programs.
type ImageStatus struct {
	Phase ImagePhase `json:"phase"`
	// Digest is that of the spec or, for a file without one, that of the file when
	// it was taken; empty before.
	Digest string `json:"digest,omitempty"`
	// Size is what a guest sees, Stored what the image takes on the host, Path where
	// it is; only of an image that is Ready.
	Size   manifest.Quantity `json:"size,omitempty"`
	Stored int64             `json:"stored,omitempty"`
	Path   string            `json:"path,omitempty"`
	// Pull is how far it is while it is being fetched.
	Pull *driver.Transfer `json:"pull,omitempty"`
	// Changed tells that its file, which has no digest, has changed since it was taken.
	Changed bool `json:"changed,omitempty"`
	// Message says why it failed, or what is to be known.
	Message string `json:"message,omitempty"`
	// UsedBy are the machines that have disks of it by their manifests.
	UsedBy []string `json:"usedBy"`
}

// ImageView is one Image object as it is now.
type ImageView struct {
	Image  *state.Image
	Status ImageStatus
}

// Images looks at the named Image objects; without names at all of them.
func (e *Engine) Images(ctx context.Context, names []string) ([]ImageView, error) {
	var views []ImageView
	err := e.cfg.Store.View(ctx, func(tx Tx) error {
		all, err := tx.Images()
		if err != nil {
			return err
		}
		machines, err := tx.Machines()
		if err != nil {
			return err
		}
		views = views[:0]
		for _, i := range all {
			v := ImageView{Image: i, Status: ImageStatus{UsedBy: []string{}}}
			for _, m := range machines {
				if usesImage(m, i.Object.Metadata.Name) {
					v.Status.UsedBy = append(v.Status.UsedBy, m.Object.Metadata.Name)
				}
			}
			views = append(views, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if views, err = pickImages(views, names); err != nil {
		return nil, err
	}
	for i := range views {
		s := &views[i].Status
		*s = imageStatusOf(e.cfg.Ports.Images.Look(views[i].Image.Object.Spec), s.UsedBy)
	}
	return views, nil
}

func pickImages(all []ImageView, names []string) ([]ImageView, error) {
	if len(names) == 0 {
		return all, nil
	}
	picked := make([]ImageView, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(all, func(v ImageView) bool { return v.Image.Object.Metadata.Name == name })
		if i < 0 {
			return nil, &Error{Object: "img/" + name, Op: "look at", Err: ErrNotFound, Hint: "see maqet get img for the names; apply a manifest to make one"}
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

func imageStatusOf(is driver.ImageState, usedBy []string) ImageStatus {
	s := ImageStatus{
		Phase: ImagePending, Digest: is.Digest, Size: manifest.Quantity(is.Size), Stored: is.Stored, Path: is.Path,
		Pull: is.Pull, Changed: is.Changed, UsedBy: usedBy,
	}
	switch {
	case is.Err != "":
		s.Phase, s.Message = ImageFailed, is.Err
		if is.Hint != "" {
			s.Message += "; " + is.Hint
		}
	case is.Present && is.Changed:
		s.Phase, s.Message = ImageReady, "its file has changed since it was taken; maqet image pull takes it anew"
	case is.Present:
		s.Phase = ImageReady
	case is.Pull != nil:
		s.Phase, s.Message = ImagePulling, is.Pull.What+", by "+is.Pull.Who
	case is.Failed != "":
		s.Phase, s.Message = ImageFailed, is.Failed
	}
	return s
}

// PulledImage is what came of fetching one image.
type PulledImage struct {
	Name  string            `json:"name"`
	State driver.ImageState `json:"state"`
	// Fetched is false when it was here already.
	Fetched bool  `json:"fetched"`
	Err     error `json:"-"`
}

// PullImages fetches images, several at once. The results are in the order given.
func (e *Engine) PullImages(ctx context.Context, images []*manifest.Image) []PulledImage {
	results := make([]PulledImage, len(images))
	each(len(images), func(i int) {
		name, spec := images[i].Metadata.Name, images[i].Spec
		r := PulledImage{Name: name}
		if before := e.cfg.Ports.Images.Look(spec); before.Present && !before.Changed {
			r.State = before
			results[i] = r
			return
		}
		e.tell(Event{Step: stepPull, Image: name, Message: "fetching"})
		r.State, r.Err = e.cfg.Ports.Images.Pull(ctx, spec, func(t driver.Transfer) {
			e.tell(Event{Step: stepPull, Image: name, Message: t.What, Transfer: &t})
		})
		switch {
		case r.Err != nil && ctx.Err() != nil:
			r.Err = &Error{Object: "img/" + name, Op: "fetch", Err: ErrInterrupted, Detail: "what was fetched so far is kept", Hint: "do the same again to go on"}
		case r.Err != nil:
			r.Err = &Error{Object: "img/" + name, Op: "pull", Err: r.Err}
		}
		r.Fetched = r.Err == nil
		e.tell(Event{Step: stepPull, Image: name, Message: "over", Err: r.Err, Done: r.Err == nil})
		results[i] = r
	})
	return results
}

// DeleteImage forgets an Image object that no machine needs. What is stored of it
// stays until it is pruned.
func (e *Engine) DeleteImage(ctx context.Context, name string) error {
	live := e.live(ctx)
	refuse := func(cause error, detail, hint string) error {
		return &Error{Object: "img/" + name, Op: "delete", Err: cause, Detail: detail, Hint: hint}
	}
	return e.cfg.Store.Update(ctx, func(tx Tx) error {
		old, err := tx.Image(name)
		if err != nil {
			return err
		}
		if old == nil {
			return refuse(ErrNotFound, "", "see maqet get img for the names")
		}
		if live != nil && live.Owner == old.Owner {
			return refuse(ErrWatched, watchWords(live)+" and would make it again", "remove it from "+old.Source+" first")
		}
		machines, err := tx.Machines()
		if err != nil {
			return err
		}
		var users []string
		for _, m := range machines {
			if m.Deleting == nil && usesImage(m, name) {
				users = append(users, "vm/"+m.Object.Metadata.Name)
			}
		}
		if len(users) > 0 {
			return refuse(ErrInUse, "disks of "+strings.Join(users, ", ")+" are made of it", "delete those machines first, or take it out of their disks")
		}
		return tx.DeleteImage(name)
	})
}
