package driver

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/manifest"
)

// The lists of a spec whose items come and go while the guest runs.
const (
	ListDisks   = "disks"
	ListNICs    = "nics"
	ListDevices = "devices"
)

// Part is one item of a machine that is plugged into a running guest or taken out of it.
type Part struct {
	// List is the list of the spec that the item is in, Name its name.
	List string `json:"list"`
	Name string `json:"name"`
}

// String is the item's path in a manifest.
func (p Part) String() string { return "spec." + p.List + "[" + p.Name + "]" }

// Noun is what people call an item of the list.
func (p Part) Noun() string { return strings.TrimSuffix(p.List, "s") + " " + p.Name }

// Of is a spec with the item as another spec has it, or without it.
func (p Part) Of(spec manifest.VirtualMachineSpec, from *manifest.VirtualMachineSpec) manifest.VirtualMachineSpec {
	switch p.List {
	case ListDisks:
		spec.Disks = withItem(spec.Disks, from.Disks, func(d manifest.Disk) bool { return d.Name == p.Name })
	case ListNICs:
		spec.NICs = withItem(spec.NICs, from.NICs, func(n manifest.NIC) bool { return n.Name == p.Name })
	case ListDevices:
		spec.Devices = withItem(spec.Devices, from.Devices, func(d manifest.Device) bool { return d.Name == p.Name })
	}
	return spec
}

// withItem is a list with the one item as another list has it, or without it.
func withItem[T any](list, from []T, is func(T) bool) []T {
	list = slices.Clone(list)
	i, j := slices.IndexFunc(list, is), slices.IndexFunc(from, is)
	switch {
	case i < 0 && j < 0:
		return list
	case j < 0:
		return slices.Delete(list, i, i+1)
	case i < 0:
		return append(list, from[j])
	default:
		list[i] = from[j]
		return list
	}
}

// Unplug is a device that the guest was asked to let go of. It is in the launch record
// until the device and what was behind it are gone.
type Unplug struct {
	// Since is when the guest was asked first, Asked when it was last. A guest that is
	// booting may not have heard it.
	Since time.Time `json:"since"`
	Asked time.Time `json:"asked"`
	// Deadline is when a guest that still has it counts as one that refuses.
	Deadline time.Time `json:"deadline"`
}

// PortCount is how many root ports the process has; none on boards without PCI Express.
func (l *Launched) PortCount() int {
	if l.Ports > 0 || BusFamilyOf(l.Machine) != FamilyPCIe {
		return l.Ports
	}
	// The record of a maqet that did not note it yet.
	return PortsNeeded(&l.Spec, l.Identity.Slots)
}

// PortsNeeded is how many root ports a start gives a machine: each up to the highest
// one that was ever given out, and the spare ones.
func PortsNeeded(spec *manifest.VirtualMachineSpec, slots map[string]Slot) int {
	used := 0
	for _, s := range slots {
		if s.Kind == SlotPort {
			used = max(used, s.Index+1)
		}
	}
	if spec.Machine != nil {
		used += spec.Machine.HotplugPorts
	}
	return used
}

// PlugPlace is where a PCI device of that name can be plugged into the process: at its
// recorded slot, or at a free one, which is then entered into slots. There is none when
// no port is left. The place of a name that is neither wanted nor in the process is
// taken only when no other is free.
func (l *Launched) PlugPlace(slots map[string]Slot, spec *manifest.VirtualMachineSpec, name string) (Slot, bool) {
	kind, last, ok := l.plugRange()
	if !ok {
		return Slot{}, false
	}
	key := SlotKey(slots, name, kind)
	if s, ok := slots[key]; ok {
		return s, s.Index <= last
	}
	kept := keptNames(spec, &l.Spec)
	index, ok := FreeIndex(slots, kind, last, ReservedSlots(spec, kind), kept)
	if !ok {
		return Slot{}, false
	}
	s := Slot{Kind: kind, Index: index}
	slots[key] = s
	return s, true
}

// PlugSCSI is where a drive of that name can be plugged into the machine's virtio-scsi
// controller, which is entered into slots.
func (l *Launched) PlugSCSI(slots map[string]Slot, spec *manifest.VirtualMachineSpec, name string) (Slot, bool) {
	key := SlotKey(slots, name, SlotSCSI)
	if s, ok := slots[key]; ok {
		return s, true
	}
	_, last := SlotRange(SlotSCSI)
	index, ok := FreeIndex(slots, SlotSCSI, last, nil, keptNames(spec, &l.Spec))
	if !ok {
		return Slot{}, false
	}
	s := Slot{Kind: SlotSCSI, Index: index}
	slots[key] = s
	return s, true
}

// plugRange is the kind of place that PCI devices are plugged into, and the last one
// that the process has.
func (l *Launched) plugRange() (kind SlotKind, last int, ok bool) {
	if kind, ok = PCISlotKind(BusFamilyOf(l.Machine)); !ok {
		return "", 0, false
	}
	_, last = SlotRange(kind)
	if kind == SlotPort {
		last = l.PortCount() - 1
	}
	return kind, last, true
}

// FreePlaces is how many PCI devices can still be plugged into the process.
func (l *Launched) FreePlaces(slots map[string]Slot, spec *manifest.VirtualMachineSpec) int {
	slots = maps.Clone(slots)
	if slots == nil {
		slots = map[string]Slot{}
	}
	n := 0
	for {
		// No name of a manifest has a slash.
		s, ok := l.PlugPlace(slots, spec, "free/place")
		if !ok {
			return n
		}
		n++
		delete(slots, "free/place")
		slots[MaqetPrefix+"taken/"+strings.Repeat("x", n)] = s
	}
}

// MaqetPrefix begins the names of what maqet adds itself. Names of a manifest have no dot.
const MaqetPrefix = "maqet."

// keptNames tells whose slots are not given away.
func keptNames(specs ...*manifest.VirtualMachineSpec) func(key string) bool {
	names := map[string]bool{}
	for _, s := range specs {
		for _, d := range s.Disks {
			names[d.Name] = true
		}
		for _, n := range s.NICs {
			names[n.Name] = true
		}
		for _, d := range s.Devices {
			names[d.Name] = true
		}
	}
	return func(key string) bool {
		name, _, _ := strings.Cut(key, "@")
		return names[name] || strings.HasPrefix(name, MaqetPrefix)
	}
}

// PluggableNIC tells whether a card of that model comes and goes while a guest runs.
func PluggableNIC(model string) bool {
	switch model {
	case "virtio-net-pci", "virtio-net-pci-transitional", "virtio-net-pci-non-transitional",
		"e1000", "e1000-82544gc", "e1000-82545em", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci",
		"i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801":
		return true
	default:
		return false
	}
}

// PluggableDevice tells whether a further device of that driver, which is a PCI device,
// comes and goes while a guest runs.
func PluggableDevice(driver string) bool {
	switch driver {
	case "virtio-rng-pci", "virtio-balloon-pci", "virtio-keyboard-pci", "virtio-mouse-pci", "virtio-tablet-pci",
		"virtio-serial-pci", "vhost-vsock-pci", "qemu-xhci", "i6300esb", "edu", "pci-testdev":
		return true
	default:
		return PluggableNIC(driver)
	}
}

// PlacedByAuthor tells whether the manifest itself says where a device sits.
func PlacedByAuthor(d manifest.Device) bool {
	_, bus := d.Properties["bus"]
	_, addr := d.Properties["addr"]
	return bus || addr
}
