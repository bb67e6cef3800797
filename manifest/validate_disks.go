package manifest

import "fmt"

const (
	diskStep = Quantity(512)
	// maxSATA is how many drives the controller of q35 takes.
	maxSATA = 6
)

// disks looks at the drives.
func (v *validator) disks(s *VirtualMachineSpec) {
	q35 := s.Machine.IsQ35()
	sata := 0
	for i := range s.Disks {
		d := &s.Disks[i]
		path := fmt.Sprintf("spec.disks[%d]", i)
		if d.Media == MediaCDROM {
			sata++
			v.cdrom(d, path, q35)
			if sata > maxSATA {
				v.fault(path, fmt.Sprintf("is cdrom number %d", sata), fmt.Sprintf("q35 takes %d", maxSATA))
			}
			continue
		}
		v.disk(d, path)
	}
}

// disk looks at a drive that is no cdrom.
func (v *validator) disk(d *Disk, path string) {
	switch {
	case d.Size == 0 && d.File == "" && d.Image == "":
		v.fault(path, "needs a size, an image or a file", "size makes an empty disk once; image makes one of an Image object; file uses an image that exists")
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
	if d.Bus == BusSATA {
		v.fault(path+".bus", "sata is for cdroms; disks on it are not yet supported", "remove bus for virtio")
	}
}

// cdrom looks at a drive that is a cdrom.
func (v *validator) cdrom(d *Disk, path string, q35 bool) {
	switch {
	case d.Size != 0:
		v.fault(path+".size", "a cdrom has no size", "give it a file")
	case d.Image != "":
		v.fault(path+".image", "cdroms of images are not yet supported", "give it a file")
	case d.File == "":
		v.fault(path, "a cdrom needs a file", "name an ISO image")
	}
	if v.isWritten(path, "readOnly") && !d.ReadOnly {
		v.fault(path+".readOnly", "a cdrom is always read-only", "remove the key")
	}
	if v.isBroken("spec.machine.type") {
		return
	}
	switch {
	case d.Bus == BusVirtio:
		v.fault(path+".bus", "a cdrom cannot be on virtio", "remove bus for sata, on machine.type q35")
	case !q35 && d.Bus == BusSATA:
		v.fault(path+".bus", "sata needs the board q35", "set spec.machine.type: q35")
	case !q35:
		v.fault(path+".media", "a cdrom outside of q35 needs the bus virtio-scsi, which is not yet supported", "set spec.machine.type: q35")
	}
}
