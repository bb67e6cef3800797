package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// source is one disk of a snapshot that is copied.
type source struct {
	name string
	x    disk.Extract
	// at is the snapshot as it was found before.
	at disk.SnapshotEntry
	// image is the digest of the image that the disk reads from; empty for none.
	image string
}

// sources finds the named disks of a snapshot. Whether the machine runs is no matter.
func (d *Driver) sources(vm *manifest.VirtualMachine, id *driver.Identity, tag string, names []string) ([]source, error) {
	if err := d.usable(vm.Metadata.Name); err != nil {
		return nil, err
	}
	as, err := d.reader(vm)
	if err != nil {
		return nil, err
	}
	paths, err := d.snapshots().paths(vm, names)
	if err != nil {
		return nil, err
	}
	var all []source
	for _, name := range slices.Sorted(slices.Values(names)) {
		s := source{name: name, x: disk.Extract{Path: paths[name], Tag: tag, As: as}}
		if err := d.fill(&s, vm, id); err != nil {
			return nil, &disk.Error{Path: paths[name], Op: "copy", Err: fmt.Errorf("disk %s: %w", name, err), Hint: "see maqet snapshot list " + vm.Metadata.Name}
		}
		all = append(all, s)
	}
	return all, nil
}

// fill finds out what a disk reads from, and how it was at the time of the snapshot.
func (d *Driver) fill(s *source, vm *manifest.VirtualMachine, id *driver.Identity) error {
	h, err := disk.ReadHeader(s.x.Path)
	switch {
	case err != nil:
		return err
	case h.Format != string(manifest.FormatQcow2):
		return fmt.Errorf("it is %s, which holds no snapshots", h.Format)
	case h.DataFile || h.Encryption != "":
		return errors.New("its data is encrypted or in another file, which is not copied")
	}
	base := h.BackingPath(s.x.Path)
	digest, stored := layout.DigestOfImage(base)
	switch {
	case slices.ContainsFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == s.name && d.File != "" }):
		s.x.Chain = true // it is its owner's, with all that it reads from
	case h.Backing == "":
	case !stored || filepath.Dir(base) != d.layout.ImageDir():
		return fmt.Errorf("it reads from %q, which is no image that maqet stores", h.Backing)
	case id != nil && id.Images[s.name] != "" && id.Images[s.name] != digest:
		return fmt.Errorf("it reads from the image %s, and was made of %s", digest, id.Images[s.name])
	default:
		s.image, s.x.Base = digest, &disk.Base{Path: base, Format: h.BackingFormat}
	}
	if s.at, err = disk.SnapshotOf(s.x.Path, s.x.Tag); err != nil {
		return err
	}
	if s.at.Size > h.Size {
		return fmt.Errorf("it had %s then, and has %s since an older snapshot was restored; restore %s first",
			manifest.Quantity(s.at.Size), manifest.Quantity(h.Size), s.x.Tag)
	}
	return nil
}

// reader are the rights that the machine's images are read with: those of the user that
// its QEMU runs as, once he owns them, since he could write anything into their headers.
func (d *Driver) reader(vm *manifest.VirtualMachine) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // maqet's own
	}
	a, err := accountOf(vm)
	if err != nil || a == nil {
		return nil, err
	}
	st, err := os.Stat(d.layout.DiskDir(vm.Metadata.Name))
	if err != nil {
		return nil, err
	}
	if stat, ok := st.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == a.uid {
		return a.credential(), nil
	}
	return nil, nil //nolint:nilnil // its QEMU has not run yet
}

// same fails when the snapshot is another one by now than the one that was read.
func (s *source) same() error {
	now, err := disk.SnapshotOf(s.x.Path, s.x.Tag)
	if err == nil && now == s.at {
		return nil
	}
	if err == nil {
		err = errors.New("another snapshot has its name now")
	}
	return fmt.Errorf("disk %s: snapshot %s was deleted while it was copied: %w", s.name, s.x.Tag, err)
}

// room refuses when the copies do not fit.
func (d *Driver) room(ctx context.Context, dir string, all []source, target func(*source) disk.Target) error {
	need := int64(0)
	for i := range all {
		size, err := d.images.Measure(ctx, all[i].x, target(&all[i]))
		if err != nil {
			return fmt.Errorf("disk %s: %w", all[i].name, err)
		}
		need += size
	}
	return d.images.CheckRoom(dir, need)
}

// copyAll copies each disk into the file that into names, one after the other. Told hears
// how far all of it is.
func (d *Driver) copyAll(ctx context.Context, all []source, into func(name string) string, target func(*source) disk.Target,
	told func(percent float64),
) ([]driver.CopiedDisk, error) {
	var copied []driver.CopiedDisk
	for i := range all {
		s := &all[i]
		done := float64(i)
		c, err := d.copyOne(ctx, s, into(s.name), target(s), func(percent float64) { told((done*100 + percent) / float64(len(all))) })
		if err != nil {
			return nil, err
		}
		copied = append(copied, c)
	}
	// Only now, so that it holds for all of them at one moment.
	for i := range all {
		if err := all[i].same(); err != nil {
			return nil, err
		}
	}
	return copied, nil
}

func (d *Driver) copyOne(ctx context.Context, s *source, path string, t disk.Target, told func(float64)) (made driver.CopiedDisk, err error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL | syscall.O_NOFOLLOW
	f, err := os.OpenFile(path, flags, 0o600) //nolint:gosec // G304: a file that this makes
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if s.x.As != nil {
		// Whoever reads for it has to write by the same rights.
		if err := f.Chown(int(s.x.As.Uid), int(s.x.As.Gid)); err != nil {
			return made, err
		}
	}
	if err := d.images.ExtractTo(ctx, f, s.x, t, told); err != nil {
		return made, fmt.Errorf("disk %s: %w", s.name, err)
	}
	if s.x.As != nil {
		if err := f.Chown(os.Geteuid(), os.Getegid()); err != nil {
			return made, err
		}
	}
	made = driver.CopiedDisk{Disk: s.name, Path: path, Size: s.at.Size}
	if st, err := f.Stat(); err == nil {
		made.Allocated = allocated(st)
	}
	if t.Overlay {
		made.Image = s.image
	}
	return made, nil
}

// allocated is what a file takes on its filesystem.
func allocated(st os.FileInfo) int64 {
	const block = 512
	if stat, ok := st.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * block
	}
	return st.Size()
}
