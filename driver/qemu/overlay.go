package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// CreateOverlay makes a disk of an image that is present. That it is of just this
// image is recorded with the machine's identity before, and lies in the disk
// itself, which names its image by digest. An existing file is never touched, and
// is no error. The caller holds the machine's lock.
func (d *Driver) CreateOverlay(ctx context.Context, vm *manifest.VirtualMachine, name string, image driver.ImageState) error {
	machine := vm.Metadata.Name
	op := "create disk " + name + " of"
	for i := range vm.Spec.Disks {
		want := &vm.Spec.Disks[i]
		if want.Name != name {
			continue
		}
		if !image.Present {
			return fail(op, machine, fmt.Errorf("image %s is not here", want.Image), "run maqet image pull "+want.Image)
		}
		if err := notRestoring(d.layout.Disk(machine, name)); err != nil {
			return fail(op, machine, err, restoreAgain)
		}
		return fail(op, machine, d.createOverlay(ctx, machine, want, image), "")
	}
	return fail(op, machine, errors.New("the machine has no such disk"), "name one of spec.disks")
}

func (d *Driver) createOverlay(ctx context.Context, machine string, want *manifest.Disk, image driver.ImageState) error {
	// Whoever removes images looks under this lock whether something reads from them.
	ctx, cancel := context.WithTimeout(ctx, d.timing.Lock+d.timing.Image)
	defer cancel()
	lock, err := d.locks.Lock(ctx, d.layout.ImageLock(layout.ImageKey(image.Digest)))
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }() // the kernel frees it all the same
	path := d.layout.Disk(machine, want.Name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.recordImage(machine, want.Name, image.Digest); err != nil {
		return err
	}
	base := disk.Base{Path: image.Path, Format: image.Format, Size: image.Size}
	return d.images.CreateOverlay(ctx, path, base, want.Size)
}

// recordImage writes into the identity which image a disk is made of; empty for
// none. A machine that has no identity yet has nothing wrong in it.
func (d *Driver) recordImage(machine, disk, digest string) error {
	id, err := d.readIdentity(machine)
	if err != nil || id == nil || id.Images[disk] == digest {
		return err
	}
	next := *id
	next.Images = maps.Clone(id.Images)
	if next.Images == nil {
		next.Images = map[string]string{}
	}
	if next.Images[disk] = digest; digest == "" {
		delete(next.Images, disk)
	}
	return d.writeIdentity(machine, next)
}

// ofNoImage records that a disk that is about to be made is of no image. One that
// is there already is left as it is.
func (d *Driver) ofNoImage(machine, disk string) error {
	if _, err := os.Lstat(d.layout.Disk(machine, disk)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.recordImage(machine, disk, "")
}

// SetAside moves a disk's file of a machine that has no process into a folder among
// the kept ones, and tells which.
func (d *Driver) SetAside(ctx context.Context, vm *manifest.VirtualMachine, name string) (keptAt string, err error) {
	machine := vm.Metadata.Name
	op := "set aside disk " + name + " of"
	if err := d.usable(machine); err != nil {
		return "", fail(op, machine, err, "")
	}
	err = d.whileAbsent(ctx, op, machine, func(l *look) error {
		to, err := freeFolder(keptFolder(d.layout, machine, l))
		if err != nil {
			return err
		}
		keptAt = filepath.Join(to, filepath.Base(d.layout.Disk(machine, name)))
		return d.images.SetAside(ctx, d.layout.Disk(machine, name), to)
	})
	return keptAt, fail(op, machine, err, "")
}

// bound fills in which image a disk that maqet made is of: by the machine's
// identity, or by the name of the file that it reads from.
func (o *observation) bound(f *driver.DiskFile, disk string) {
	if o.Identity != nil {
		f.Image = o.Identity.Images[disk]
	}
	h, err := readHeader(f.Path)
	if err != nil || h.Backing == "" {
		return // What QEMU makes of the file, it tells itself.
	}
	f.Backing = h.BackingPath(f.Path)
	if digest, ok := layout.DigestOfImage(f.Backing); ok && f.Image == "" {
		f.Image = digest
	}
	_, err = os.Stat(f.Backing)
	f.Lost = f.Backing != "" && errors.Is(err, fs.ErrNotExist)
}

// readHeader keeps the name disk free for disks.
func readHeader(path string) (disk.Header, error) { return disk.ReadHeader(path) }

// openBases lets the user of another account read the images that the machine's
// disks read from. They are shared, so they stay maqet's own.
func (d *Driver) openBases(vm *manifest.VirtualMachine) error {
	const readable fs.FileMode = 0o044
	for i := range vm.Spec.Disks {
		want := &vm.Spec.Disks[i]
		if !want.IsMade() {
			continue
		}
		path := d.layout.Disk(vm.Metadata.Name, want.Name)
		h, err := readHeader(path)
		if err != nil || h.Backing == "" {
			continue
		}
		base := h.BackingPath(path)
		if filepath.Dir(base) != d.layout.ImageDir() {
			continue
		}
		for _, open := range []struct {
			path string
			bits fs.FileMode
		}{{d.layout.ImageDir(), passable}, {base, readable}} {
			info, err := os.Stat(open.path)
			if err != nil {
				return err
			}
			if info.Mode()&open.bits != open.bits {
				if err := os.Chmod(open.path, info.Mode().Perm()|open.bits); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
