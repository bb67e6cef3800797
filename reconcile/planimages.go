package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// A disk stays bound to the image that it was made of. What the manifest names now
// may be another: that is a change that costs the disk, so it is made only on a
// person's word for just this disk, and even then the old one is kept.

// imageChange is a disk that was made of another image than it should be.
type imageChange struct {
	disk manifest.Disk
	// from and to are digests; empty for no image.
	from, to string
	// known is false while nobody knows which image it should be.
	known bool
	// word is true when a person has said that it shall be made anew.
	word bool
}

// imageChanges are the disks that were made of another image than they should be.
func (p *planner) imageChanges() []imageChange {
	var found []imageChange
	for _, d := range p.spec.Disks {
		f := p.obs.Files[d.Name]
		if !d.IsMade() || !f.Exists {
			continue
		}
		to, known := p.wantedImage(d)
		if _, declared := p.obs.Images[d.Image]; known && f.Image == to || d.Image != "" && !declared {
			continue
		}
		w, said := p.rec.Recreate[d.Name]
		found = append(found, imageChange{
			disk: d, from: f.Image, to: to, known: known, word: known && said && w.From == f.Image && w.To == to,
		})
	}
	return found
}

// wantedImage is the digest of the image that a disk should be made of; empty for
// none. It is not known of a file that was never taken.
func (p *planner) wantedImage(d manifest.Disk) (digest string, known bool) {
	if d.Image == "" {
		return "", true
	}
	digest = p.obs.Images[d.Image].Digest
	return digest, digest != ""
}

// showImages puts the changes of images into the plan.
func (p *planner) showImages(changes []imageChange) {
	for _, c := range changes {
		ch := Change{
			Path: "spec.disks[" + c.disk.Name + "].image", From: imageWords("", c.from), To: imageWords(c.disk.Image, c.to),
			Class: ClassRecreate, Pending: !c.word,
		}
		if slices.Contains(p.rec.StartedDisks, c.disk.Name) {
			ch.Class = ClassDataLoss
		}
		word := "--recreate-disk " + p.plan.Machine + "/" + c.disk.Name
		switch {
		case c.word:
			ch.Why = "the disk is made anew, as was said; the old one is kept"
		case !c.known:
			ch.To = c.disk.Image + " (never taken)"
			ch.Why = "the disk is kept as it is; maqet image pull " + c.disk.Image + " takes the file"
		default:
			ch.Why = "the disk is kept as it is; " + word + " makes a new one without what the guest wrote, and keeps the old one aside"
		}
		if tags := p.tagsOn(c.disk.Name); len(tags) > 0 {
			ch.Why += ", with its snapshots " + strings.Join(tags, ", ")
		}
		p.change(ch)
	}
}

// tagsOn are the snapshots on a disk, as far as they are known.
func (p *planner) tagsOn(disk string) []string {
	var tags []string
	for tag, s := range p.obs.Snapshots {
		if slices.Contains(s.Disks, disk) {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return tags
}

// imageWords name an image.
func imageWords(name, digest string) string {
	short := manifest.ShortDigest(digest)
	switch {
	case digest == "":
		return "no image"
	case name == "":
		return short
	default:
		return name + " (" + short + ")"
	}
}

// anew are the disks that a person wants made anew.
func anew(changes []imageChange) []imageChange {
	return slices.DeleteFunc(slices.Clone(changes), func(c imageChange) bool { return !c.word })
}

// recreate makes disks anew, of a machine that has no process.
func (p *planner) recreate(changes []imageChange) {
	for _, c := range changes {
		p.step(Step{Kind: StepSetAside, Disk: c.disk.Name, Digest: c.from, Why: "it is made anew"})
		p.create(c.disk)
	}
}

// create makes a disk that does not exist.
func (p *planner) create(d manifest.Disk) { p.step(p.createStep(d)) }

// createStep is the step that makes a disk.
func (p *planner) createStep(d manifest.Disk) Step {
	if d.Image == "" {
		return Step{Kind: StepCreateDisk, Disk: d.Name, Why: "an empty disk of " + d.Size.String()}
	}
	image := p.obs.Images[d.Image]
	size := cmp.Or(d.Size, manifest.Quantity(image.Size))
	return Step{
		Kind: StepCreateDisk, Disk: d.Name, Image: d.Image, Digest: image.Digest,
		Why: fmt.Sprintf("a disk of %s, made of image %s", size, imageWords(d.Image, image.Digest)),
	}
}

// ready tells whether all images are here that disks are to be made of, and plans
// to wait for those that are not. Not ready too is what never can be made; then
// there is a problem.
func (p *planner) ready(disks []manifest.Disk) bool {
	ok := true
	var missing []string
	for _, d := range disks {
		if d.Image == "" || slices.Contains(missing, d.Image) {
			continue
		}
		state, known := p.obs.Images[d.Image]
		switch {
		case !known:
			ok = false
			p.problem(ReasonImageMissing, fmt.Sprintf("disk %s: no image is named %s", d.Name, d.Image), "apply a manifest of kind Image with that name")
		case state.Err != "":
			ok = false
			p.problem(ReasonImageUnusable, fmt.Sprintf("disk %s: image %s: %s", d.Name, d.Image, state.Err), state.Hint)
		case !state.Present:
			missing = append(missing, d.Image)
		case d.Size != 0 && d.Size.Bytes() < state.Size:
			ok = false
			p.problem(ReasonDiskTooSmall,
				fmt.Sprintf("disk %s would have %s, and image %s has %s", d.Name, d.Size, d.Image, manifest.Quantity(state.Size)),
				"set spec.disks["+d.Name+"].size to at least that, or remove it")
		}
	}
	if ok && len(missing) > 0 {
		p.plan.Wait = &Wait{For: imagesWords(missing) + " to be fetched", Images: missing}
	}
	return ok && len(missing) == 0
}

func imagesWords(names []string) string {
	if len(names) == 1 {
		return "image " + names[0]
	}
	return "images " + strings.Join(names, ", ")
}

// lost are the disks whose image is gone and can be fetched again; not ok when
// there are others, which cannot be read without it.
func (p *planner) lost() (again []manifest.Disk, ok bool) {
	ok = true
	for _, d := range p.spec.Disks {
		f := p.obs.Files[d.Name]
		if !d.IsMade() || !f.Lost {
			continue
		}
		image := p.obs.Images[d.Image]
		switch {
		case d.Image != "" && image.Digest == f.Image && !image.Present:
			again = append(again, manifest.Disk{Name: d.Name, Image: d.Image})
		case image.Present && image.Digest == f.Image:
			ok = false
			p.problem(ReasonImageLost, fmt.Sprintf("disk %s reads from %s, which is gone, although its image is in %s", d.Name, f.Backing, image.Path),
				fmt.Sprintf("say so in the disk itself: qemu-img rebase -u -F %s -b %s %s", image.Format, image.Path, f.Path))
		default:
			ok = false
			p.problem(ReasonImageLost, fmt.Sprintf("disk %s reads from %s, which is gone", d.Name, f.Backing),
				"bring the file back, or let the Image object name "+cmp.Or(manifest.ShortDigest(f.Image), "that image")+" again, so that it is fetched")
		}
	}
	return again, ok
}

// missingDisks are those that a start would have to make.
func (p *planner) missingDisks() []manifest.Disk {
	var missing []manifest.Disk
	for _, d := range p.spec.Disks {
		if f, looked := p.obs.Files[d.Name]; d.Image != "" && looked && !f.Exists {
			missing = append(missing, d)
		}
	}
	return missing
}

// disksOf are the disks of changes.
func disksOf(changes []imageChange) []manifest.Disk {
	disks := make([]manifest.Disk, 0, len(changes))
	for _, c := range changes {
		disks = append(disks, c.disk)
	}
	return disks
}

// replaced tells that a disk without a file was moved away to be made anew, and
// whoever did that was cut off.
func (p *planner) replaced(d manifest.Disk) bool {
	w, said := p.rec.Recreate[d.Name]
	to, known := p.wantedImage(d)
	return said && known && w.To == to
}

// pulling is what a machine waits for whose images are not here, as a reason.
func pulling(obs *driver.Observed, w *Wait) string {
	if w == nil || len(w.Images) == 0 {
		return ""
	}
	reason := ReasonImagePending
	for _, name := range w.Images {
		switch s := obs.Images[name]; {
		case s.Pull != nil:
			return ReasonImagePulling
		case s.Failed != "":
			reason = ReasonImagePullFailed
		}
	}
	return reason
}
