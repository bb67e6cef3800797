package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/manifest"
)

// Made is the kind of the qcow2 images that maqet makes: empty ones, and those that
// are made of an image, which the driver makes since only it knows that image.
type Made struct{ Images *Images }

var _ Maker = Made{}

// Name is "qcow2".
func (Made) Name() string { return "qcow2" }

// Holds is true for a disk with a size, and for one of an image.
func (Made) Holds(d *manifest.Disk) bool { return d.IsMade() }

// Source is the image that maqet makes.
func (Made) Source(_ *manifest.Disk, made string) Source { return fileSource("file", made) }

// Look looks at the image.
func (k Made) Look(ctx context.Context, d *manifest.Disk, src Source, deep bool) (driver.DiskFile, Info) {
	return k.Images.lookAt(ctx, d, src, deep, regularFile)
}

// Make makes an empty image of the disk's size. A disk of an image is refused: an
// empty one in its place would never be replaced.
func (k Made) Make(ctx context.Context, d *manifest.Disk, src Source) error {
	if d.Image != "" {
		return fmt.Errorf("disk %s: %w", d.Name, ErrOfImage)
	}
	return k.Images.Create(ctx, src.Path, d.Size)
}

// Grow makes the image larger.
func (k Made) Grow(ctx context.Context, d *manifest.Disk, src Source) error {
	return k.Images.Grow(ctx, src.Path, d.Size)
}

// File is the kind of image files that a manifest names.
type File struct{ Images *Images }

var _ Kind = File{}

// Name is "file".
func (File) Name() string { return "file" }

// Holds is true for a path that is no device's.
func (File) Holds(d *manifest.Disk) bool { return d.File != "" && !IsDevicePath(d.File) }

// Source is the file.
func (File) Source(d *manifest.Disk, _ string) Source { return fileSource("file", d.File) }

// Look looks at the file.
func (k File) Look(ctx context.Context, d *manifest.Disk, src Source, deep bool) (driver.DiskFile, Info) {
	return k.Images.lookAt(ctx, d, src, deep, regularFile)
}

// Device is the kind of block devices of this host.
type Device struct{ Images *Images }

var _ Kind = Device{}

// Name is "device".
func (Device) Name() string { return "device" }

// Holds is true for a device's path.
func (Device) Holds(d *manifest.Disk) bool { return d.File != "" && IsDevicePath(d.File) }

// Source is the device.
func (Device) Source(d *manifest.Disk, _ string) Source { return fileSource("host_device", d.File) }

// Look looks at the device.
func (k Device) Look(ctx context.Context, d *manifest.Disk, src Source, deep bool) (driver.DiskFile, Info) {
	return k.Images.lookAt(ctx, d, src, deep, blockDevice)
}

// notDevices are the folders below /dev that hold ordinary files.
var notDevices = []string{"/dev/shm/", "/dev/mqueue/", "/dev/hugepages/"}

// IsDevicePath tells whether a path is that of a device, by where it is: QEMU opens
// devices and files by different drivers, and which it is to be must not change by
// what happens to be there.
func IsDevicePath(path string) bool {
	path = filepath.Clean(path)
	for _, dir := range notDevices {
		if strings.HasPrefix(path, dir) {
			return false
		}
	}
	return strings.HasPrefix(path, "/dev/")
}

// fileSource is a file or device. Locking is on, never auto: an image in use by
// another program is refused even where auto would let it pass in silence.
func fileSource(driver, path string) Source {
	return Source{Path: path, Name: path, Options: []Option{{"driver", driver}, {"filename", path}, {"locking", "on"}}}
}

// regularFile and blockDevice say why what is at a path is not what it should be;
// nil when it is.
func regularFile(mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		return errors.New("it is a block device: name it by its path below /dev")
	default:
		return fmt.Errorf("it is no file (%s)", mode.Type())
	}
}

func blockDevice(mode fs.FileMode) error {
	if mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0 {
		return nil
	}
	return fmt.Errorf("it is no block device (%s)", mode)
}

// lookAt looks at a file or device, which must be what is expected.
func (i *Images) lookAt(ctx context.Context, d *manifest.Disk, src Source, deep bool, expected func(fs.FileMode) error) (driver.DiskFile, Info) {
	file, err := slowfs.Ask(ctx, i.files, src.Path, func() (driver.DiskFile, error) {
		var file driver.DiskFile
		info, err := i.files.Lookup(src.Path)
		if err != nil {
			return file, err
		}
		file.Exists = true
		if err := expected(info.Mode()); err != nil {
			return file, err
		}
		if info.Mode().IsRegular() {
			measure(&file, src.Path, info)
		}
		return file, nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		file.Err = err.Error()
	}
	if err != nil || !deep {
		return file, Info{}
	}
	image, err := i.InfoAs(ctx, src.Path, string(d.Format))
	if known, ok := errors.AsType[*Error](err); ok {
		err = known.Err // the path is told beside it
	}
	if err != nil {
		file.Err = err.Error()
		return file, image
	}
	file.Size, file.Format = image.VirtualSize, image.Format
	return file, image
}

// measure notes what a file takes on its filesystem, and what that has free for us and
// in all; nothing where it cannot be found out.
func measure(file *driver.DiskFile, path string, info fs.FileInfo) {
	const block = 512 // the unit of st_blocks, whatever the filesystem's
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	file.Allocated, file.Filesystem = stat.Blocks*block, stat.Dev
	var of unix.Statfs_t
	if err := unix.Statfs(path, &of); err != nil {
		return
	}
	blocks := of.Bavail
	if os.Geteuid() == 0 {
		blocks = of.Bfree // what is reserved is reserved for root
	}
	file.Free, file.Total = int64(blocks)*of.Bsize, int64(of.Blocks)*of.Bsize //nolint:gosec // no filesystem has 8 EiB
}
