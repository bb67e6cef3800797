package qemu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// FileNode is QEMU's name of the block node that opens a disk's file. The node
// that understands the format is called like the disk.
func FileNode(disk string) string { return disk + ".file" }

// PortID is QEMU's id of a root port, which is also the name of the bus behind it.
// It has two dots, since QEMU names the bus of a device "lan" itself, if it has
// one, "lan.0".
func PortID(index int) string { return portPrefix + strconv.Itoa(index) }

// portPrefix begins the id of each root port.
const portPrefix = "maqet.port."

// rootPort is one PCI Express root port. Eight share a device number. Function 0
// is what makes the others visible, so ports are always rendered from 0 on.
func rootPort(index int) object {
	device, function := driver.FirstPortDevice+index/driver.PortFunctions, index%driver.PortFunctions
	port := object{
		{"driver", "pcie-root-port"},
		{"id", PortID(index)},
		{"bus", "pcie.0"},
		{"addr", fmt.Sprintf("0x%x.0x%x", device, function)},
	}
	if function == 0 {
		port = append(port, member{"multifunction", true})
	}
	// The chassis and slot numbers are what a guest names slots by, and the three
	// must be unique; 0 is no valid chassis.
	return append(port, member{"chassis", index + 1}, member{"slot", index + 1}, member{"port", index + 1})
}

// seat is where a slot is, in QEMU's words. No slot is nowhere in particular.
func seat(slot driver.Slot) object {
	switch slot.Kind {
	case driver.SlotPort:
		return object{{"bus", PortID(slot.Index)}, {"addr", "0x0"}}
	case driver.SlotPCI:
		return object{{"bus", "pci.0"}, {"addr", fmt.Sprintf("0x%x", slot.Index)}}
	case driver.SlotSATA:
		return object{{"bus", fmt.Sprintf("ide.%d", slot.Index)}}
	case driver.SlotSCSI:
		return object{{"bus", scsiController + ".0"}, {"channel", 0}, {"scsi-id", slot.Index}, {"lun", 0}}
	case driver.SlotUSB:
		return object{{"bus", usbController + ".0"}, {"port", strconv.Itoa(slot.Index + 1)}}
	default:
		return nil
	}
}

// blockNodes are the two nodes of a disk: what opens its source and what
// understands the format.
//
// auto-read-only is off: an image that cannot be written is an error at the start,
// not a surprise in the guest.
func blockNodes(d manifest.Disk, source disk.Source) [2]object {
	file := append(object{{"node-name", FileNode(d.Name)}}, optionsOf(source.Options)...)
	if d.AIO != "" {
		file = append(file, member{"aio", string(d.AIO)})
	}
	format := object{{"node-name", d.Name}, {"driver", string(d.Format)}, {"file", FileNode(d.Name)}}
	if d.DetectZeroes != "" {
		format = append(format, member{"detect-zeroes", string(d.DetectZeroes)})
	}
	both := object{{"read-only", d.ReadOnly}, {"auto-read-only", false}}
	if d.Cache != "" {
		both = append(both, member{"cache", object{{"direct", isDirect(d.Cache)}, {"no-flush", d.Cache == manifest.CacheUnsafe}}})
	}
	if d.Discard != "" {
		both = append(both, member{"discard", string(d.Discard)})
	}
	return [2]object{append(file, both...), append(format, both...)}
}

// isDirect tells whether a cache mode passes the host's page cache by.
func isDirect(mode manifest.CacheMode) bool {
	return mode == manifest.CacheNone || mode == manifest.CacheDirectSync
}

// ThreadID is QEMU's id of the thread that serves a disk alone.
func ThreadID(disk string) string { return disk + ".iothread" }

// diskObjects are the objects that a drive refers to.
func diskObjects(d manifest.Disk) []object {
	if !d.IOThread {
		return nil
	}
	return []object{{{"qom-type", "iothread"}, {"id", ThreadID(d.Name)}}}
}

// optionsOf are the options of a kind of storage as an object.
func optionsOf(options []disk.Option) object {
	var o object
	for _, option := range options {
		value := option.Value
		if nested, ok := value.([]disk.Option); ok {
			value = optionsOf(nested)
		}
		o = append(o, member{option.Key, value})
	}
	return o
}

// diskDriver is the device a disk shows itself as.
func diskDriver(d manifest.Disk) string {
	family, kind := "", "hd"
	if d.Media == manifest.MediaCDROM {
		kind = "cd"
	}
	switch d.Bus {
	case manifest.BusVirtio:
		return "virtio-blk-pci"
	case manifest.BusNVMe:
		return "nvme"
	case manifest.BusSATA:
		family = "ide"
	case manifest.BusVirtioSCSI, manifest.BusUSB:
		family = "scsi"
	}
	return family + "-" + kind
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// diskDevices are the drive that the guest sees and, before it, what it sits behind.
func diskDevices(d manifest.Disk, slot driver.Slot, bootIndex int) []object {
	var all []object
	device := object{{"driver", diskDriver(d)}, {"id", d.Name}}
	if d.Bus == manifest.BusUSB {
		all = append(all, usbBridge(d.Name, slot))
		device = append(device, member{"bus", bridgeID(d.Name) + ".0"}, member{"scsi-id", 0}, member{"lun", 0})
	} else {
		device = append(device, seat(slot)...)
	}
	if !d.IsEmpty() {
		device = append(device, member{"drive", d.Name})
	}
	if d.Serial != "" {
		device = append(device, member{"serial", d.Serial})
	}
	if d.Cache != "" {
		// Whether the guest sees a cache that it has to flush is the device's part.
		flushed := d.Cache == manifest.CacheWritethrough || d.Cache == manifest.CacheDirectSync
		device = append(device, member{"write-cache", onOff(!flushed)})
	}
	if d.IOThread {
		device = append(device, member{"iothread", ThreadID(d.Name)})
	}
	return append(all, withBootIndex(device, bootIndex))
}

// nicDevice is the card that the guest sees.
func nicDevice(n manifest.NIC, mac string, slot driver.Slot, bootIndex int) object {
	device := object{{"driver", n.Model}, {"id", n.Name}}
	device = append(device, seat(slot)...)
	device = append(device, member{"netdev", NetdevID(n.Name)}, member{"mac", mac})
	return withBootIndex(device, bootIndex)
}

// withBootIndex adds a place in the boot order; 0 is none.
func withBootIndex(device object, bootIndex int) object {
	if bootIndex == 0 {
		return device
	}
	return append(device, member{"bootindex", bootIndex})
}

// plainDevice is any further device. Property values keep the type they have in
// the manifest, since QEMU's JSON tells a number from text.
func plainDevice(d manifest.Device, slot driver.Slot) object {
	device := object{{"driver", d.Driver}, {"id", d.Name}}
	device = append(device, seat(slot)...)
	for _, key := range slices.Sorted(maps.Keys(d.Properties)) {
		device = append(device, member{key, d.Properties[key].Value()})
	}
	return device
}
