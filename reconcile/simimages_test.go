package reconcile

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// simImages are the images of a simulated host. Fetching one takes time.
type simImages struct {
	host *simHost

	mu sync.Mutex
	// present are the images that are here, pulling counts who fetches one.
	present map[string]bool
	pulling map[string]int
	failed  map[string]string
	// pulls are the fetches that were begun, by source; fail makes one fail.
	pulls []string
	fail  map[string]error
	takes time.Duration
	// cancelled counts fetches that were given up.
	cancelled int
}

func newSimImages(h *simHost) *simImages {
	return &simImages{host: h, present: map[string]bool{}, pulling: map[string]int{}, failed: map[string]string{}, fail: map[string]error{}, takes: 10 * time.Second}
}

// imageSize is what a guest sees of each image.
const simImageSize = 1 << 30

func (i *simImages) Look(spec manifest.ImageSpec) driver.ImageState {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := driver.ImageState{Digest: spec.Digest(), Failed: i.failed[spec.Source]}
	if i.present[spec.Source] {
		if s.Digest == "" {
			s.Digest = "sha256:of-" + spec.Source
		}
		s.Present, s.Path, s.Format, s.Size, s.Failed = true, "/images/"+s.Digest, string(spec.Format), simImageSize, ""
	}
	if i.pulling[spec.Source] > 0 {
		s.Pull, s.Failed = &driver.Transfer{What: "fetching", Done: 1, Total: 2, PID: 1, Who: "sim"}, ""
	}
	return s
}

func (i *simImages) Pull(ctx context.Context, spec manifest.ImageSpec, told func(driver.Transfer)) (driver.ImageState, error) {
	i.mu.Lock()
	if i.present[spec.Source] {
		i.mu.Unlock()
		return i.Look(spec), nil
	}
	i.pulls = append(i.pulls, spec.Source)
	i.pulling[spec.Source]++
	i.mu.Unlock()
	told(driver.Transfer{What: "fetching", Done: 1, Total: 2, PID: 1, Who: "sim"})
	i.host.mu.Lock()
	for name, locked := range i.host.locked {
		// Of several machines one may well be acted on while another waits; one whose
		// lock is taken before its first look is no machine of the host yet.
		alone := i.host.machines[name] != nil && len(i.host.machines) == 1
		i.host.waitedLocked = i.host.waitedLocked || locked && alone
	}
	i.host.mu.Unlock()
	after(ctx, i.takes)
	i.mu.Lock()
	i.pulling[spec.Source]--
	err := i.fail[spec.Source]
	switch {
	case ctx.Err() != nil:
		i.cancelled++
		err = ctx.Err()
	case err != nil:
		i.failed[spec.Source] = err.Error()
	default:
		i.present[spec.Source], i.failed[spec.Source] = true, ""
	}
	i.mu.Unlock()
	return i.Look(spec), err
}

// set changes the images.
func (i *simImages) set(do func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	do()
}

// givenUp is how many fetches were cancelled.
func (i *simImages) givenUp() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cancelled
}

// begun are the sources of all fetches, in order.
func (i *simImages) begun() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.pulls, " ")
}

func (h *simHost) CreateOverlay(ctx context.Context, vm *manifest.VirtualMachine, disk string, image driver.ImageState) error {
	if !image.Present {
		return errors.New("the image is not here")
	}
	if err := h.CreateDisk(ctx, vm, disk); err != nil {
		return err
	}
	h.touch(vm.Metadata.Name, func(m *simMachine) {
		f := m.obs.Files[disk]
		f.Image, f.Size = image.Digest, max(f.Size, image.Size)
		m.obs.Files[disk] = f
	})
	return nil
}

func (h *simHost) SetAside(ctx context.Context, vm *manifest.VirtualMachine, disk string) (string, error) {
	name := vm.Metadata.Name
	if err := h.call(ctx, "%s aside %s", name, disk); err != nil {
		return "", err
	}
	h.touch(name, func(m *simMachine) { delete(m.obs.Files, disk) })
	return "/kept/" + name + "/" + disk, nil
}

// newImage is an Image object whose digest begins with the given digits.
func newImage(name, source, digits string) *manifest.Image {
	spec := manifest.ImageSpec{Source: source, Format: manifest.FormatQcow2}
	if digits != "" {
		spec.SHA256 = digits + strings.Repeat("0", 64-len(digits))
	}
	return &manifest.Image{APIVersion: manifest.APIVersion, Kind: manifest.KindImage, Metadata: manifest.Metadata{Name: name}, Spec: spec}
}

// digest is the digest of a newImage.
func digest(digits string) string { return "sha256:" + digits + strings.Repeat("0", 64-len(digits)) }

// of makes the root disk one of an image.
func of(image string) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{{Name: "root", Image: image}} }
}

// image remembers an Image object, and how it is.
func (s *scene) image(name, digits string, is driver.ImageState) *scene {
	if s.want.Images == nil {
		s.want.Images = map[string]*state.Image{}
	}
	if s.obs.Images == nil {
		s.obs.Images = map[string]driver.ImageState{}
	}
	s.want.Images[name] = &state.Image{Object: *newImage(name, "/"+name, digits)}
	if digits != "" {
		is.Digest = digest(digits)
	}
	s.obs.Images[name] = is
	return s
}

// here is an image that is present.
func here() driver.ImageState {
	return driver.ImageState{Present: true, Path: "/images/x", Format: "qcow2", Size: simImageSize}
}
