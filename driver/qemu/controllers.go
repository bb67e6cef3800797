package qemu

import (
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// The controllers that maqet adds when the first drive needs one. Their names have a
// dot, which no name in a manifest has.
const (
	scsiController = "maqet.scsi"
	usbController  = "maqet.usb"
)

// controller is a PCI device that drives of a machine are attached to.
type controller struct {
	id, driver string
	// path is the manifest path of the first drive on it, for errors.
	path string
}

// controllers are those that the drives of vm need, each once.
func controllers(vm *manifest.VirtualMachine) []controller {
	var all []controller
	seen := map[manifest.Bus]bool{}
	for i, d := range vm.Spec.Disks {
		if seen[d.Bus] {
			continue
		}
		seen[d.Bus] = true
		path := fmt.Sprintf("spec.disks[%d]", i)
		switch d.Bus {
		case manifest.BusVirtioSCSI:
			all = append(all, controller{scsiController, "virtio-scsi-pci", path})
		case manifest.BusUSB:
			all = append(all, controller{usbController, "qemu-xhci", path})
		case manifest.BusVirtio, manifest.BusNVMe, manifest.BusSATA:
		}
	}
	return all
}

// device is the controller as QEMU makes it. The USB one has as many ports as its
// kind can have, so that a drive which comes later never changes it.
func (c controller) device(slot driver.Slot) object {
	device := append(object{{"driver", c.driver}, {"id", c.id}}, seat(slot)...)
	if c.id == usbController {
		device = append(device, member{"p2", driver.USBPorts}, member{"p3", driver.USBPorts})
	}
	return device
}

// usbBridge is the device on a USB port that a drive sits behind: what USB calls
// mass storage is SCSI over a cable. Its name has a dot like all that maqet adds.
func usbBridge(disk string, slot driver.Slot) object {
	return append(object{{"driver", "usb-bot"}, {"id", bridgeID(disk)}}, seat(slot)...)
}

// bridgeID is QEMU's id of the USB device that a drive sits behind.
func bridgeID(disk string) string { return disk + ".bot" }
