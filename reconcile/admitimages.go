package reconcile

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// image admits one image.
func (a *admission) image(o *manifest.Object) {
	name := o.Image.Metadata.Name
	old := a.images[name]
	if old == nil {
		a.images[name] = &state.Image{
			Object: *o.Image, Owner: a.owner, Source: o.Position.File, Generation: 1, Digest: o.Digest, Created: a.now, Updated: a.now,
		}
		a.note(o.Key(), ActionCreated, a.putImages)
		return
	}
	if a.conflict(o, old.Owner, old.Source, nil) {
		return
	}
	owner := a.claim(old.Owner)
	if old.Digest == o.Digest && old.Owner == owner {
		a.note(o.Key(), ActionUnchanged, nil)
		return
	}
	if a.watched(o, old.Owner, old.Source) {
		return
	}
	i := *old
	i.Object, i.Owner, i.Source, i.Digest, i.Updated = *o.Image, owner, o.Position.File, o.Digest, a.now
	if old.Object.Spec != o.Image.Spec {
		i.Generation++
	}
	a.images[name] = &i
	a.note(o.Key(), ActionConfigured, a.putImages)
}

// absentImages deals with images that the owner once had and that are in no
// manifest now. Only what is remembered of them goes: what is stored stays.
func (a *admission) absentImages(set *manifest.Set) {
	for _, name := range slices.Sorted(maps.Keys(a.images)) {
		old := a.images[name]
		key := manifest.ObjectKey{Kind: manifest.KindImage, Name: name}
		if old.Owner != a.owner || set.Lookup(key) != nil || a.sync.broken(old.Source) != "" {
			continue
		}
		users := a.usersOf(name)
		switch {
		case !a.opt.Prune || !set.Complete:
			a.note(key, ActionLeft, nil)
		case len(users) > 0:
			a.errs = append(a.errs, &Error{
				Object: key.String(), Op: "prune", Err: ErrInUse, Detail: "disks of " + strings.Join(users, ", ") + " are made of it",
				Hint: "put it back into the manifests, or take it out of those disks",
			})
		default:
			delete(a.images, name)
			a.note(key, ActionPruned, a.dropImages)
		}
	}
}

// usersOf are the machines that have disks of an image, those being deleted excepted.
func (a *admission) usersOf(image string) []string {
	var users []string
	for _, name := range slices.Sorted(maps.Keys(a.machines)) {
		if m := a.machines[name]; m.Deleting == nil && usesImage(m, image) {
			users = append(users, "vm/"+name)
		}
	}
	return users
}

func usesImage(m *state.Machine, image string) bool {
	return slices.ContainsFunc(m.Object.Spec.Disks, func(d manifest.Disk) bool { return d.Image == image })
}

// imagesOf are the images of a machine's disks, as the apply leaves them.
func (a *admission) imagesOf(machine string) map[string]*state.Image {
	found := map[string]*state.Image{}
	if m := a.machines[machine]; m != nil {
		for _, d := range m.Object.Spec.Disks {
			if i := a.images[d.Image]; i != nil {
				found[d.Image] = i
			}
		}
	}
	return found
}

// writeImages puts and forgets what changed.
func (a *admission) writeImages(tx Tx) error {
	for _, name := range slices.Sorted(maps.Keys(a.putImages)) {
		if err := tx.PutImage(a.images[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.dropImages)) {
		if err := tx.DeleteImage(name); err != nil {
			return err
		}
	}
	return nil
}

// recreate takes a person's word that disks shall be made anew into the records.
func (a *admission) recreate(words map[DiskName]state.Recreation) {
	for of, word := range words {
		old := a.machines[of.Machine]
		if old == nil || old.Deleting != nil {
			continue
		}
		m := *old
		m.Recreate = maps.Clone(old.Recreate)
		if m.Recreate == nil {
			m.Recreate = map[string]state.Recreation{}
		}
		m.Recreate[of.Disk] = word
		a.machines[of.Machine] = &m
		a.putMachines[of.Machine], a.converge[of.Machine] = true, true
	}
}

// recreations binds a person's words to just the change that there is now: which
// image each disk is made of, and which it shall be made of. What is so already
// needs no word.
func (e *Engine) recreations(ctx context.Context, set *manifest.Set, opt ApplyOptions) (map[DiskName]state.Recreation, error) {
	words := map[DiskName]state.Recreation{}
	for _, of := range opt.Recreate {
		vm := set.VM(of.Machine)
		refuse := func(cause error, detail, hint string) error {
			return &Error{Object: "vm/" + of.Machine, Op: "recreate disk " + of.Disk + " of", Err: cause, Detail: detail, Hint: hint}
		}
		if vm == nil {
			return nil, refuse(ErrNotFound, "the manifests have no such machine", "name a machine of the manifests that are applied")
		}
		at := slices.IndexFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == of.Disk })
		if at < 0 {
			return nil, refuse(ErrNotFound, "the machine has no such disk", "name one of spec.disks")
		}
		d := vm.Spec.Disks[at]
		if !d.IsMade() {
			return nil, refuse(ErrNotFound, "its data is none of maqet's", "put other data in its place yourself")
		}
		obs := e.cfg.Ports.Observer.Observe(ctx, of.Machine, vm, driver.DepthGuest)
		if obs.Presence != driver.Absent && obs.Presence != driver.Alive {
			return nil, refuse(ErrProblem, obs.Message, obs.Hint)
		}
		to := ""
		if d.Image != "" {
			spec, err := e.imageSpec(ctx, set, d.Image)
			if err != nil {
				return nil, err
			}
			state := e.cfg.Ports.Images.Look(spec)
			if state.Digest == "" {
				return nil, refuse(ErrProblem, "image "+d.Image+" was never taken, so that nobody knows what the disk would be made of", "run maqet image pull "+d.Image+" first")
			}
			to = state.Digest
		}
		f := obs.Files[of.Disk]
		if f.Exists && f.Image != to {
			words[of] = state.Recreation{From: f.Image, To: to, Since: e.cfg.Now(), Who: e.cfg.Who}
		}
	}
	return words, nil
}

// imageSpec is what an Image object of the set says, or one that is remembered.
func (e *Engine) imageSpec(ctx context.Context, set *manifest.Set, name string) (manifest.ImageSpec, error) {
	if o := set.Lookup(manifest.ObjectKey{Kind: manifest.KindImage, Name: name}); o != nil {
		return o.Image.Spec, nil
	}
	var found *state.Image
	err := e.cfg.Store.View(ctx, func(tx Tx) error {
		var err error
		found, err = tx.Image(name)
		return err
	})
	switch {
	case err != nil:
		return manifest.ImageSpec{}, err
	case found == nil:
		return manifest.ImageSpec{}, &Error{Object: "img/" + name, Op: "look at", Err: ErrNotFound, Hint: "apply a manifest of kind Image with that name"}
	default:
		return found.Object.Spec, nil
	}
}
