package reconcile

import (
	"cmp"
	"maps"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// plugStep is what the steps do that plug something in or take it out.
func (m *model) plugStep(s Step) {
	switch s.Kind { //nolint:exhaustive // the others do something else
	case StepPlug:
		m.plugIn(*s.Part)
	case StepUnplug:
		m.relaunch(func(l *driver.Launched) {
			l.Unplugs = maps.Clone(l.Unplugs)
			if l.Unplugs == nil {
				l.Unplugs = map[string]driver.Unplug{}
			}
			l.Unplugs[s.Part.Name] = *s.Unplug
		})
	case StepAddCPUs:
		if n := s.CPUs - m.obs.Guest.CPUs; n > 0 {
			m.obs.Guest.CPUs, m.obs.Guest.AddedCPUs = s.CPUs, m.obs.Guest.AddedCPUs+n
		}
		m.relaunch(func(l *driver.Launched) {
			cpu := manifest.CPU{}
			if l.Spec.CPU != nil {
				cpu = *l.Spec.CPU
			}
			cpu.Count = s.CPUs
			l.Spec.CPU = &cpu
		})
	case StepMedium:
		m.changeMedium(*s.Part)
	case StepDrop:
		m.relaunch(func(l *driver.Launched) { m.setPart(l, &manifest.VirtualMachineSpec{}, *s.Part) })
	case StepForward:
		m.relaunch(func(l *driver.Launched) {
			for i := range l.Spec.NICs {
				n := &l.Spec.NICs[i]
				for _, w := range m.want.Machine.Object.Spec.NICs {
					if w.Name == n.Name && w.User != nil && n.User != nil {
						n.User = w.User
					}
				}
			}
		})
	}
}

// relaunch changes a copy of the launch record.
func (m *model) relaunch(change func(*driver.Launched)) {
	if m.obs.Launched == nil {
		return
	}
	l := *m.obs.Launched
	l.Spec.Disks, l.Spec.NICs, l.Spec.Devices = slices.Clone(l.Spec.Disks), slices.Clone(l.Spec.NICs), slices.Clone(l.Spec.Devices)
	change(&l)
	m.obs.Launched = &l
}

// setPart makes one item of the launch record what another spec says of it.
func (m *model) setPart(l *driver.Launched, from *manifest.VirtualMachineSpec, part driver.Part) {
	l.Unplugs = maps.Clone(l.Unplugs)
	delete(l.Unplugs, part.Name)
	l.Spec = part.Of(l.Spec, from)
}

// plugIn gives the guest an item of the wanted spec, at the place that it has or gets.
func (m *model) plugIn(part driver.Part) {
	g, l := m.obs.Guest, m.obs.Launched
	if g == nil || l == nil || m.obs.Identity == nil {
		return
	}
	spec := &m.want.Machine.Object.Spec
	id := *m.obs.Identity
	id.Slots, id.MACs = maps.Clone(id.Slots), maps.Clone(id.MACs)
	if id.Slots == nil {
		id.Slots = map[string]driver.Slot{}
	}
	if id.MACs == nil {
		id.MACs = map[string]string{}
	}
	m.place(l, id.Slots, spec, part)
	for i := range spec.Disks {
		if d := &spec.Disks[i]; part == (driver.Part{List: driver.ListDisks, Name: d.Name}) {
			g.Disks = append(slices.Clone(g.Disks), m.drive(d))
			g.Disks[len(g.Disks)-1].IOPS, g.Disks[len(g.Disks)-1].BPS = 0, 0
		}
	}
	for _, d := range spec.Devices {
		if part == (driver.Part{List: driver.ListDevices, Name: d.Name}) {
			g.Devices = append(slices.Clone(g.Devices), driver.GDevice{Name: d.Name, Driver: d.Driver})
		}
	}
	for _, n := range spec.NICs {
		if part != (driver.Part{List: driver.ListNICs, Name: n.Name}) {
			continue
		}
		if n.MAC == "" && id.MACs[n.Name] == "" {
			id.MACs[n.Name] = modelMAC
		}
		g.NICs = append(slices.Clone(g.NICs), driver.GNIC{Name: n.Name, Model: n.Model, MAC: cmp.Or(n.MAC, id.MACs[n.Name])})
	}
	m.obs.Identity = &id
	m.relaunch(func(l *driver.Launched) {
		l.Ports = l.PortCount()
		l.Identity.Slots, l.Identity.MACs = id.Slots, id.MACs
		m.setPart(l, spec, part)
	})
}

// place finds a place for an item.
func (m *model) place(l *driver.Launched, slots map[string]driver.Slot, spec *manifest.VirtualMachineSpec, part driver.Part) {
	scsi := func(d manifest.Disk) bool { return d.Name == part.Name && d.Bus == manifest.BusVirtioSCSI }
	if part.List == driver.ListDisks && slices.ContainsFunc(spec.Disks, scsi) {
		l.PlugSCSI(slots, spec, part.Name)
		return
	}
	l.PlugPlace(slots, spec, part.Name)
}

// changeMedium puts into a cdrom what the wanted spec says.
func (m *model) changeMedium(part driver.Part) {
	spec := &m.want.Machine.Object.Spec
	for i := range spec.Disks {
		if d := &spec.Disks[i]; d.Name == part.Name {
			if drive := m.driveOf(d.Name); drive != nil {
				*drive = m.drive(d)
			}
		}
	}
	m.relaunch(func(l *driver.Launched) { m.setPart(l, spec, part) })
}

// letGo is a guest that lets go of all devices that it was asked to.
func (m *model) letGo() {
	g := m.obs.Guest
	if g == nil || m.obs.Launched == nil {
		return
	}
	asked := func(name string) bool { _, ok := m.obs.Launched.Unplugs[name]; return ok }
	g.Disks = slices.DeleteFunc(slices.Clone(g.Disks), func(d driver.GDisk) bool { return asked(d.Name) })
	g.NICs = slices.DeleteFunc(slices.Clone(g.NICs), func(n driver.GNIC) bool { return asked(n.Name) })
	g.Devices = slices.DeleteFunc(slices.Clone(g.Devices), func(d driver.GDevice) bool { return asked(d.Name) })
}
