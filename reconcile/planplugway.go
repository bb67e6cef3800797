package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// plugWay is how an item of a spec is plugged into a running QEMU.
type plugWay struct {
	// pci tells that it needs a place of its own for a PCI device.
	pci bool
	// why is why it cannot be plugged in; empty when it can.
	why string
}

// cannotPlug is the way of what only a start brings.
func cannotPlug(what string) plugWay {
	return plugWay{why: "QEMU cannot plug in or take out " + what + " while the guest runs"}
}

// way is how an item of a spec is plugged in, and taken out, while the guest runs.
func (p *planner) way(s *manifest.VirtualMachineSpec, part driver.Part) plugWay {
	switch part.List {
	case driver.ListNICs:
		n := s.NICs[slices.IndexFunc(s.NICs, func(n manifest.NIC) bool { return n.Name == part.Name })]
		if !driver.PluggableNIC(n.Model) {
			return cannotPlug("the card " + n.Model)
		}
		return plugWay{pci: true}
	case driver.ListDisks:
		return p.diskWay(s.Disks[slices.IndexFunc(s.Disks, func(d manifest.Disk) bool { return d.Name == part.Name })])
	default:
		d := s.Devices[slices.IndexFunc(s.Devices, func(d manifest.Device) bool { return d.Name == part.Name })]
		switch {
		case !driver.PluggableDevice(d.Driver):
			return plugWay{why: "maqet does not know that QEMU can plug in or take out " + d.Driver + " while the guest runs"}
		case driver.PlacedByAuthor(d):
			return plugWay{why: "its place is the manifest's own, which only a start gives it"}
		}
		return plugWay{pci: true}
	}
}

// diskWay is how a disk is plugged in.
func (p *planner) diskWay(d manifest.Disk) plugWay {
	if e := p.obs.Launched.Spec.Emulator; e != nil && e.RunAs != "" {
		return plugWay{why: "QEMU runs as another user, who gets a disk at a start only"}
	}
	switch d.Bus {
	case manifest.BusVirtio, manifest.BusNVMe:
		return plugWay{pci: true}
	case manifest.BusVirtioSCSI:
		if !slices.Contains(p.obs.Guest.Controllers, "virtio-scsi-pci") {
			return plugWay{why: "the machine has no virtio-scsi controller, which it gets at the next start"}
		}
		return plugWay{}
	case manifest.BusSATA, manifest.BusUSB:
	}
	return cannotPlug(fmt.Sprintf("drives on %s", d.Bus))
}

// holds is why a device that is there cannot be taken out; empty when it can.
func (p *planner) holds(has *manifest.VirtualMachineSpec, x *partPlan) string {
	if w := p.way(has, x.Part); w.why != "" {
		return w.why
	}
	if x.List != driver.ListDisks {
		return ""
	}
	if bootsFrom(has, x.Name) {
		return "the guest may have booted from it"
	}
	if !x.wanted {
		return ""
	}
	for _, c := range x.changes {
		if !isSource(c.Path) {
			return c.Why // which is no reason to take a disk away that the guest uses
		}
	}
	return ""
}

// bootsFrom tells whether a guest may have booted from a disk, which it then needs for
// as long as it runs.
func bootsFrom(s *manifest.VirtualMachineSpec, name string) bool {
	if s.Boot != nil && len(s.Boot.Order) > 0 {
		return slices.Contains(s.Boot.Order, name)
	}
	if s.Boot != nil && s.Boot.Kernel != nil {
		return false
	}
	return len(s.Disks) > 0 && s.Disks[0].Name == name
}

// isSource tells whether a field says where a disk's data is.
func isSource(path string) bool {
	_, key, _ := strings.Cut(path, "].")
	return key == "file" || key == "format" || strings.HasPrefix(key, "nbd.")
}

// onlyMedium tells that nothing but what is in a cdrom differs.
func (p *planner) onlyMedium(x *partPlan) bool {
	if x.List != driver.ListDisks || !x.there || !x.wanted || !x.launched ||
		slices.ContainsFunc(x.changes, func(c Change) bool { return !isSource(c.Path) }) {
		return false
	}
	cdrom := func(d manifest.Disk) bool { return d.Name == x.Name && d.Media == manifest.MediaCDROM }
	return slices.ContainsFunc(p.spec.Disks, cdrom) && slices.ContainsFunc(p.obs.Launched.Spec.Disks, cdrom)
}

// medium plans to change what is in a cdrom.
func (p *planner) medium(h *hotPlan, x *partPlan) {
	_, why := p.diskFirst(x.Name)
	if why != "" || p.unable() {
		h.show(x, orNone(why), true)
		return
	}
	h.show(x, "by blockdev-open-tray, blockdev-insert-medium and blockdev-close-tray", false)
	d := p.spec.Disks[slices.IndexFunc(p.spec.Disks, func(d manifest.Disk) bool { return d.Name == x.Name })]
	s := Step{Kind: StepMedium, Part: &x.Part, File: d.File, Why: "as the manifest says"}
	if d.NBD != nil {
		s.File = d.NBD.URI()
	}
	h.plugs = append(h.plugs, s)
}

// diskFirst are the steps that make a disk before it is plugged in, and why that cannot
// be done now; empty when it can.
func (p *planner) diskFirst(name string) (steps []Step, why string) {
	d := p.spec.Disks[slices.IndexFunc(p.spec.Disks, func(d manifest.Disk) bool { return d.Name == name })]
	f := p.obs.Files[d.Name]
	switch {
	case d.IsEmpty():
		return nil, ""
	case f.Err != "":
		return nil, "its file could not be looked at: " + f.Err
	case f.Lost:
		return nil, "its image " + f.Backing + " is gone"
	case f.Exists:
		return nil, ""
	case !d.IsMade():
		return nil, "there is no " + missing(&d, f)
	case slices.Contains(p.rec.StartedDisks, d.Name):
		return nil, "it was there before and its file " + f.Path + " is gone; bring the file back, or give the disk another name"
	case !p.ready([]manifest.Disk{d}):
		return nil, "its image is not here"
	default:
		return []Step{p.createStep(d)}, ""
	}
}
