package qemu

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// images are the disks to look at, by name: those of the desired object, or of the
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

// imagesOf adds the disks of a spec, and the NVRAM of its firmware.
func (o *observation) imagesOf(spec *manifest.VirtualMachineSpec, all map[string]manifest.Disk) {
	for _, d := range spec.Disks {
		all[d.Name] = d
	}
	if kind := driver.FirmwareKindOf(spec); kind != "" {
		name := kind.NVRAMNode()
		all[name] = manifest.Disk{Name: name, File: o.driver.layout.NVRAM(o.Name, string(kind)), Format: manifest.FormatQcow2}
	}
}

// imagePath is where a disk's image is.
func (o *observation) imagePath(d manifest.Disk) string {
	if d.File != "" {
		return d.File
	}
	return o.driver.layout.Disk(o.Name, d.Name)
}

// stat looks whether the files are there.
func (o *observation) stat(images map[string]manifest.Disk) {
	o.Files = make(map[string]driver.DiskFile, len(images))
	for name, d := range images {
		f := driver.DiskFile{Path: o.imagePath(d)}
		_, err := os.Stat(f.Path)
		f.Exists = err == nil
		if f.Exists && d.File == "" {
			o.bound(&f, name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.Err = err.Error()
		}
		o.Files[name] = f
	}
}

// stoppedFiles looks at the images of a machine without a process, by qemu-img.
func (o *observation) stoppedFiles(ctx context.Context) {
	images := o.images()
	o.stat(images)
	if o.depth != driver.DepthFull {
		return
	}
	o.SnapshotsKnown = true
	tags := map[string][]driver.ImageSnapshot{}
	var mu sync.Mutex // over o.Files, o.SnapshotsKnown and tags
	var all sync.WaitGroup
	for name, f := range maps.Clone(o.Files) {
		all.Go(func() {
			var info disk.Info
			if f.Exists {
				info = o.imageInfo(ctx, &f, images[name].Format)
			}
			mu.Lock()
			defer mu.Unlock()
			o.Files[name], tags[name] = f, info.Snapshots
			o.SnapshotsKnown = o.SnapshotsKnown && f.Err == ""
		})
	}
	all.Wait()
	o.snapshots(tags)
}

// imageInfo asks an image, and writes into f what it says or why it does not.
func (o *observation) imageInfo(ctx context.Context, f *driver.DiskFile, format manifest.DiskFormat) disk.Info {
	info, err := o.driver.images.InfoAs(ctx, f.Path, string(format))
	var known *disk.Error
	switch {
	case errors.As(err, &known):
		// The path is told beside it.
		f.Err = known.Err.Error()
	case err != nil:
		f.Err = err.Error()
	default:
		f.Size, f.Format = info.VirtualSize, info.Format
	}
	return info
}

// aliveFiles takes from QEMU what it says of the images it has open.
func (o *observation) aliveFiles() {
	if o.Guest.Brief {
		o.briefFiles()
		return
	}
	o.stat(o.images())
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
func (o *observation) briefFiles() {
	images := o.images()
	for _, d := range images {
		if d.Image != "" || o.Identity != nil && o.Identity.Images[d.Name] != "" {
			o.stat(images)
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
