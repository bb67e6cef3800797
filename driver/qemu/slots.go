package qemu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// The places that maqet gives out. Device numbers below 4 stay free for what
// QEMU itself adds at the first free number when emulator.defaultDevices is on
// (a VGA card and a network card, at 1 and 2 on q35 and at 2 and 3 on pc) and for
// one more from extraArgs. Numbers from 0x18 up are where q35 has its own audio,
// USB and SATA functions.
const (
	firstPortDevice = 0x04
	lastPortDevice  = 0x17
	portFunctions   = 8
	maxPorts        = (lastPortDevice - firstPortDevice + 1) * portFunctions

	firstPCIDevice = 0x04
	lastPCIDevice  = 0x1f

	sataPorts   = 6
	scsiTargets = 256
	usbPorts    = 15
)

// BusFamilyOf says how a board connects devices, by its versioned name or its alias.
func BusFamilyOf(machineType string) driver.BusFamily {
	switch {
	case machineType == "q35", strings.HasPrefix(machineType, "pc-q35-"),
		machineType == "virt", strings.HasPrefix(machineType, "virt-"):
		return driver.FamilyPCIe
	case machineType == "pc", strings.HasPrefix(machineType, "pc-i440fx-"):
		return driver.FamilyPCI
	default:
		return driver.FamilyNone
	}
}

// placement is a device of the spec that sits in a slot which maqet records.
type placement struct {
	name string
	path string // the manifest path, for errors
	kind driver.SlotKind
}

// placements are the devices of vm that need a slot, in the order of the
// manifest, which is the order a guest meets them in. Controllers come last.
func placements(vm *manifest.VirtualMachine, family driver.BusFamily, host driver.Host) []placement {
	kind, hasPCI := pciSlotKind(family)
	all := diskPlacements(vm, family)
	if !hasPCI {
		return all
	}
	for i, n := range vm.Spec.NICs {
		if host.PCIDevices[n.Model] {
			all = append(all, placement{n.Name, fmt.Sprintf("spec.nics[%d]", i), kind})
		}
	}
	for i, f := range vm.Spec.Filesystems {
		all = append(all, placement{f.Name, fmt.Sprintf("spec.filesystems[%d]", i), kind})
	}
	for i, d := range vm.Spec.Devices {
		if needsSlot(d, host) {
			all = append(all, placement{d.Name, fmt.Sprintf("spec.devices[%d]", i), kind})
		}
	}
	if vm.Spec.CloudInit != nil {
		all = append(all, placement{driver.SeedDevice, "spec.cloudInit", kind})
	}
	if w := vm.Spec.Watchdog; w != nil && w.Model == manifest.WatchdogI6300ESB {
		all = append(all, placement{driver.WatchdogDevice, "spec.watchdog.model", kind})
	}
	if vm.Spec.GuestAgent != nil {
		all = append(all, placement{driver.AgentController, "spec.guestAgent", kind})
	}
	for _, c := range controllers(vm) {
		all = append(all, placement{c.id, c.path, kind})
	}
	return all
}

// diskPlacements are those of the drives.
func diskPlacements(vm *manifest.VirtualMachine, family driver.BusFamily) []placement {
	var all []placement
	pci, hasPCI := pciSlotKind(family)
	for i, d := range vm.Spec.Disks {
		kind := pci
		switch d.Bus {
		case manifest.BusSATA:
			kind = driver.SlotSATA
		case manifest.BusVirtioSCSI:
			kind = driver.SlotSCSI
		case manifest.BusUSB:
			kind = driver.SlotUSB
		case manifest.BusVirtio, manifest.BusNVMe:
		}
		if hasPCI || kind == driver.SlotSATA {
			all = append(all, placement{d.Name, fmt.Sprintf("spec.disks[%d]", i), kind})
		}
	}
	return all
}

// pciSlotKind is the kind of slot a PCI device has on a board.
func pciSlotKind(family driver.BusFamily) (driver.SlotKind, bool) {
	switch family {
	case driver.FamilyPCIe:
		return driver.SlotPort, true
	case driver.FamilyPCI:
		return driver.SlotPCI, true
	case driver.FamilyNone:
		return "", false
	default:
		return "", false
	}
}

// needsSlot tells whether maqet places a device: a PCI device whose author has
// not placed it, and that may sit elsewhere than on the root bus.
func needsSlot(d manifest.Device, host driver.Host) bool {
	return host.PCIDevices[d.Driver] && !placedByAuthor(d) && !rootBusOnly(d.Driver)
}

// placedByAuthor tells whether the manifest itself says where a device sits.
func placedByAuthor(d manifest.Device) bool {
	_, bus := d.Properties["bus"]
	_, addr := d.Properties["addr"]
	return bus || addr
}

// rootBusOnly are the drivers that open a bus below the root bus itself: behind a
// root port they do not work.
func rootBusOnly(name string) bool {
	switch name {
	case "pcie-root-port", "ioh3420", "pxb", "pxb-pcie", "pxb-cxl", "i82801b11-bridge", "vfio-pci-igd-lpc-bridge":
		return true
	default:
		return false
	}
}

// slotKey is where the slot of a name is recorded. A name has one slot for each
// kind of board it was ever on, so that trying another board and going back
// moves nothing; the further ones are recorded as "name@kind", which is no name.
func slotKey(slots map[string]driver.Slot, name string, kind driver.SlotKind) string {
	other := name + "@" + string(kind)
	if _, ok := slots[other]; ok {
		return other
	}
	if s, ok := slots[name]; ok && s.Kind != kind {
		return other
	}
	return name
}

// slotOf is the recorded slot of a name.
func slotOf(slots map[string]driver.Slot, name string, kind driver.SlotKind) (driver.Slot, bool) {
	s, ok := slots[slotKey(slots, name, kind)]
	return s, ok
}

// allocateSlots adds a slot for each placement that has none.
func allocateSlots(slots map[string]driver.Slot, vm *manifest.VirtualMachine, want []placement) error {
	keep := map[string]bool{}
	for _, p := range want {
		keep[slotKey(slots, p.name, p.kind)] = true
	}
	for _, p := range want {
		key := slotKey(slots, p.name, p.kind)
		if _, ok := slots[key]; ok {
			continue
		}
		index, ok := freeIndex(slots, p.kind, reserved(vm, p.kind), keep)
		if !ok {
			return &SpecError{VM: vm.Metadata.Name, Path: p.path, Msg: fmt.Sprintf("no place is left for %q", p.name), Hint: fullHint(p.kind)}
		}
		slots[key] = driver.Slot{Kind: p.kind, Index: index}
	}
	return nil
}

// fullHint says how many places there are, and what to do.
func fullHint(kind driver.SlotKind) string {
	first, last := indexRange(kind)
	n := last - first + 1
	switch kind {
	case driver.SlotSATA:
		return fmt.Sprintf("the board's SATA controller has %d ports; use fewer sata drives", n)
	case driver.SlotPCI:
		return fmt.Sprintf("pci.0 has room for %d devices; use fewer, or machine.type q35, which has room for %d", n, maxPorts)
	case driver.SlotPort:
		return fmt.Sprintf("a machine has at most %d PCI Express devices; use fewer", n)
	case driver.SlotSCSI:
		return fmt.Sprintf("the machine's virtio-scsi controller has %d targets; use fewer virtio-scsi drives", n)
	case driver.SlotUSB:
		return fmt.Sprintf("the machine's USB controller has %d ports; use fewer usb drives", n)
	default:
		return ""
	}
}

// indexRange are the first and the last index of a kind.
func indexRange(kind driver.SlotKind) (first, last int) {
	switch kind {
	case driver.SlotPort:
		return 0, maxPorts - 1
	case driver.SlotPCI:
		return firstPCIDevice, lastPCIDevice
	case driver.SlotSATA:
		return 0, sataPorts - 1
	case driver.SlotSCSI:
		return 0, scsiTargets - 1
	case driver.SlotUSB:
		return 0, usbPorts - 1
	default:
		return 0, -1
	}
}

// freeIndex is the lowest index that no name ever had. When there is none it is
// the lowest one whose name is not to be kept, and that name loses its entry.
func freeIndex(slots map[string]driver.Slot, kind driver.SlotKind, reserved map[int]bool, keep map[string]bool) (int, bool) {
	holder := map[int]string{}
	for name, s := range slots {
		if s.Kind == kind {
			holder[s.Index] = name
		}
	}
	first, last := indexRange(kind)
	for i := first; i <= last; i++ {
		if _, held := holder[i]; !held && !reserved[i] {
			return i, true
		}
	}
	for _, i := range slices.Sorted(maps.Keys(holder)) {
		if !keep[holder[i]] && !reserved[i] {
			delete(slots, holder[i])
			return i, true
		}
	}
	return 0, false
}

// reserved are the device numbers on pci.0 that the manifest itself gives to
// devices.
func reserved(vm *manifest.VirtualMachine, kind driver.SlotKind) map[int]bool {
	taken := map[int]bool{}
	if kind != driver.SlotPCI {
		return taken
	}
	for _, d := range vm.Spec.Devices {
		bus, hasBus := d.Properties["bus"]
		if hasBus && bus.String() != "pci.0" {
			continue
		}
		if n, ok := deviceNumber(d.Properties["addr"]); ok {
			taken[n] = true
		}
	}
	return taken
}

// deviceNumber is the device number in an addr property, read as QEMU does: text
// is hexadecimal "device.function", a number counts functions.
func deviceNumber(addr manifest.Scalar) (int, bool) {
	switch v := addr.Value().(type) {
	case int64:
		return int(v / portFunctions), v >= 0 && v < 32*portFunctions
	case string:
		device, _, _ := strings.Cut(v, ".")
		n, err := strconv.ParseUint(strings.TrimPrefix(device, "0x"), 16, 5)
		return int(n), err == nil
	default:
		return 0, false
	}
}
