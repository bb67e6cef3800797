package reconcile

import (
	"strconv"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// liveDisk reads a value of a drive.
func liveDisk(value func(*driver.GDisk) (string, bool)) func(*driver.Observed, string) (string, bool) {
	return func(o *driver.Observed, item string) (string, bool) {
		for i := range o.Guest.Disks {
			if d := &o.Guest.Disks[i]; d.Name == item {
				return value(d)
			}
		}
		return "", false
	}
}

// liveFile is the path of the image. Other than an absolute path is QEMU's own notation.
func liveFile(d *driver.GDisk) (string, bool) {
	return d.File, d.Empty || strings.HasPrefix(d.File, "/")
}

// liveNBD is a part of what names an export.
func liveNBD(part func(*manifest.NBD) string) func(*driver.GDisk) (string, bool) {
	return func(d *driver.GDisk) (string, bool) {
		n, ok := manifest.ParseNBDURI(d.File)
		return part(&n), ok
	}
}

func liveReadOnly(d *driver.GDisk) (string, bool) { return strconv.FormatBool(d.ReadOnly), true }

// liveCache and liveDetectZeroes are known while there is a medium.
func liveCache(d *driver.GDisk) (string, bool) { return d.Cache, d.Cache != "" }

func liveDetectZeroes(d *driver.GDisk) (string, bool) { return d.DetectZeroes, d.DetectZeroes != "" }

// liveIOThread tells whether a thread serves the drive alone.
func liveIOThread(d *driver.GDisk) (string, bool) { return strconv.FormatBool(d.IOThread != ""), true }

// noLimit is the limit of what has none.
const noLimit = "0"

// liveIOPS and liveBPS are the limits of a drive that has a medium.
func liveIOPS(d *driver.GDisk) (string, bool) { return strconv.FormatInt(d.IOPS, 10), !d.Empty }

func liveBPS(d *driver.GDisk) (string, bool) { return manifest.Quantity(d.BPS).String(), !d.Empty }

// liveFilesystem is the driver of a filesystem.
func liveFilesystem(o *driver.Observed, item string) (string, bool) {
	for _, f := range o.Guest.Filesystems {
		if f.Name == item {
			return f.Driver, true
		}
	}
	return "", false
}
