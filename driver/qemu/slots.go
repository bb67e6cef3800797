package qemu

import (
	"fmt"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// placement is a device of the spec that sits in a slot which maqet records.
type placement struct {
	name string
	path string // the manifest path, for errors
	kind driver.SlotKind
}

// placements are the devices of vm that need a slot, in the order of the
// manifest, which is the order a guest meets them in. Controllers come last.
func placements(vm *manifest.VirtualMachine, family driver.BusFamily, host driver.Host) []placement {
	kind, hasPCI := driver.PCISlotKind(family)
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
	pci, hasPCI := driver.PCISlotKind(family)
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

// needsSlot tells whether maqet places a device: a PCI device whose author has
// not placed it, and that may sit elsewhere than on the root bus.
func needsSlot(d manifest.Device, host driver.Host) bool {
	return host.PCIDevices[d.Driver] && !driver.PlacedByAuthor(d) && !rootBusOnly(d.Driver)
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

// allocateSlots adds a slot for each placement that has none.
func allocateSlots(slots map[string]driver.Slot, vm *manifest.VirtualMachine, want []placement) error {
	keep := map[string]bool{}
	for _, p := range want {
		keep[driver.SlotKey(slots, p.name, p.kind)] = true
	}
	for _, p := range want {
		key := driver.SlotKey(slots, p.name, p.kind)
		if _, ok := slots[key]; ok {
			continue
		}
		_, last := driver.SlotRange(p.kind)
		index, ok := driver.FreeIndex(slots, p.kind, last, driver.ReservedSlots(&vm.Spec, p.kind), func(name string) bool { return keep[name] })
		if !ok {
			return &SpecError{VM: vm.Metadata.Name, Path: p.path, Msg: fmt.Sprintf("no place is left for %q", p.name), Hint: fullHint(p.kind)}
		}
		slots[key] = driver.Slot{Kind: p.kind, Index: index}
	}
	return nil
}

// fullHint says how many places there are, and what to do.
func fullHint(kind driver.SlotKind) string {
	first, last := driver.SlotRange(kind)
	n := last - first + 1
	switch kind {
	case driver.SlotSATA:
		return fmt.Sprintf("the board's SATA controller has %d ports; use fewer sata drives", n)
	case driver.SlotPCI:
		return fmt.Sprintf("pci.0 has room for %d devices; use fewer, or machine.type q35, which has room for %d", n, driver.MaxPorts)
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
