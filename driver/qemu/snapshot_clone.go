package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// CloneSnapshot makes the disks and the identity of a new machine out of a snapshot,
// whether its machine runs or not. Disks that read from a stored image do so again,
// others are complete in themselves. The new machine has a uuid and addresses of its
// own; its board and the places of its devices are the old one's, since the guest's own
// configuration goes by them.
//
// Nothing is in the new machine's folder until the clone is placed; what a killed clone
// has left, the next one removes. Told hears how far it is, in percent.
func (d *Driver) CloneSnapshot(ctx context.Context, req driver.CloneRequest, told func(percent float64)) (driver.Clone, error) {
	clone, err := d.cloneSnapshot(ctx, req, told)
	return clone, fail("clone", req.VM.Metadata.Name, err, "")
}

func (d *Driver) cloneSnapshot(ctx context.Context, req driver.CloneRequest, told func(percent float64)) (driver.Clone, error) {
	if err := d.cloneFree(req.New); err != nil {
		return driver.Clone{}, err
	}
	all, err := d.sources(req.VM, req.Identity, req.Tag, req.Disks)
	if err != nil {
		return driver.Clone{}, err
	}
	if err := errors.Join(d.sweepWork(), d.sweepClones()); err != nil {
		return driver.Clone{}, err
	}
	lock, err := d.locks.TryLock(d.layout.CloneLock(req.New))
	if err != nil {
		return driver.Clone{}, fmt.Errorf("another clone of that name is being made: %w", err)
	}
	dir := d.layout.Clone(req.New)
	discard := func() {
		_ = os.RemoveAll(dir) // what stays, the next clone removes
		_ = lock.Unlock()     // the kernel frees it all the same
	}
	clone, err := d.cloneInto(ctx, dir, req, all, told)
	if err != nil {
		discard()
		return driver.Clone{}, err
	}
	clone.Discard = discard
	clone.Place = func(ctx context.Context) error {
		return fail("clone", req.VM.Metadata.Name, d.placeClone(ctx, dir, req.New), "")
	}
	return clone, nil
}

// cloneInto makes the clone in a folder of its own.
func (d *Driver) cloneInto(ctx context.Context, dir string, req driver.CloneRequest, all []source, told func(percent float64)) (driver.Clone, error) {
	if err := os.RemoveAll(dir); err != nil {
		return driver.Clone{}, err
	}
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return driver.Clone{}, err
	}
	target := func(s *source) disk.Target {
		return disk.Target{Format: manifest.FormatQcow2, Overlay: s.x.Base != nil, Size: s.at.Size}
	}
	if err := d.room(ctx, dir, all, target); err != nil {
		return driver.Clone{}, err
	}
	w, err := d.beginWork(driver.Work{Kind: driver.WorkClone, VM: req.VM.Metadata.Name, Snapshot: req.Tag, To: req.New})
	if err != nil {
		return driver.Clone{}, err
	}
	defer w.end()
	into := func(name string) string { return filepath.Join(dir, d.cloneFile(req.VM, name)) }
	copied, err := d.copyAll(ctx, all, into, target, func(percent float64) {
		w.tell(percent)
		told(percent)
	})
	if err != nil {
		return driver.Clone{}, err
	}
	id, err := d.cloneIdentity(req, copied)
	if err != nil {
		return driver.Clone{}, err
	}
	if err := writeJSON(filepath.Join(dir, filepath.Base(d.layout.Identity(req.New))), id); err != nil {
		return driver.Clone{}, err
	}
	for i := range copied {
		copied[i].Path = filepath.Join(d.layout.DiskDir(req.New), filepath.Base(copied[i].Path))
	}
	return driver.Clone{UID: id.UID, Disks: copied}, durable.SyncDir(dir)
}

// cloneFile is the file of a disk in its machine's folder.
func (d *Driver) cloneFile(vm *manifest.VirtualMachine, name string) string {
	if kind := driver.FirmwareKindOf(&vm.Spec); kind != "" && name == kind.NVRAMNode() {
		return filepath.Base(d.layout.NVRAM("x", string(kind)))
	}
	return filepath.Base(d.layout.Disk("x", name))
}

// cloneIdentity is the new machine's identity.
func (d *Driver) cloneIdentity(req driver.CloneRequest, copied []driver.CopiedDisk) (driver.Identity, error) {
	uid, err := uuid.NewRandomFromReader(rand.Reader)
	if err != nil {
		return driver.Identity{}, err
	}
	id := driver.Identity{Version: driver.IdentityVersion, UID: uid.String(), Created: d.now().UTC()}
	if from := req.Identity; from != nil {
		id.Machine, id.Firmware, id.Slots = from.Machine, maps.Clone(from.Firmware), maps.Clone(from.Slots)
	}
	for _, c := range copied {
		if c.Image == "" {
			continue
		}
		if id.Images == nil {
			id.Images = map[string]string{}
		}
		id.Images[c.Disk] = c.Image
	}
	return id, nil
}

// cloneFree refuses a name that has disks.
func (d *Driver) cloneFree(name string) error {
	if err := d.usable(name); err != nil {
		return err
	}
	dir := d.layout.DiskDir(name)
	// An identity without a disk is nobody's any more.
	if more, err := d.keepsMore(dir); err != nil || !more {
		return err
	}
	return fmt.Errorf("%w: %s has disks in %s; take another name, or see maqet disk orphans", fs.ErrExist, name, dir)
}

// placeClone gives the clone to its machine.
func (d *Driver) placeClone(ctx context.Context, dir, name string) error {
	return d.whileAbsent(ctx, "clone", name, func(*look) error {
		if err := d.cloneFree(name); err != nil {
			return err
		}
		// What is there is not worth keeping.
		if err := d.images.Remove(ctx, d.layout.DiskDir(name)); err != nil {
			return err
		}
		return d.images.Keep(ctx, dir, d.layout.DiskDir(name))
	})
}

// sweepClones removes what killed clones have left.
func (d *Driver) sweepClones() error {
	entries, err := os.ReadDir(filepath.Dir(d.layout.Clone("x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), layout.ClonePrefix)
		if !ours || checkName(d.layout, name) != nil {
			continue
		}
		lock, err := d.locks.TryLock(d.layout.CloneLock(name))
		if errors.Is(err, filelock.ErrHeld) {
			continue // it is being made
		}
		if err != nil {
			return err
		}
		err = os.RemoveAll(d.layout.Clone(name))
		_ = lock.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
