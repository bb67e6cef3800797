package qemu

import (
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// blockDrive is a drive as query-block has it.
type blockDrive struct {
	// QDev is the drive's id, or the path of the part of it that does the work.
	QDev string `json:"qdev"`
	// IOStatus is ok, failed or nospace; empty for drives that never stop the guest.
	IOStatus string `json:"io-status"`
	// Inserted is nil without a medium.
	Inserted *blockMedium `json:"inserted"`
}

// blockMedium is what is in a drive, with the block node on top of it.
type blockMedium struct {
	Node     string `json:"node-name"`
	Driver   string `json:"drv"`
	ReadOnly bool   `json:"ro"`
	File     string `json:"file"`
	Image    struct {
		blockImage
		// Below is what a filter is on top of.
		Below *blockImage `json:"backing-image"`
	} `json:"image"`
	Bitmaps []struct {
		Name string `json:"name"`
	} `json:"dirty-bitmaps"`
	DetectZeroes string `json:"detect_zeroes"`
	// Cache has a third part, writeback, which is the guest's: a driver that never
	// flushes, such as that of a firmware, turns it off. What was asked for is in
	// the device's property write-cache.
	Cache struct {
		Direct  bool `json:"direct"`
		NoFlush bool `json:"no-flush"`
	} `json:"cache"`
	IOPS int64 `json:"iops"`
	BPS  int64 `json:"bps"`
}

// blockImage is the image that a node shows.
type blockImage struct {
	Format    string `json:"format"`
	Size      int64  `json:"virtual-size"`
	Snapshots []struct {
		Name        string `json:"name"`
		VMStateSize int64  `json:"vm-state-size"`
		DateSec     int64  `json:"date-sec"`
		DateNsec    int64  `json:"date-nsec"`
	} `json:"snapshots"`
}

// copyFilter is the driver of the node that QEMU puts on top of a disk while a job
// copies it. It shows nothing of the disk's own settings and bitmaps.
const copyFilter = "copy-before-write"

// name is the id of the device that the drive belongs to.
func (b *blockDrive) name() string {
	name, _, _ := strings.Cut(strings.TrimPrefix(b.QDev, peripherals+"/"), "/")
	return name
}

// driveOf is the drive that a device is; nil when it is none.
func driveOf(drives []blockDrive, device string) *blockDrive {
	i := slices.IndexFunc(drives, func(b blockDrive) bool { return b.QDev != "" && b.name() == device })
	if i < 0 {
		return nil
	}
	return &drives[i]
}

// nvram is the flash chip that is an NVRAM; nil when there is none.
func nvram(drives []blockDrive) *driver.GDisk {
	for i := range drives {
		if b := &drives[i]; b.Inserted != nil && isNVRAM(b.Inserted.Node) {
			x := detail{qomItem: qomItem{b.Inserted.Node, "cfi.pflash01"}, drive: b}
			chip := x.disk()
			return &chip
		}
	}
	return nil
}

// cacheMode is QEMU's name of a drive's three cache settings together.
func cacheMode(writeback, direct, noFlush bool) manifest.CacheMode {
	switch {
	case noFlush:
		return manifest.CacheUnsafe
	case writeback && direct:
		return manifest.CacheNone
	case direct:
		return manifest.CacheDirectSync
	case writeback:
		return manifest.CacheWriteback
	default:
		return manifest.CacheWritethrough
	}
}

// disk is the drive with what is in it.
func (x *detail) disk() driver.GDisk {
	disk := driver.GDisk{
		Name: x.Name, Driver: x.Type, Serial: x.serial, IOStatus: x.drive.IOStatus,
		IOThread: strings.TrimPrefix(x.thread, "/objects/"),
	}
	in := x.drive.Inserted
	if in == nil {
		// No medium can be written to that is not there.
		disk.Empty, disk.ReadOnly = true, true
		return disk
	}
	disk.DetectZeroes, disk.IOPS, disk.BPS = in.DetectZeroes, in.IOPS, in.BPS
	disk.Cache = string(cacheMode(x.writeCache != "off", in.Cache.Direct, in.Cache.NoFlush))
	disk.File, disk.Format, disk.ReadOnly, disk.Size = in.File, in.Driver, in.ReadOnly, in.Image.Size
	image := in.Image.blockImage
	if in.Driver == copyFilter && in.Image.Below != nil {
		image = *in.Image.Below
		disk.Format, disk.DetectZeroes = image.Format, ""
	}
	for _, s := range image.Snapshots {
		disk.Snapshots = append(disk.Snapshots, driver.ImageSnapshot{
			Tag: s.Name, VMStateSize: s.VMStateSize, Date: time.Unix(s.DateSec, s.DateNsec),
		})
	}
	for _, m := range in.Bitmaps {
		if m.Name != "" {
			disk.Bitmaps = append(disk.Bitmaps, m.Name)
		}
	}
	return disk
}
