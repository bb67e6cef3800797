package manifest

import (
	"fmt"
)

const diskStep = Quantity(512)

// How many drives a controller takes.
const (
	maxSATA = 6
	maxSCSI = 256
	maxUSB  = 15
)

// disks looks at the drives.
func (v *validator) disks(s *VirtualMachineSpec) {
	q35 := s.Machine.IsQ35()
	units := map[Bus]int{}
	for i := range s.Disks {
		d := &s.Disks[i]
		path := fmt.Sprintf("spec.disks[%d]", i)
		if d.Media == MediaCDROM {
			v.cdrom(d, path)
		} else {
			v.disk(d, path)
		}
		v.source(d, path)
		v.serial(d, path)
		v.tuning(d, path)
		if v.isBroken(path+".bus") || v.isBroken(path+".media") || v.isBroken("spec.machine.type") {
			continue
		}
		v.bus(d, path, q35)
		units[d.bus(q35)]++
		v.room(d.bus(q35), units[d.bus(q35)], path)
	}
}

// disk looks at a drive that is no cdrom.
func (v *validator) disk(d *Disk, path string) {
	switch {
	case d.sources() == 0 && !v.isBroken(path+".nbd"):
		v.fault(path, "needs a size, an image, a file or nbd", "size makes an empty disk once; image makes one of an Image object; file uses an image that exists, nbd an export of a server")
	case d.Image != "" && d.File != "":
		v.fault(path, "has both image and file", "keep image for a disk made of an Image object, or file for an image that exists")
	case d.Size != 0 && d.File != "":
		v.fault(path, "has both size and file", "keep size for a new disk, or file for an image that exists; maqet never resizes the latter")
	case d.Size%diskStep != 0:
		v.fault(path+".size", fmt.Sprintf("%s is not a multiple of 512 bytes", d.Size), nearestMultiples(d.Size, diskStep))
	case d.Image != "" && d.Format == FormatRaw:
		v.fault(path+".format", "a disk made of an image is an overlay, which is qcow2 whatever the image is", "remove format")
	case d.Size != 0 && d.Format == FormatRaw:
		v.fault(path+".format", "raw disks made by size are not yet supported", "remove format for qcow2")
	case d.File != "" && d.Format == "":
		v.fault(path+".format", "required key is missing: the format of a file is never guessed, since a guest could write another into it", "add format: qcow2 or format: raw")
	}
	v.check(path+".image", d.Image, ValidName)
}

// sources are how many places the drive names for its data. The size of a disk that is
// made of an image is none.
func (d *Disk) sources() int {
	n := 0
	for _, named := range []bool{d.Size != 0 || d.Image != "", d.File != "", d.NBD != nil} {
		if named {
			n++
		}
	}
	return n
}

// source looks at what any drive may name for its data.
func (v *validator) source(d *Disk, path string) {
	if d.NBD == nil {
		return
	}
	if d.sources() > 1 {
		v.fault(path, "has nbd beside a size or a file", "keep one of them")
	}
	if d.Format == FormatQcow2 {
		v.fault(path+".format", "an export is a raw disk", "remove the key, and let the server open the image")
	}
	v.nbd(d.NBD, path+".nbd")
}

// cdrom looks at a drive that is a cdrom.
func (v *validator) cdrom(d *Disk, path string) {
	if d.Size != 0 {
		v.fault(path+".size", "a cdrom has no size", "give it a file, or nothing for an empty drive")
	}
	if d.Image != "" {
		v.fault(path+".image", "cdroms of images are not yet supported", "give it a file, or nothing for an empty drive")
	}
	if d.IsEmpty() && d.Format != "" {
		v.fault(path+".format", "an empty drive has no format", "give it a file, or remove the key")
	}
	if v.isWritten(path, "readOnly") && !d.ReadOnly {
		v.fault(path+".readOnly", "a cdrom is always read-only", "remove the key")
	}
}

// bus looks at whether the drive can be attached as it says.
func (v *validator) bus(d *Disk, path string, q35 bool) {
	cdrom := d.Media == MediaCDROM
	switch {
	case cdrom && (d.Bus == BusVirtio || d.Bus == BusNVMe):
		v.fault(path+".bus", fmt.Sprintf("a cdrom cannot be on %s", d.Bus), "use sata (on machine.type q35), virtio-scsi or usb, or remove the key")
	case d.Bus == BusSATA && !q35:
		v.fault(path+".bus", "sata needs the board q35", "set spec.machine.type: q35, or use virtio-scsi")
	case d.Bus == BusSATA && !cdrom && d.ReadOnly:
		v.fault(path+".readOnly", "QEMU has no read-only sata disk", "use virtio, virtio-scsi or usb")
	}
}

// room looks at whether the controller has a place for one more drive.
func (v *validator) room(bus Bus, n int, path string) {
	most := 0
	switch bus {
	case BusSATA:
		most = maxSATA
	case BusVirtioSCSI:
		most = maxSCSI
	case BusUSB:
		most = maxUSB
	case BusVirtio, BusNVMe:
		return // each is a card of its own; the board says how many it takes
	}
	if n > most {
		v.fault(path, fmt.Sprintf("is drive number %d on %s", n, bus), fmt.Sprintf("the controller takes %d; use another bus", most))
	}
}

// serialSyntax is that of serial numbers: what every bus shows a guest in full.
var serialSyntax = newPattern(`^[A-Za-z0-9._-]{1,20}$`)

// serial looks at the serial number.
func (v *validator) serial(d *Disk, path string) {
	switch {
	case d.Serial != "" && !serialSyntax.MatchString(d.Serial):
		v.fault(path+".serial", quote(d.Serial)+" cannot be a serial number", "use at most 20 letters, digits, '-', '_' and '.': guests cut off what is longer")
	case d.Bus == BusNVMe && d.Serial == "" && d.Media != MediaCDROM:
		v.fault(path+".serial", "required key is missing: an NVMe disk needs a serial number", "give it one, such as "+quote(d.Name+"-0001"))
	}
}
