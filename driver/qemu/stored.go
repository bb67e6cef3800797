package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// diskSuffix ends the names of the images that maqet makes.
const diskSuffix = ".qcow2"

// maxAsking is how many images are looked into at once.
const maxAsking = 8

// StoredDisks are all images in the state dir, in the order of their names: those in
// the machines' folders, and those kept of deleted machines.
func (d *Driver) StoredDisks(ctx context.Context) ([]driver.StoredDisk, error) {
	var all []driver.StoredDisk
	root := filepath.Dir(d.layout.DiskDir("x"))
	for _, of := range []struct{ dir, prefix string }{{root, ""}, {d.keptRoot(), driver.KeptPrefix}} {
		folders, err := os.ReadDir(of.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list the disks: %w", err)
		}
		for _, f := range folders {
			if !f.IsDir() || strings.HasPrefix(f.Name(), ".") {
				continue
			}
			found, err := storedIn(filepath.Join(of.dir, f.Name()), of.prefix+f.Name())
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	slots := make(chan struct{}, maxAsking)
	var asking sync.WaitGroup
	for i := range all {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			d.lookInto(ctx, &all[i])
		})
	}
	asking.Wait()
	slices.SortFunc(all, func(a, b driver.StoredDisk) int { return strings.Compare(a.Name(), b.Name()) })
	return all, ctx.Err()
}

// keptRoot holds the folders of deleted machines.
func (d *Driver) keptRoot() string { return filepath.Dir(d.layout.Kept("x", "y")) }

// storedIn are the images in one folder.
func storedIn(dir, folder string) ([]driver.StoredDisk, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it was moved or deleted meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("list the disks of %s: %w", folder, err)
	}
	var found []driver.StoredDisk
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), diskSuffix)
		if ok && e.Type().IsRegular() && manifest.ValidDeviceName(name) == nil {
			found = append(found, driver.StoredDisk{Folder: folder, Disk: name, Path: filepath.Join(dir, e.Name())})
		}
	}
	return found, nil
}

// lookInto fills in what an image says of itself, and who has it open.
func (d *Driver) lookInto(ctx context.Context, s *driver.StoredDisk) {
	for _, h := range disk.Holders(s.Path) {
		s.UsedBy = append(s.UsedBy, h.String())
	}
	info, err := d.images.InfoAs(ctx, s.Path, string(manifest.FormatQcow2))
	if known, ok := errors.AsType[*disk.Error](err); ok {
		err = known.Err // the path is told beside it
	}
	if err != nil {
		s.Err = err.Error()
		return
	}
	s.Size, s.Allocated = info.VirtualSize, info.ActualSize
	for _, snapshot := range info.Snapshots {
		s.Snapshots = append(s.Snapshots, snapshot.Tag)
	}
}

// storedDir is the folder that a reference names.
func (d *Driver) storedDir(ref driver.StoredRef) (string, error) {
	if name, kept := strings.CutPrefix(ref.Folder, driver.KeptPrefix); kept {
		if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
			return "", fmt.Errorf("%q is no kept folder", ref.Folder)
		}
		return filepath.Join(d.keptRoot(), name), nil
	}
	if err := checkName(d.layout, ref.Folder); err != nil {
		return "", err
	}
	return d.layout.DiskDir(ref.Folder), nil
}

// storedPath is the image that a reference names.
func (d *Driver) storedPath(ref driver.StoredRef) (string, error) {
	dir, err := d.storedDir(ref)
	if err != nil {
		return "", err
	}
	if err := manifest.ValidDeviceName(ref.Disk); err != nil {
		return "", err
	}
	return filepath.Join(dir, ref.Disk+diskSuffix), nil
}

// DeleteStored deletes a stored disk, or a kept folder with all that is in it. With the
// last disk of a kept folder that goes too, unless a TPM, an NVRAM or something else is in
// it. It is refused while a process has a file of it open. The caller has made sure that no
// machine wants it.
func (d *Driver) DeleteStored(ctx context.Context, ref driver.StoredRef) error {
	if ref.Disk != "" {
		path, err := d.storedPath(ref)
		if err != nil {
			return err
		}
		if err := d.images.RemoveFile(ctx, path); err != nil || !ref.IsKept() {
			return err
		}
		// An identity goes with the last of its disks, unless more was kept: a TPM may have
		// the key to a disk elsewhere.
		if more, err := d.keepsMore(filepath.Dir(path)); err != nil || more {
			return err
		}
		return d.images.Remove(ctx, filepath.Dir(path))
	}
	if !ref.IsKept() {
		return fmt.Errorf("%s is the folder of a machine: name one of its disks", ref.Folder)
	}
	dir, err := d.storedDir(ref)
	if err != nil {
		return err
	}
	return d.images.Remove(ctx, dir)
}

// keepsMore tells whether a folder holds what is worth something without a disk in it:
// anything but an identity, a seed, records of snapshots and hidden files.
func (d *Driver) keepsMore(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look what else was kept: %w", err)
	}
	l := d.layout
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), ".") && !slices.ContainsFunc([]string{l.Identity("x"), l.Seed("x"), l.SeedRecord("x"), l.SnapshotDir("x")}, func(path string) bool {
			return filepath.Base(path) == e.Name()
		})
	}), nil
}

// AdoptFolder makes a kept folder, with its disks, identity and snapshots, that of a
// machine which has none and does not run. The caller holds the machine's lock.
func (d *Driver) AdoptFolder(ctx context.Context, ref driver.StoredRef, name string) error {
	const op = "adopt the disks of"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	dir, err := d.storedDir(ref)
	if err != nil {
		return fail(op, name, err, "")
	}
	if _, err := os.Stat(dir); err != nil {
		return fail(op, name, fmt.Errorf("%s: %w", ref.Folder, bare(err)), "see what there is with: maqet disk orphans")
	}
	return fail(op, name, d.whileAbsent(ctx, op, name, func(*look) error {
		return d.images.Keep(ctx, dir, d.layout.DiskDir(name))
	}), "")
}

// AdoptDisk moves a stored disk to a machine that does not run, under a name that none
// of its disks has. The caller holds the machine's lock.
func (d *Driver) AdoptDisk(ctx context.Context, ref driver.StoredRef, name, as string) error {
	const op = "adopt a disk for"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	from, err := d.storedPath(ref)
	if err == nil {
		err = manifest.ValidDeviceName(as)
	}
	if err != nil {
		return fail(op, name, err, "")
	}
	digest, err := d.storedImage(ref, from)
	if err != nil {
		return fail(op, name, err, "")
	}
	return fail(op, name, d.whileAbsent(ctx, op, name, func(*look) error {
		if _, err := os.Lstat(d.layout.Disk(name, as)); errors.Is(err, fs.ErrNotExist) {
			// Before, as with a disk that is made: cut off, it says nothing of no disk.
			if err := d.recordImage(name, as, digest); err != nil {
				return err
			}
		}
		return d.images.MoveFile(ctx, from, d.layout.Disk(name, as))
	}), "")
}

// storedImage is the digest of the image that a stored disk is of, by the identity in
// its folder or by the file that it reads from; empty for none.
func (d *Driver) storedImage(ref driver.StoredRef, path string) (string, error) {
	id, err := d.storedIdentity(ref)
	if err != nil {
		return "", err
	}
	if id != nil && id.Images[ref.Disk] != "" {
		return id.Images[ref.Disk], nil
	}
	h, err := readHeader(path)
	if err != nil {
		return "", nil //nolint:nilerr // one that is not there is told by whoever moves it
	}
	digest, _ := layout.DigestOfImage(h.BackingPath(path))
	return digest, nil
}

// StoredUID is the uuid in the identity of a kept folder; empty without one.
func (d *Driver) StoredUID(ref driver.StoredRef) (string, error) {
	id, err := d.storedIdentity(ref)
	if err != nil || id == nil {
		return "", err
	}
	return id.UID, nil
}

// storedIdentity is the identity in the folder of a stored disk; nil without one.
func (d *Driver) storedIdentity(ref driver.StoredRef) (*driver.Identity, error) {
	dir, err := d.storedDir(ref)
	if err != nil {
		return nil, err
	}
	return readRecordFile[driver.Identity](filepath.Join(dir, filepath.Base(d.layout.Identity("x"))), identityHint)
}
