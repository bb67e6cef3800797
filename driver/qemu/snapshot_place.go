package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// place is where a machine's snapshots are reached: through the QEMU that has the
// disks open, or through qemu-img while nobody has.
type place interface {
	// look lists the snapshots of every qcow2 disk.
	look(ctx context.Context) (foundSnapshots, error)
	// take makes the draft's disk-only snapshot, on all its disks or none.
	take(ctx context.Context, draft driver.SnapshotRecord) error
	// drop deletes a tag from the disks, and returns when it is seen to be gone.
	drop(ctx context.Context, disks []string, tag string) error
	// job is a job of QEMU, nil when there is none of that id; dismiss lets QEMU
	// forget one that is over.
	job(ctx context.Context, id string) (*driver.Job, error)
	dismiss(ctx context.Context, id string) error
}

// foundSnapshots are the snapshots that disks have, by disk name.
type foundSnapshots map[string][]driver.ImageSnapshot

// find is the snapshot of a tag on one disk; nil when there is none.
func (f foundSnapshots) find(name, tag string) *driver.ImageSnapshot {
	i := slices.IndexFunc(f[name], func(s driver.ImageSnapshot) bool { return s.Tag == tag })
	if i < 0 {
		return nil
	}
	return &f[name][i]
}

// with are the disks that have the tag.
func (f foundSnapshots) with(tag string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if f.find(name, tag) != nil {
			all = append(all, name)
		}
	}
	return all
}

// begun are the draft's disks that have its tag and got it after the draft was made.
func (f foundSnapshots) begun(draft driver.SnapshotRecord) []string {
	var all []string
	for _, name := range draft.Disks {
		if s := f.find(name, draft.Tag); s != nil && !s.Date.Before(draft.Taken.Add(-draftAge)) {
			all = append(all, name)
		}
	}
	return all
}

// verify tells whether a record says the truth: the tag is on all its disks, and
// one of them has the memory if it is said to be saved.
func (f foundSnapshots) verify(record driver.SnapshotRecord) error {
	var missing []string
	memory := int64(0)
	for _, name := range record.Disks {
		if s := f.find(name, record.Tag); s == nil {
			missing = append(missing, name)
		} else {
			memory += s.VMStateSize
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("%w: %s is not on %s", ErrSnapshotIncomplete, record.Tag, strings.Join(missing, ", "))
	case record.Method == manifest.SnapshotFull && memory == 0:
		return fmt.Errorf("%w: no disk has the memory of %s", ErrSnapshotIncomplete, record.Tag)
	default:
		return nil
	}
}

// within does something where the machine's disks are reached now. Disks are those
// that matter when nobody has them open.
func (s *snapshots) within(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, disks []string,
	do func(context.Context, place) error,
) error {
	switch obs.Presence {
	case driver.Alive:
		return s.visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
			return do(ctx, onlinePlace{c})
		})
	case driver.Absent:
		paths, err := s.paths(vm, disks)
		if err != nil {
			return err
		}
		return do(ctx, offlinePlace{s.images, paths})
	case driver.Unresponsive, driver.Unknown:
	}
	return fmt.Errorf("%w: %s: %s", driver.ErrUnresponsive, obs.Presence, obs.Message)
}

// elsewhere tells that a disk's data is on a server, out of reach of snapshots.
func elsewhere(vm *manifest.VirtualMachine, name string) bool {
	return slices.ContainsFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == name && d.NBD != nil })
}

// path is the image of a disk: what the manifest names, or what maqet makes. A
// disk that is in the manifest no more can only be one that maqet made.
func (s *snapshots) path(vm *manifest.VirtualMachine, name string) string {
	for _, kind := range []driver.FirmwareKind{driver.FirmwareUEFI, driver.FirmwareSecureBoot} {
		if name == kind.NVRAMNode() {
			return s.layout.NVRAM(vm.Metadata.Name, string(kind))
		}
	}
	for i := range vm.Spec.Disks {
		if d := &vm.Spec.Disks[i]; d.Name == name && d.File != "" {
			return d.File
		}
	}
	return s.layout.Disk(vm.Metadata.Name, name)
}

// paths are the images of disks, which must exist.
func (s *snapshots) paths(vm *manifest.VirtualMachine, names []string) (map[string]string, error) {
	paths := make(map[string]string, len(names))
	for _, name := range names {
		if elsewhere(vm, name) {
			return nil, fmt.Errorf("disk %s is an export of a server, on which there are no snapshots", name)
		}
		paths[name] = s.path(vm, name)
		if _, err := os.Stat(paths[name]); err != nil {
			return nil, &disk.Error{Path: paths[name], Op: "look at", Err: fmt.Errorf("disk %s: %w", name, err), Hint: "put the image back in its place"}
		}
	}
	return paths, nil
}

// detached are the images that may have a tag and that the running QEMU, if there
// is one, does not have open.
func (s *snapshots) detached(vm *manifest.VirtualMachine, obs driver.Observed, tag string, attached foundSnapshots) (map[string]string, error) {
	var names []string
	for i := range vm.Spec.Disks {
		if d := &vm.Spec.Disks[i]; writableDisk(d) && diskFormat(d) == manifest.FormatQcow2 {
			names = append(names, d.Name)
		}
	}
	names = append(names, obs.Snapshots[tag].Disks...)
	for _, read := range []func(string, string) (*driver.SnapshotRecord, error){s.record, s.draft} {
		record, err := read(vm.Metadata.Name, tag)
		if err != nil {
			return nil, err
		}
		if record != nil {
			names = append(names, record.Disks...)
		}
	}
	paths := map[string]string{}
	for _, name := range names {
		if _, open := attached[name]; open {
			continue
		}
		path := s.path(vm, name)
		if _, err := os.Stat(path); err == nil {
			paths[name] = path
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("disk %s: %w", name, err)
		}
	}
	return paths, nil
}

// offlinePlace is qemu-img on the images of a stopped machine.
type offlinePlace struct {
	images *disk.Images
	paths  map[string]string
}

func (p offlinePlace) look(ctx context.Context) (foundSnapshots, error) {
	found := foundSnapshots{}
	for name, path := range p.paths {
		info, err := p.images.InfoAs(ctx, path, string(manifest.FormatQcow2))
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", name, err)
		}
		found[name] = info.Snapshots
	}
	return found, nil
}

func (p offlinePlace) take(ctx context.Context, draft driver.SnapshotRecord) error {
	return p.images.CreateSnapshot(ctx, p.paths, draft.Tag)
}

func (p offlinePlace) drop(ctx context.Context, disks []string, tag string) error {
	paths := map[string]string{}
	for _, name := range disks {
		paths[name] = p.paths[name]
	}
	return p.images.DeleteSnapshot(ctx, paths, tag)
}

// job is nil: jobs end with their QEMU.
func (p offlinePlace) job(context.Context, string) (*driver.Job, error) {
	return nil, nil //nolint:nilnil // there is none
}

func (p offlinePlace) dismiss(context.Context, string) error { return nil }
