package reconcile

import (
	"cmp"
	"path/filepath"
	"slices"

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
	m.provision(id.UID)
	m.obs.Ready = !paused && spec.Readiness == nil
}

// guest is what QMP would say of a guest of this spec.
func (m *model) guest(spec *manifest.VirtualMachineSpec, id driver.Identity) *driver.Guest {
	g := &driver.Guest{
		UID: id.UID, MachineType: id.Machine.Type, CPUs: spec.CPU.VCPUs(), Memory: modelMemory,
		Disks: []driver.GDisk{}, NICs: []driver.GNIC{}, Devices: []driver.GDevice{},
	}
	g.Topology = driver.Topology{Sockets: maxCPUs(spec.CPU), Cores: 1, Threads: 1}
	if c := spec.CPU; c != nil {
		g.CPUModel = c.Model
		if t := c.Topology; t != nil {
			g.Topology = driver.Topology{Sockets: max(t.Sockets, 1), Cores: max(t.Cores, 1), Threads: max(t.Threads, 1)}
		}
	}
	if kind := driver.FirmwareKindOf(spec); kind != "" {
		g.NVRAM = &driver.GDisk{Name: kind.NVRAMNode(), Format: string(manifest.FormatQcow2)}
		if f, looked := m.obs.Files[kind.NVRAMNode()]; looked {
			f.Exists, f.Format = true, string(manifest.FormatQcow2)
			m.obs.Files[kind.NVRAMNode()] = f
		}
	}
	if spec.TPM != nil {
		g.TPM = "tpm-tis"
	}
	if spec.Watchdog != nil {
		g.Watchdog = string(spec.Watchdog.Model)
	}
	if spec.Memory != nil {
		g.Memory = spec.Memory.Size.Bytes()
	}
	for i := range spec.Disks {
		g.Disks = append(g.Disks, m.drive(&spec.Disks[i]))
	}
	if slices.ContainsFunc(spec.Disks, func(d manifest.Disk) bool { return d.Bus == manifest.BusVirtioSCSI }) {
		g.Controllers = []string{"virtio-scsi-pci"}
	}
	for _, n := range spec.NICs {
		g.NICs = append(g.NICs, driver.GNIC{Name: n.Name, Model: n.Model, MAC: cmp.Or(n.MAC, id.MACs[n.Name])})
	}
	for _, f := range spec.Filesystems {
		g.Filesystems = append(g.Filesystems, driver.GFilesystem{Name: f.Name, Driver: string(f.Driver)})
	}
	for _, d := range spec.Devices {
		g.Devices = append(g.Devices, driver.GDevice{Name: d.Name, Driver: d.Driver})
	}
	if spec.GuestAgent != nil {
		g.Agent = &driver.GAgent{}
	}
	return g
}

// drive is what QMP would say of a drive.
func (m *model) drive(d *manifest.Disk) driver.GDisk {
	g := driver.GDisk{
		Name: d.Name, File: d.File, Format: string(d.Format), ReadOnly: d.ReadOnly, Size: m.obs.Files[d.Name].Size,
		Serial: d.Serial, Empty: d.IsEmpty(),
	}
	if d.Bus == manifest.BusNVMe {
		g.Driver = string(d.Bus)
	}
	if d.NBD != nil {
		g.File = d.NBD.URI()
	}
	if d.IOThread {
		g.IOThread = d.Name + ".iothread"
	}
	if !g.Empty {
		g.IOPS, g.BPS = d.Throttle.Limits()
		g.Cache = string(cmp.Or(d.Cache, manifest.CacheWriteback))
		g.DetectZeroes = string(cmp.Or(d.DetectZeroes, manifest.DetectZeroesOff))
	}
	return g
}

// growDisk makes a disk larger, in QEMU's eyes too.
func (m *model) growDisk(name string, size manifest.Quantity) {
	f := m.obs.Files[name]
	f.Size = size.Bytes()
	m.obs.Files[name] = f
	if d := m.driveOf(name); d != nil {
		d.Size = size.Bytes()
	}
}

// throttleDisk sets the limits of a drive.
func (m *model) throttleDisk(name string, t *manifest.Throttle) {
	if d := m.driveOf(name); d != nil {
		d.IOPS, d.BPS = t.Limits()
	}
	if m.obs.Launched == nil {
		return
	}
	l := *m.obs.Launched
	l.Spec.Disks = slices.Clone(l.Spec.Disks)
	for i := range l.Spec.Disks {
		if d := &l.Spec.Disks[i]; d.Name == name {
			d.Throttle = t
		}
	}
	m.obs.Launched = &l
}

// driveOf is a drive that the model's QEMU has; nil when there is none.
func (m *model) driveOf(name string) *driver.GDisk {
	if m.obs.Guest == nil {
		return nil
	}
	for i := range m.obs.Guest.Disks {
		if d := &m.obs.Guest.Disks[i]; d.Name == name {
			return d
		}
	}
	return nil
}

// provision gives the guest its seed, where it has none of this instance yet.
func (m *model) provision(uid string) {
	if m.want.Machine.Object.Spec.CloudInit == nil {
		return
	}
	s := driver.Seed{Next: uid}
	if m.obs.Seed != nil {
		s = *m.obs.Seed
	}
	if s.Next = cmp.Or(s.Next, uid); s.Instance != s.Next {
		s.Instance, s.Applied, s.At = s.Next, s.Wanted, m.now
	}
	m.obs.Seed = &s
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

// startFrom makes a guest that was just started what a snapshot's record says.
func (m *model) startFrom(s Step) {
	from := s.from(&m.obs)
	if from == nil || from.Launched == nil {
		return
	}
	m.obs.Launched.Spec, m.obs.Launched.Identity, m.obs.Launched.Machine = from.Launched.Spec, from.Launched.Identity, from.Launched.Machine
	if !asThen(m.want.Machine, from) {
		m.obs.Launched.Generation = 0
	}
	if from.Guest != nil {
		g := *from.Guest
		g.RunState, g.Jobs = m.obs.Guest.RunState, nil
		m.obs.Guest = &g
	}
}

// restoreLaunched is what a start from a snapshot's record does to the restore.
func (m *model) restoreLaunched() {
	rec := m.want.Machine
	if rec.Restore.Failed != "" {
		rec.Restore = nil
	} else {
		next := *rec.Restore
		next.Launched = true
		rec.Restore = &next
	}
	if rec.Generation != m.obs.Launched.Generation {
		rec.StartedGeneration, rec.StartedDisks = 0, nil
	}
}

// schedule is what a schedule does to the objects.
func (m *model) schedule(s Step) {
	if s.Kind == StepExpireSnapshot {
		if snap := m.want.snapshot(s.Snapshot); snap != nil {
			snap.Deleting = &state.Deletion{Since: m.now, Who: OwnerSchedule, DeleteDisks: snap.TakenUID != ""}
		}
		return
	}
	m.want.Machine.Scheduled = s.Slot
	if snap, err := newScheduled(m.want.Machine.Object.Metadata.Name, OwnerSchedule, s); err == nil {
		m.want.Snapshots = append(slices.Clone(m.want.Snapshots), snap)
	}
}

// load begins the job of a load, which stops the guest.
func (m *model) load(s Step) {
	m.obs.Guest.RunState = pausedState(&m.obs)
	m.obs.Guest.Jobs = append(m.obs.Guest.Jobs, driver.Job{ID: s.Intent.Snapshot.Job, Type: "snapshot-load", Status: "running"})
}

// loaded ends the intent, and takes a job that has succeeded off QEMU's list.
func (m *model) loaded(s Step) {
	m.obs.Intent = nil
	if s.Kind == StepFinishLoad {
		m.obs.Guest.Jobs = slices.DeleteFunc(m.obs.Guest.Jobs, func(j driver.Job) bool { return j.ID == s.Intent.Snapshot.Job })
	}
}

// pausedState is the run state of a guest that is stopped where it is.
func pausedState(obs *driver.Observed) string {
	if startedPaused(obs) {
		return runPrelaunch
	}
	return runPaused
}
