package disk_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// scratch is a kind of storage for disks that nobody will miss: a file of a fixed
// size in one folder, made when it is not there.
type scratch struct {
	images *disk.Images
	dir    string
	size   int64
}

var _ disk.Maker = scratch{}

// Name is what people see, in messages and in maqet disk list.
func (scratch) Name() string { return "scratch" }

// Holds tells by the manifest alone which disks are of this kind.
func (s scratch) Holds(d *manifest.Disk) bool { return filepath.Dir(d.File) == s.dir }

// Source says how QEMU opens it. Everything is named, so that nothing is guessed.
func (s scratch) Source(d *manifest.Disk, _ string) disk.Source {
	return disk.Source{Path: d.File, Name: d.File, Options: []disk.Option{
		{Key: "driver", Value: "file"}, {Key: "filename", Value: d.File}, {Key: "locking", Value: "on"},
	}}
}

// Look never fails: what is wrong with the storage is said in words.
func (s scratch) Look(ctx context.Context, _ *manifest.Disk, src disk.Source, deep bool) (driver.DiskFile, disk.Info) {
	_, err := os.Stat(src.Path)
	file := driver.DiskFile{Exists: err == nil}
	if !file.Exists || !deep {
		return file, disk.Info{}
	}
	info, err := s.images.InfoAs(ctx, src.Path, "raw")
	if err != nil {
		file.Err = err.Error()
	}
	file.Size, file.Format = info.VirtualSize, info.Format
	return file, info
}

// Make leaves what is there as it is.
func (s scratch) Make(_ context.Context, _ *manifest.Disk, src disk.Source) error {
	f, err := os.OpenFile(src.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Truncate(s.size); err != nil {
		_ = f.Close() // the first error counts
		return err
	}
	return f.Close()
}

// Grow has nothing to do: all disks of this kind have one size.
func (scratch) Grow(context.Context, *manifest.Disk, disk.Source) error { return nil }

// A new kind of storage is a type with a few methods, and one element more in the
// list that cmd/maqet hands to the driver.
func Example_newKind() {
	dir, err := os.MkdirTemp("", "scratch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is a temporary folder

	images := disk.New(disk.Config{Timing: timing.Default()})
	kinds := disk.Kinds{scratch{images, dir, 64 << 20}, disk.File{Images: images}}
	d := &manifest.Disk{Name: "tmp", File: filepath.Join(dir, "tmp.raw"), Format: manifest.FormatRaw}

	ctx := context.Background()
	before, _ := kinds.Look(ctx, d, "", true)
	maker, err := kinds.Maker(d)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := maker.Make(ctx, d, maker.Source(d, "")); err != nil {
		fmt.Println(err)
		return
	}
	after, _ := kinds.Look(ctx, d, "", true)
	fmt.Println(after.Kind, before.Exists, after.Exists, after.Format, manifest.Quantity(after.Size))

	other := &manifest.Disk{Name: "data", File: "/srv/data.raw"}
	if _, err := kinds.Maker(other); err != nil {
		fmt.Println(err)
	}
	// Output:
	// scratch false true raw 64Mi
	// disk data: its file is not maqet's to make or to resize
}
