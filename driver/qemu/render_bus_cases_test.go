package qemu

import (
	"github.com/maqet/maqet/manifest"
)

// onBus is an empty disk of maqet's own on a bus.
func onBus(name string, bus manifest.Bus) manifest.Disk {
	d := manifest.Disk{Name: name, Size: 1 << 30, Bus: bus}
	if bus == manifest.BusNVMe {
		d.Serial = name + "-0001"
	}
	return d
}

// busBoard is the board that a test of a bus runs on.
type busBoard struct {
	name string
	arm  bool
}

var (
	boardQ35  = busBoard{name: "q35"}
	boardPC   = busBoard{name: "pc"}
	boardVirt = busBoard{name: "virt", arm: true}
)

func (b busBoard) spec(disks ...manifest.Disk) manifest.VirtualMachineSpec {
	s := manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: b.name}, Disks: disks}
	if b.arm {
		s.Emulator, s.CPU = &manifest.Emulator{Binary: "qemu-system-aarch64"}, &manifest.CPU{Model: "max"}
	}
	return s
}

// allBuses are the buses, each with the boards that have it.
var allBuses = map[manifest.Bus][]busBoard{
	manifest.BusVirtio:     {boardQ35, boardPC, boardVirt},
	manifest.BusVirtioSCSI: {boardQ35, boardPC, boardVirt},
	manifest.BusNVMe:       {boardQ35, boardPC, boardVirt},
	manifest.BusSATA:       {boardQ35},
	manifest.BusUSB:        {boardQ35, boardPC, boardVirt},
}

// busCases are, for each bus and board, a machine that had three disks, lost the
// middle one and got another; with cdroms, full and empty, where the bus has them.
func busCases() []argvCase {
	var cases []argvCase
	for _, bus := range []manifest.Bus{
		manifest.BusVirtio, manifest.BusVirtioSCSI, manifest.BusNVMe, manifest.BusSATA, manifest.BusUSB,
	} {
		for _, board := range allBuses[bus] {
			cases = append(cases, busCase(bus, board))
		}
	}
	return cases
}

func busCase(bus manifest.Bus, board busBoard) argvCase {
	with := func(dir string, names ...string) manifest.VirtualMachineSpec {
		var disks []manifest.Disk
		for _, name := range names {
			disks = append(disks, onBus(name, bus))
		}
		if bus != manifest.BusVirtio && bus != manifest.BusNVMe {
			disks = append(disks,
				manifest.Disk{Name: "iso", File: dir + "/installer.iso", Media: manifest.MediaCDROM, Bus: bus},
				manifest.Disk{Name: "tray", Media: manifest.MediaCDROM, Bus: bus})
		}
		spec := board.spec(disks...)
		spec.Boot = &manifest.Boot{Order: []string{names[0]}}
		return spec
	}
	return argvCase{
		name: "bus-" + string(bus) + "-" + board.name, arm: board.arm,
		earlier: func(dir string) manifest.VirtualMachineSpec { return with(dir, "root", "swap", "data") },
		spec:    func(dir string) manifest.VirtualMachineSpec { return with(dir, "root", "data", "later") },
	}
}
