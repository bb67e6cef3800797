package qemu

import (
	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// The nodes of the firmware's code.
const (
	firmwareNode     = "maqet.firmware"
	firmwareFileNode = firmwareNode + ".file"
)

// firmware is the machine's firmware; nil for the board's own.
func (r *renderer) firmware() (*driver.Firmware, driver.FirmwareKind) {
	kind := driver.FirmwareKindOf(&r.VM.Spec)
	if kind == "" {
		return nil, ""
	}
	f, ok := r.Identity.Firmware[kind]
	if !ok {
		r.fail("spec.firmware", "the machine's identity holds no firmware", "apply the machine again, which completes its identity", nil)
	}
	return &f, kind
}

// flash renders the two flash chips, and is what the board's options say of them.
func (r *renderer) flash() (boardOptions string) {
	f, kind := r.firmware()
	if f == nil {
		return ""
	}
	const path = "spec.firmware"
	r.addJSON(path, "-blockdev", object{
		{"node-name", firmwareFileNode}, {"driver", "file"}, {"filename", f.Code}, {"read-only", true}, {"auto-read-only", false},
	})
	r.addJSON(path, "-blockdev", object{
		{"node-name", firmwareNode}, {"driver", f.CodeFormat}, {"file", firmwareFileNode}, {"read-only", true}, {"auto-read-only", false},
	})
	file := r.Layout.NVRAM(r.VM.Metadata.Name, string(kind))
	chip := manifest.Disk{Name: kind.NVRAMNode(), File: file, Format: manifest.FormatQcow2}
	for _, node := range blockNodes(chip, disk.File{}.Source(&chip, file)) {
		r.addJSON(path, "-blockdev", node)
	}
	boardOptions = ",pflash0=" + firmwareNode + ",pflash1=" + kind.NVRAMNode()
	if f.SMM {
		// Only code in system management mode writes to the NVRAM then: the keys in it
		// are what Secure Boot goes by.
		boardOptions += ",smm=on"
		r.add(path, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	return boardOptions
}
