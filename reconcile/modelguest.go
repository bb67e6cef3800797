package reconcile

import (
	"cmp"
	"path/filepath"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// snapshotRecord keeps the model's lines short.
type snapshotRecord = state.Snapshot

// modelMemory is what QEMU gives a guest whose manifest names no memory.
const modelMemory = 128 << 20

// start starts the model's QEMU.
func (m *model) start(paused bool) {
	rec := m.want.Machine
	if m.obs.Identity == nil {
		m.identify()
	}
	id := *m.obs.Identity
	spec := rec.Object.DeepCopy().Spec
	argv := []string{"qemu"}
	runState := runRunning
	if paused {
		argv, runState = append(argv, "-S"), runPrelaunch
	}
	m.obs.Presence, m.obs.PID, m.obs.StartedAt = driver.Alive, 1, m.now
	m.obs.Launched = &driver.Launched{
		Version: driver.LaunchedVersion, UID: id.UID, Argv: argv, Spec: spec, Generation: rec.Generation,
		Machine: id.Machine.Type, Identity: id, BootID: m.bootID, At: m.now,
	}
	m.obs.Guest = m.guest(&spec, id)
	m.obs.Guest.RunState = runState
	m.obs.Ready = !paused && spec.Readiness == nil
}

// guest is what QMP would say of a guest of this spec.
func (m *model) guest(spec *manifest.VirtualMachineSpec, id driver.Identity) *driver.Guest {
	g := &driver.Guest{
		UID: id.UID, MachineType: id.Machine.Type, CPUs: spec.CPU.VCPUs(), Memory: modelMemory,
		Disks: []driver.GDisk{}, NICs: []driver.GNIC{}, Devices: []driver.GDevice{},
	}
	g.Topology = driver.Topology{Sockets: g.CPUs, Cores: 1, Threads: 1}
	if c := spec.CPU; c != nil {
		g.CPUModel = c.Model
		if t := c.Topology; t != nil {
			g.Topology = driver.Topology{Sockets: max(t.Sockets, 1), Cores: max(t.Cores, 1), Threads: max(t.Threads, 1)}
		}
	}
	if spec.Memory != nil {
		g.Memory = spec.Memory.Size.Bytes()
	}
	for _, d := range spec.Disks {
		g.Disks = append(g.Disks, driver.GDisk{
			Name: d.Name, File: d.File, Format: string(d.Format), ReadOnly: d.ReadOnly, Size: m.obs.Files[d.Name].Size,
		})
	}
	for _, n := range spec.NICs {
		g.NICs = append(g.NICs, driver.GNIC{Name: n.Name, Model: n.Model, MAC: cmp.Or(n.MAC, id.MACs[n.Name])})
	}
	for _, d := range spec.Devices {
		g.Devices = append(g.Devices, driver.GDevice{Name: d.Name, Driver: d.Driver})
	}
	if spec.GuestAgent != nil {
		g.Agent = &driver.GAgent{}
	}
	return g
}

// modelMachine stands for asking the binary what an alias means.
func modelMachine(wanted string) string {
	if prefix, ok := machineFamilies[cmp.Or(wanted, "pc")]; ok {
		return prefix + "7.2"
	}
	return wanted
}

// baseName is the name of a binary without its folder; empty stays empty.
func baseName(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Base(path)
}
