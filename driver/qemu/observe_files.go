package qemu

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// images are the disks to look at, by name, without empty drives: those of the desired object, or of the
// launch record, or whatever maqet has made for the machine.
func (o *observation) images() map[string]manifest.Disk {
	all := map[string]manifest.Disk{}
	switch {
	case o.vm != nil:
		o.imagesOf(&o.vm.Spec, all)
	case o.Launched != nil:
		o.imagesOf(&o.Launched.Spec, all)
	default:
		entries, err := os.ReadDir(o.driver.layout.DiskDir(o.Name))
		if err != nil {
			return all // no folder has no disks
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), ".qcow2")
			if ok && e.Type().IsRegular() && !strings.HasPrefix(name, ".") {
				all[name] = manifest.Disk{Name: name, Format: manifest.FormatQcow2, Size: 1}
			}
		}
	}
	return all
}

// imagesOf adds the disks of a spec that are not empty drives, and the NVRAM of its firmware.
func (o *observation) imagesOf(spec *manifest.VirtualMachineSpec, all map[string]manifest.Disk) {
	for _, d := range spec.Disks {
		if !d.IsEmpty() {
			all[d.Name] = d
		}
	}
	if kind := driver.FirmwareKindOf(spec); kind != "" {
		name := kind.NVRAMNode()
		all[name] = manifest.Disk{Name: name, File: o.driver.layout.NVRAM(o.Name, string(kind)), Format: manifest.FormatQcow2}
	}
}

// stoppedFiles looks at the storage of a machine without a process.
func (o *observation) stoppedFiles(ctx context.Context) {
	deep := o.depth == driver.DepthFull
	tags := o.storage(ctx, deep)
	if !deep {
		return
	}
	o.SnapshotsKnown = true
	for _, f := range o.Files {
		o.SnapshotsKnown = o.SnapshotsKnown && f.Err == ""
	}
	o.snapshots(tags)
}

// storage looks at each disk's storage, all at once, and returns the snapshots that
// were found, by disk.
func (o *observation) storage(ctx context.Context, deep bool) map[string][]driver.ImageSnapshot {
	images := o.images()
	o.Files = make(map[string]driver.DiskFile, len(images))
	tags := map[string][]driver.ImageSnapshot{}
	var mu sync.Mutex // over o.Files and tags
	var all sync.WaitGroup
	for name, d := range images {
		all.Go(func() {
			f, info := o.driver.kinds.Look(ctx, &d, o.driver.layout.Disk(o.Name, name), deep)
			if f.Exists && d.IsMade() {
				o.bound(&f, name)
			}
			mu.Lock()
			defer mu.Unlock()
			o.Files[name], tags[name] = f, info.Snapshots
		})
	}
	all.Wait()
	return tags
}

// aliveFiles takes from QEMU what it says of the images it has open.
func (o *observation) aliveFiles(ctx context.Context) {
	if o.Guest.Brief {
		o.briefFiles(ctx)
		return
	}
	o.storage(ctx, false)
	tags := map[string][]driver.ImageSnapshot{}
	disks := o.Guest.Disks
	if o.Guest.NVRAM != nil {
		disks = append(slices.Clip(disks), *o.Guest.NVRAM)
	}
	for i := range disks {
		g := &disks[i]
		tags[g.Name] = g.Snapshots
		if f, ok := o.Files[g.Name]; ok && f.Path == g.File {
			f.Size, f.Format = g.Size, g.Format
			o.Files[g.Name] = f
		}
	}
	o.SnapshotsKnown = true
	o.snapshots(tags)
}

// briefFiles looks which images the disks of a running machine are of, where that
// may say something.
func (o *observation) briefFiles(ctx context.Context) {
	for _, d := range o.images() {
		if d.Image != "" || o.Identity != nil && o.Identity.Images[d.Name] != "" {
			o.storage(ctx, false)
			return
		}
	}
}

// snapshots joins what the disks show with what is recorded.
func (o *observation) snapshots(tags map[string][]driver.ImageSnapshot) {
	o.Snapshots = map[string]driver.SnapshotState{}
	for disk, all := range tags {
		for _, s := range all {
			state := o.Snapshots[s.Tag]
			state.Tag = s.Tag
			state.Disks = append(state.Disks, disk)
			state.VMStateSize = max(state.VMStateSize, s.VMStateSize)
			if s.Date.After(state.Date) {
				state.Date = s.Date
			}
			o.Snapshots[s.Tag] = state
		}
	}
	for tag, state := range o.Snapshots {
		slices.Sort(state.Disks)
		state.Record = o.record(tag)
		o.Snapshots[tag] = state
	}
}

// record is the record of a snapshot; nil when there is none that can be read, as
// for a tag that somebody else made, whose name may be no file's at all.
func (o *observation) record(tag string) *driver.SnapshotRecord {
	if manifest.ValidName(tag) != nil {
		return nil
	}
	path := o.driver.layout.Snapshot(o.Name, tag)
	record, err := readRecord(path, tag)
	if err != nil {
		o.driver.log.Warn("a snapshot record cannot be read", "vm", o.Name, "path", filepath.Base(path), "err", err)
		return nil
	}
	return record
}
