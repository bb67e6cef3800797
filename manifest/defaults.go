package manifest

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What an absent key means, where that is a fixed value.
const (
	// DefaultShutdownTimeout is how long a guest may take to end by itself.
	DefaultShutdownTimeout = Duration(60 * time.Second)
	// DefaultReadinessTimeout is how long a guest may take to become Ready.
	DefaultReadinessTimeout = Duration(120 * time.Second)
	// DefaultSnapshotDeadline is how long taking a snapshot may last.
	DefaultSnapshotDeadline = Duration(5 * time.Minute)
	// DefaultTimeZone is the zone of a schedule that names none.
	DefaultTimeZone = "UTC"
	// DefaultNICModel is the network card of a nic that names none.
	DefaultNICModel = "virtio-net-pci"
)

// Resolve is a deep copy of vm with every absent key that means a fixed value
// filled in, and with relative paths made absolute against dir, the folder of
// the manifest. Absent memory, cpu and machine.type stay absent: there QEMU
// decides. Resolving twice changes nothing more.
func Resolve(vm *VirtualMachine, dir string) *VirtualMachine {
	out := vm.DeepCopy()
	s := &out.Spec
	if s.PowerState == "" {
		s.PowerState = PowerRunning
	}
	setDefault(&s.RestartPolicy, RestartOnFailure)
	resolveCPU(s.CPU)
	resolveBoot(s.Boot, dir)
	for i := range s.Disks {
		resolveDisk(&s.Disks[i], s.Machine.IsQ35(), dir)
	}
	for i := range s.NICs {
		if s.NICs[i].Model == "" {
			s.NICs[i].Model = DefaultNICModel
		}
		s.NICs[i].MAC = strings.ToLower(s.NICs[i].MAC)
	}
	s.Watchdog.resolve()
	if s.CloudInit != nil {
		s.CloudInit.UserDataFile = absolute(s.CloudInit.UserDataFile, dir)
	}
	if s.Shutdown == nil {
		s.Shutdown = &Shutdown{}
	}
	if len(s.Shutdown.Methods) == 0 {
		s.Shutdown.Methods = []ShutdownMethod{ShutdownACPI}
	}
	setDefault(&s.Shutdown.Timeout, DefaultShutdownTimeout)
	if s.Readiness != nil {
		setDefault(&s.Readiness.Timeout, DefaultReadinessTimeout)
	}
	if s.Snapshots != nil {
		setDefault(&s.Snapshots.TimeZone, DefaultTimeZone)
		setDefault(&s.Snapshots.Method, SnapshotDisk)
	}
	s.Backup.resolve(dir)
	if s.OnDelete == nil {
		s.OnDelete = &OnDelete{}
	}
	setDefault(&s.OnDelete.Disks, DisksKeep)
	return out
}

// ResolveSnapshot is a copy of snap with its defaults filled in.
func ResolveSnapshot(snap *Snapshot) *Snapshot {
	out := snap.DeepCopy()
	setDefault(&out.Spec.Method, SnapshotDisk)
	setDefault(&out.Spec.Deadline, DefaultSnapshotDeadline)
	setDefault(&out.Spec.OnDelete, SnapshotKeep)
	return out
}

// ResolveImage is a copy of img with a relative path made absolute against dir,
// and digests in lower case.
func ResolveImage(img *Image, dir string) *Image {
	out := img.DeepCopy()
	if !out.Spec.IsURL() {
		out.Spec.Source = absolute(out.Spec.Source, dir)
	}
	out.Spec.SHA256, out.Spec.SHA512 = strings.ToLower(out.Spec.SHA256), strings.ToLower(out.Spec.SHA512)
	return out
}

// IsQ35 is true for the q35 board in any version. It is false for no board.
func (m *Machine) IsQ35() bool {
	return m != nil && (m.Type == "q35" || strings.HasPrefix(m.Type, "pc-q35-"))
}

// VCPUs is the number of vCPUs the machine starts with.
func (c *CPU) VCPUs() int {
	switch {
	case c == nil:
		return 1
	case c.Count != 0:
		return c.Count
	case c.Topology != nil:
		return c.Topology.Product()
	default:
		return 1
	}
}

// Product is the number of vCPUs the topology holds; an absent factor is 1.
func (t Topology) Product() int {
	return max(t.Sockets, 1) * max(t.Cores, 1) * max(t.Threads, 1)
}

func resolveCPU(c *CPU) {
	if c == nil || c.Topology == nil {
		return
	}
	setDefault(&c.Topology.Sockets, 1)
	setDefault(&c.Topology.Cores, 1)
	setDefault(&c.Topology.Threads, 1)
	setDefault(&c.Count, c.Topology.Product())
}

func resolveBoot(b *Boot, dir string) {
	if b == nil || b.Kernel == nil {
		return
	}
	b.Kernel.Image = absolute(b.Kernel.Image, dir)
	b.Kernel.Initrd = absolute(b.Kernel.Initrd, dir)
}

func resolveDisk(d *Disk, q35 bool, dir string) {
	setDefault(&d.Media, MediaDisk)
	cdrom := d.Media == MediaCDROM
	if d.Format == "" {
		switch {
		case cdrom && !d.IsEmpty():
			d.Format = FormatRaw
		case d.NBD != nil:
			d.Format = FormatRaw
		case d.IsMade():
			d.Format = FormatQcow2
		}
	}
	d.Bus = d.bus(q35)
	d.ReadOnly = d.ReadOnly || cdrom
	d.File = absolute(d.File, dir)
	if n := d.NBD; n != nil {
		n.Unix = absolute(n.Unix, dir)
		if n.Host != "" {
			setDefault(&n.Port, DefaultNBDPort)
		}
	}
}

// bus is what the drive is attached to, given or not.
func (d *Disk) bus(q35 bool) Bus {
	switch {
	case d.Bus != "":
		return d.Bus
	case d.Media != MediaCDROM:
		return BusVirtio
	case q35:
		return BusSATA
	default:
		return BusVirtioSCSI
	}
}

// IsEmpty is true for a cdrom drive without a medium.
func (d *Disk) IsEmpty() bool { return d.Media == MediaCDROM && d.File == "" && d.NBD == nil }

// IsMade tells whether maqet makes the disk's file, and may grow and delete it.
func (d *Disk) IsMade() bool { return d.Size != 0 || d.Image != "" }

// absolute is path against dir, cleaned; nothing stays nothing.
func absolute(path, dir string) string {
	switch {
	case path == "":
		return ""
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	default:
		return filepath.Join(dir, path)
	}
}

// setDefault fills v where it is absent.
func setDefault[T comparable](v *T, def T) {
	var absent T
	if *v == absent {
		*v = def
	}
}

// DeepCopy is a copy that shares nothing with vm.
func (vm *VirtualMachine) DeepCopy() *VirtualMachine {
	out := *vm
	out.Metadata = vm.Metadata.deepCopy()
	s := &out.Spec
	if s.Emulator = clone(s.Emulator); s.Emulator != nil {
		s.Emulator.Accelerators = slices.Clone(s.Emulator.Accelerators)
		s.Emulator.ExtraArgs = slices.Clone(s.Emulator.ExtraArgs)
	}
	if s.Machine = clone(s.Machine); s.Machine != nil {
		s.Machine.Properties = maps.Clone(s.Machine.Properties)
	}
	if s.CPU = clone(s.CPU); s.CPU != nil {
		s.CPU.Topology = clone(s.CPU.Topology)
	}
	s.Firmware = clone(s.Firmware)
	s.Memory = clone(s.Memory)
	if s.Boot = clone(s.Boot); s.Boot != nil {
		s.Boot.Order = slices.Clone(s.Boot.Order)
		s.Boot.Kernel = clone(s.Boot.Kernel)
	}
	s.Disks = slices.Clone(s.Disks)
	for i := range s.Disks {
		s.Disks[i].NBD = clone(s.Disks[i].NBD)
		s.Disks[i].Throttle = clone(s.Disks[i].Throttle)
	}
	s.NICs = slices.Clone(s.NICs)
	for i := range s.NICs {
		if s.NICs[i].User = clone(s.NICs[i].User); s.NICs[i].User != nil {
			s.NICs[i].User.Forward = slices.Clone(s.NICs[i].User.Forward)
		}
		s.NICs[i].Bridge = clone(s.NICs[i].Bridge)
	}
	if s.CloudInit = clone(s.CloudInit); s.CloudInit != nil {
		s.CloudInit.SSHAuthorizedKeys = slices.Clone(s.CloudInit.SSHAuthorizedKeys)
	}
	s.Serial = clone(s.Serial)
	s.Watchdog, s.TPM = clone(s.Watchdog), clone(s.TPM)
	s.Devices = slices.Clone(s.Devices)
	for i := range s.Devices {
		s.Devices[i].Properties = maps.Clone(s.Devices[i].Properties)
	}
	if s.Shutdown = clone(s.Shutdown); s.Shutdown != nil {
		s.Shutdown.Methods = slices.Clone(s.Shutdown.Methods)
	}
	if s.Readiness = clone(s.Readiness); s.Readiness != nil {
		s.Readiness.Serial = clone(s.Readiness.Serial)
		s.Readiness.TCP = clone(s.Readiness.TCP)
	}
	if s.Snapshots = clone(s.Snapshots); s.Snapshots != nil {
		s.Snapshots.Keep = clone(s.Snapshots.Keep)
	}
	if s.Backup = clone(s.Backup); s.Backup != nil {
		s.Backup.Keep = clone(s.Backup.Keep)
	}
	s.OnDelete = clone(s.OnDelete)
	return &out
}

// DeepCopy is a copy that shares nothing with snap.
func (snap *Snapshot) DeepCopy() *Snapshot {
	out := *snap
	out.Metadata = snap.Metadata.deepCopy()
	return &out
}

// DeepCopy is a copy that shares nothing with img.
func (img *Image) DeepCopy() *Image {
	out := *img
	out.Metadata = img.Metadata.deepCopy()
	return &out
}

func (m Metadata) deepCopy() Metadata {
	m.Labels = maps.Clone(m.Labels)
	m.Annotations = maps.Clone(m.Annotations)
	return m
}

// clone copies what p points at; nil stays nil.
func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	out := *p
	return &out
}
