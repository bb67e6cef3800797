package qemu

import (
	"fmt"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// ports renders the root ports. The guest's firmware numbers buses in the order
// of the ports, so each port up to the highest that was ever given out is there
// at every start, whether or not its device is: then no bus ever changes its
// number. Spare ports for later come last.
func (r *renderer) ports() {
	spare := 0
	if m := r.VM.Spec.Machine; m != nil {
		spare = m.HotplugPorts
	}
	if r.family != driver.FamilyPCIe {
		if spare > 0 {
			r.fail("spec.machine.hotplugPorts", fmt.Sprintf("board %s has no PCI Express ports", r.Identity.Machine.Type), "use machine.type q35 or virt, or leave the key out", nil)
		}
		return
	}
	count := r.Ports
	if count == 0 {
		count = driver.PortsNeeded(&r.VM.Spec, r.Identity.Slots)
	}
	if used := count - spare; count > driver.MaxPorts {
		r.fail("spec.machine.hotplugPorts",
			fmt.Sprintf("%d spare ports and %d used ones are more than the %d a machine can have", spare, used, driver.MaxPorts),
			fmt.Sprintf("ask for at most %d", driver.MaxPorts-used), nil)
		return
	}
	for i := range count {
		r.addJSON("spec.machine.hotplugPorts", "-device", rootPort(i))
	}
}

// pciSeat is the slot of a PCI device of the manifest.
func (r *renderer) pciSeat(path, name, model string) driver.Slot {
	kind, ok := driver.PCISlotKind(r.family)
	if !ok {
		r.noPCI(path, model)
		return driver.Slot{}
	}
	return r.slot(path, name, kind)
}

// disks renders controllers, block nodes and drives.
func (r *renderer) disks() {
	for _, c := range controllers(r.VM) {
		r.addJSON(c.path, "-device", c.device(r.pciSeat(c.path, c.id, c.driver)))
	}
	for i, d := range r.VM.Spec.Disks {
		path := fmt.Sprintf("spec.disks[%d]", i)
		r.nodes(path, d)
		for _, o := range diskObjects(d) {
			r.addJSON(path, "-object", o)
		}
		for _, device := range diskDevices(d, r.diskSeat(path, d), r.boot[d.Name]) {
			r.addJSON(path, "-device", device)
		}
	}
}

// nodes renders the block nodes of a disk. An empty drive has none.
func (r *renderer) nodes(path string, d manifest.Disk) {
	if d.IsEmpty() {
		return
	}
	if d.Format == "" {
		r.fail(path+".format", "the format of the image is not known", "name qcow2 or raw", nil)
	}
	source, err := r.Kinds.Source(&d, r.Layout.Disk(r.VM.Metadata.Name, d.Name))
	if err != nil {
		r.fail(path, "cannot be opened", "give it a size, a file or nbd", err)
		return
	}
	for _, node := range blockNodes(d, source) {
		r.addJSON(path, "-blockdev", node)
	}
}

// diskSeat is where a disk is attached.
func (r *renderer) diskSeat(path string, d manifest.Disk) driver.Slot {
	switch d.Bus {
	case manifest.BusVirtio, manifest.BusNVMe:
		return r.pciSeat(path, d.Name, diskDriver(d))
	case manifest.BusVirtioSCSI:
		return r.slot(path, d.Name, driver.SlotSCSI)
	case manifest.BusUSB:
		return r.slot(path, d.Name, driver.SlotUSB)
	case manifest.BusSATA:
		if !(&manifest.Machine{Type: r.Identity.Machine.Type}).IsQ35() {
			r.fail(path+".bus", fmt.Sprintf("board %s has no SATA controller", r.Identity.Machine.Type), sataHint, nil)
		}
		return r.slot(path, d.Name, driver.SlotSATA)
	default:
		r.fail(path+".bus", fmt.Sprintf("maqet knows no bus %q for drives", d.Bus), sataHint, nil)
		return driver.Slot{}
	}
}

// sataHint is the remedy for a drive whose bus the board does not have.
const sataHint = "use machine.type q35, or another bus such as virtio-scsi"

// nics renders networks and cards.
func (r *renderer) nics() {
	for i, n := range r.VM.Spec.NICs {
		path := fmt.Sprintf("spec.nics[%d]", i)
		r.netdev(path, n)
		r.addJSON(path, "-device", r.card(path, n))
	}
}

// card is the device of a nic.
func (r *renderer) card(path string, n manifest.NIC) object {
	mac := n.MAC
	if mac == "" {
		mac = r.Identity.MACs[n.Name]
	}
	if mac == "" {
		r.fail(path+".mac", fmt.Sprintf("the machine's identity holds no MAC address for %q", n.Name), "apply the machine again, which completes its identity", nil)
	}
	// A card that is no PCI device sits where QEMU puts it.
	var slot driver.Slot
	if r.Host.PCIDevices[n.Model] {
		slot = r.pciSeat(path, n.Name, n.Model)
	}
	return nicDevice(n, mac, slot, r.boot[n.Name])
}

// netdev renders the network behind a card.
func (r *renderer) netdev(path string, n manifest.NIC) {
	switch {
	case n.User != nil:
		netdev, err := userNetdev(n)
		if err != nil {
			r.fail(path+".user.forward", "cannot be forwarded", "", err)
			return
		}
		r.addJSON(path, "-netdev", netdev)
	case n.Bridge != nil:
		r.addJSON(path, "-netdev", tapNetdev(n, strconv.Itoa(r.inherit(File{Kind: Tap, NIC: n.Name}))))
	default:
		r.fail(path, fmt.Sprintf("nic %q has no network", n.Name), "give it user: {} or bridge: {name: BRIDGE}", nil)
	}
}

// devices renders the further devices.
func (r *renderer) devices() {
	for i, d := range r.VM.Spec.Devices {
		path := fmt.Sprintf("spec.devices[%d]", i)
		for _, key := range []string{"driver", "id"} {
			if _, named := d.Properties[key]; named {
				r.fail(path+".properties."+key, fmt.Sprintf("%q is no property", key), "it is the device's driver or name", nil)
			}
		}
		var slot driver.Slot
		if needsSlot(d, r.Host) {
			slot = r.pciSeat(path, d.Name, d.Driver)
		}
		r.addJSON(path, "-device", plainDevice(d, slot))
	}
}
