package driver

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/maqet/maqet/manifest"
)

// The places that maqet gives out. Device numbers below 4 stay free for what
// QEMU itself adds at the first free number when emulator.defaultDevices is on
// (a VGA card and a network card, at 1 and 2 on q35 and at 2 and 3 on pc) and for
// one more from extraArgs. Numbers from 0x18 up are where q35 has its own audio,
// USB and SATA functions.
const (
	// FirstPortDevice is the device number of the first root ports, and
	// PortFunctions how many ports share a number.
	FirstPortDevice = 0x04
	PortFunctions   = 8
	// MaxPorts is how many root ports a machine can have.
	MaxPorts = (lastPortDevice - FirstPortDevice + 1) * PortFunctions
	// FirstPCIDevice and LastPCIDevice are the device numbers on pci.0.
	FirstPCIDevice = 0x04
	LastPCIDevice  = 0x1f
	// USBPorts are the ports of a machine's USB controller.
	USBPorts = 15
	// SATAPorts are those of q35's own controller.
	SATAPorts = 6

	lastPortDevice = 0x17
	scsiTargets    = 256
)

// BusFamilyOf says how a board connects devices, by its versioned name or its alias.
func BusFamilyOf(machineType string) BusFamily {
	switch {
	case machineType == "q35", strings.HasPrefix(machineType, "pc-q35-"),
		machineType == "virt", strings.HasPrefix(machineType, "virt-"):
		return FamilyPCIe
	case machineType == "pc", strings.HasPrefix(machineType, "pc-i440fx-"):
		return FamilyPCI
	default:
		return FamilyNone
	}
}

// PCISlotKind is the kind of slot a PCI device has on a board.
func PCISlotKind(family BusFamily) (SlotKind, bool) {
	switch family {
	case FamilyPCIe:
		return SlotPort, true
	case FamilyPCI:
		return SlotPCI, true
	case FamilyNone:
		return "", false
	default:
		return "", false
	}
}

// SlotKey is where the slot of a name is recorded. A name has one slot for each
// kind of board it was ever on, so that trying another board and going back
// moves nothing; the further ones are recorded as "name@kind", which is no name.
func SlotKey(slots map[string]Slot, name string, kind SlotKind) string {
	other := name + "@" + string(kind)
	if _, ok := slots[other]; ok {
		return other
	}
	if s, ok := slots[name]; ok && s.Kind != kind {
		return other
	}
	return name
}

// SlotOf is the recorded slot of a name.
func SlotOf(slots map[string]Slot, name string, kind SlotKind) (Slot, bool) {
	s, ok := slots[SlotKey(slots, name, kind)]
	return s, ok
}

// SlotRange are the first and the last index of a kind.
func SlotRange(kind SlotKind) (first, last int) {
	switch kind {
	case SlotPort:
		return 0, MaxPorts - 1
	case SlotPCI:
		return FirstPCIDevice, LastPCIDevice
	case SlotSATA:
		return 0, SATAPorts - 1
	case SlotSCSI:
		return 0, scsiTargets - 1
	case SlotUSB:
		return 0, USBPorts - 1
	default:
		return 0, -1
	}
}

// FreeIndex is the lowest index up to last that no name ever had. When there is none
// it is the lowest one whose name is not to be kept, and that name loses its entry.
func FreeIndex(slots map[string]Slot, kind SlotKind, last int, reserved map[int]bool, keep func(name string) bool) (int, bool) {
	holder := map[int]string{}
	for name, s := range slots {
		if s.Kind == kind {
			holder[s.Index] = name
		}
	}
	first, _ := SlotRange(kind)
	for i := first; i <= last; i++ {
		if _, held := holder[i]; !held && !reserved[i] {
			return i, true
		}
	}
	for _, i := range slices.Sorted(maps.Keys(holder)) {
		if i <= last && !keep(holder[i]) && !reserved[i] {
			delete(slots, holder[i])
			return i, true
		}
	}
	return 0, false
}

// ReservedSlots are the device numbers on pci.0 that a spec itself gives to devices.
func ReservedSlots(spec *manifest.VirtualMachineSpec, kind SlotKind) map[int]bool {
	taken := map[int]bool{}
	if kind != SlotPCI {
		return taken
	}
	for _, d := range spec.Devices {
		bus, hasBus := d.Properties["bus"]
		if hasBus && bus.String() != "pci.0" {
			continue
		}
		if n, ok := DeviceNumber(d.Properties["addr"]); ok {
			taken[n] = true
		}
	}
	return taken
}

// DeviceNumber is the device number in an addr property, read as QEMU does: text
// is hexadecimal "device.function", a number counts functions.
func DeviceNumber(addr manifest.Scalar) (int, bool) {
	switch v := addr.Value().(type) {
	case int64:
		return int(v / PortFunctions), v >= 0 && v < 32*PortFunctions
	case string:
		device, _, _ := strings.Cut(v, ".")
		n, err := strconv.ParseUint(strings.TrimPrefix(device, "0x"), 16, 5)
		return int(n), err == nil
	default:
		return 0, false
	}
}
