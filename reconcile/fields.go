package reconcile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Seen says how a field's present value is found out.
type Seen string

// The ways.
const (
	// SeenQMP is asked of QEMU itself.
	SeenQMP Seen = "qmp"
	// SeenLaunch is what QMP cannot show: the launch record stands for it.
	SeenLaunch Seen = "launch-record"
	// SeenController concerns no process: it holds as soon as it is applied.
	SeenController Seen = "controller"
	// SeenImage is asked of the image file.
	SeenImage Seen = "image"
	// SeenSeed is told by the record of the seed that the guest was provisioned with.
	SeenSeed Seen = "seed"
)

// Field is one field of a manifest: what changing it costs and how it is compared.
type Field struct {
	// Path is the pattern of the field; [] stands for a name or key.
	Path string
	// Class is the price of changing it on a running machine.
	Class Class
	// Seen is how the present value is found out.
	Seen Seen
	// Absent is the value that absence means, where that is fixed.
	Absent string
	// live reads the value from the running guest as a manifest would write it.
	live func(o *driver.Observed, item string) (value string, known bool)
	// same tells whether two texts mean the same; nil is equality.
	same func(o *driver.Observed, want, have string) bool
	// confirms is true where a live value can only confirm what is wanted: one
	// that differs is told in other words than the manifest's, and no drift.
	confirms bool
	// hot is true where the change is made while the guest runs, unless something about
	// the machine forbids it: then it needs a restart, as the plan says.
	hot bool
	// private is true where the value may hold secrets: how much there is of it is
	// shown, and not what.
	private bool
}

// Fields is the table of all fields, in the order in which changes are shown.
// A field that is not in it cannot be compared, so a test holds it together
// with the manifest's types.
func Fields() []Field { return fieldTable }

// fieldTable is read only.
var fieldTable = []Field{
	{Path: "metadata.name", Class: ClassRecreate, Seen: SeenController},
	{Path: "metadata.labels[]", Class: ClassMetadata, Seen: SeenController},
	{Path: "metadata.annotations[]", Class: ClassMetadata, Seen: SeenController},
	{Path: "spec.powerState", Class: ClassLive, Seen: SeenQMP},
	{Path: "spec.restartPolicy", Class: ClassNone, Seen: SeenController, Absent: "OnFailure"},
	{Path: "spec.emulator.binary", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.emulator.accelerators", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.emulator.extraArgs", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.emulator.defaultDevices", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.emulator.runAs", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.machine.type", Class: ClassRestart, Seen: SeenQMP, live: liveMachine, same: sameMachine, confirms: true},
	{Path: "spec.machine.hotplugPorts", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.machine.properties[]", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.firmware.uefi", Class: ClassRestart, Seen: SeenQMP, live: liveUEFI},
	{Path: "spec.firmware.secureBoot", Class: ClassRestart, Seen: SeenQMP, live: liveSecureBoot},
	{Path: "spec.cpu.model", Class: ClassRestart, Seen: SeenQMP, live: liveCPUModel, confirms: true},
	{Path: "spec.cpu.count", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveCPUs, Absent: "1"},
	{Path: "spec.cpu.maxCount", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.cpu.topology.sockets", Class: ClassRestart, Seen: SeenQMP, live: liveTopology(func(t driver.Topology) int { return t.Sockets }), confirms: true},
	{Path: "spec.cpu.topology.cores", Class: ClassRestart, Seen: SeenQMP, live: liveTopology(func(t driver.Topology) int { return t.Cores }), confirms: true},
	{Path: "spec.cpu.topology.threads", Class: ClassRestart, Seen: SeenQMP, live: liveTopology(func(t driver.Topology) int { return t.Threads }), confirms: true},
	{Path: "spec.memory.size", Class: ClassRestart, Seen: SeenQMP, live: liveMemory},
	{Path: "spec.boot.order", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.boot.kernel.image", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.boot.kernel.initrd", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.boot.kernel.cmdline", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.disks[].name", Class: ClassLive, hot: true, Seen: SeenQMP},
	{Path: "spec.disks[].size", Class: ClassLive, Seen: SeenImage},
	{Path: "spec.disks[].image", Class: ClassDataLoss, Seen: SeenImage},
	{Path: "spec.disks[].file", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveDisk(liveFile)},
	{Path: "spec.disks[].nbd.unix", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveDisk(liveNBD(func(n *manifest.NBD) string { return n.Unix }))},
	{Path: "spec.disks[].nbd.host", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveDisk(liveNBD(func(n *manifest.NBD) string { return n.Host }))},
	{Path: "spec.disks[].nbd.port", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveDisk(liveNBD(func(n *manifest.NBD) string { return strconv.Itoa(n.Port) }))},
	{Path: "spec.disks[].nbd.export", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveDisk(liveNBD(func(n *manifest.NBD) string { return n.Export }))},
	{Path: "spec.disks[].format", Class: ClassLive, hot: true, Seen: SeenLaunch},
	{Path: "spec.disks[].bus", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.disks[].media", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.disks[].readOnly", Class: ClassRestart, Seen: SeenQMP, live: liveDisk(liveReadOnly), Absent: "false"},
	{Path: "spec.disks[].serial", Class: ClassRestart, Seen: SeenQMP, live: liveDisk(func(d *driver.GDisk) (string, bool) { return d.Serial, true })},
	{Path: "spec.disks[].cache", Class: ClassRestart, Seen: SeenQMP, live: liveDisk(liveCache), Absent: string(manifest.CacheWriteback)},
	{Path: "spec.disks[].aio", Class: ClassRestart, Seen: SeenLaunch, Absent: string(manifest.AIOThreads)},
	{Path: "spec.disks[].discard", Class: ClassRestart, Seen: SeenLaunch, Absent: string(manifest.DiscardIgnore)},
	{Path: "spec.disks[].detectZeroes", Class: ClassRestart, Seen: SeenQMP, live: liveDisk(liveDetectZeroes), Absent: string(manifest.DetectZeroesOff)},
	{Path: "spec.disks[].ioThread", Class: ClassRestart, Seen: SeenQMP, live: liveDisk(liveIOThread), Absent: "false"},
	{Path: "spec.disks[].throttle.iops", Class: ClassLive, Seen: SeenQMP, live: liveDisk(liveIOPS), Absent: noLimit},
	{Path: "spec.disks[].throttle.bps", Class: ClassLive, Seen: SeenQMP, live: liveDisk(liveBPS), Absent: noLimit},
	{Path: "spec.nics[].name", Class: ClassLive, hot: true, Seen: SeenQMP},
	{Path: "spec.nics[].model", Class: ClassLive, hot: true, Seen: SeenLaunch},
	{Path: "spec.nics[].mac", Class: ClassLive, hot: true, Seen: SeenQMP, live: liveMAC},
	{Path: "spec.nics[].user", Class: ClassLive, hot: true, Seen: SeenLaunch},
	{Path: "spec.nics[].user.forward", Class: ClassLive, hot: true, Seen: SeenLaunch, same: sameSet},
	{Path: "spec.nics[].bridge.name", Class: ClassLive, hot: true, Seen: SeenLaunch},
	{Path: "spec.filesystems[].name", Class: ClassRestart, Seen: SeenQMP},
	{Path: "spec.filesystems[].path", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.filesystems[].driver", Class: ClassRestart, Seen: SeenQMP, live: liveFilesystem},
	{Path: "spec.filesystems[].readOnly", Class: ClassRestart, Seen: SeenLaunch, Absent: "false"},
	{Path: "spec.cloudInit", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.cloudInit.userData", Class: ClassMetadata, Seen: SeenSeed, private: true},
	{Path: "spec.cloudInit.userDataFile", Class: ClassMetadata, Seen: SeenSeed},
	{Path: "spec.cloudInit.metaData", Class: ClassMetadata, Seen: SeenSeed, private: true},
	{Path: "spec.cloudInit.networkConfig", Class: ClassMetadata, Seen: SeenSeed, private: true},
	{Path: "spec.cloudInit.sshAuthorizedKeys", Class: ClassMetadata, Seen: SeenSeed},
	{Path: "spec.serial", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.serial.log", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.guestAgent", Class: ClassRestart, Seen: SeenQMP, live: liveAgent},
	{Path: "spec.tpm", Class: ClassRestart, Seen: SeenQMP, live: liveTPM},
	{Path: "spec.watchdog.model", Class: ClassRestart, Seen: SeenQMP, live: liveWatchdog},
	{Path: "spec.watchdog.action", Class: ClassRestart, Seen: SeenLaunch},
	{Path: "spec.devices[].name", Class: ClassLive, hot: true, Seen: SeenQMP},
	{Path: "spec.devices[].driver", Class: ClassLive, hot: true, Seen: SeenLaunch},
	{Path: "spec.devices[].properties[]", Class: ClassLive, hot: true, Seen: SeenLaunch},
	{Path: "spec.shutdown.methods", Class: ClassNone, Seen: SeenController},
	{Path: "spec.shutdown.timeout", Class: ClassNone, Seen: SeenController},
	{Path: "spec.readiness.serial.match", Class: ClassNone, Seen: SeenController},
	{Path: "spec.readiness.tcp.port", Class: ClassNone, Seen: SeenController},
	{Path: "spec.readiness.tcp.host", Class: ClassNone, Seen: SeenController},
	{Path: "spec.readiness.guestAgent", Class: ClassNone, Seen: SeenController},
	{Path: "spec.readiness.timeout", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.schedule", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.timeZone", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.method", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.quiesce", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.keep.last", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.keep.hourly", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.keep.daily", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.keep.weekly", Class: ClassNone, Seen: SeenController},
	{Path: "spec.snapshots.keep.monthly", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.schedule", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.timeZone", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.target", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.mode", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.quiesce", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.rateLimit", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.keep.last", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.keep.hourly", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.keep.daily", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.keep.weekly", Class: ClassNone, Seen: SeenController},
	{Path: "spec.backup.keep.monthly", Class: ClassNone, Seen: SeenController},
	{Path: "spec.onDelete.disks", Class: ClassNone, Seen: SeenController},
}

// fieldOrder is the place of each pattern in the table.
var fieldOrder = func() map[string]int {
	order := make(map[string]int, len(fieldTable))
	for i, f := range fieldTable {
		order[f.Path] = i
	}
	return order
}()

// equal tells whether two values of the field mean the same.
func (f *Field) equal(o *driver.Observed, want, have string) bool {
	return want == have || f.same != nil && f.same(o, want, have)
}

// show is a value as people see it.
func (f *Field) show(value string) string {
	if !f.private || value == "" {
		return value
	}
	return fmt.Sprintf("%d bytes", len(value))
}

// ofGuest tells whether the field is compared with the running guest.
func (f *Field) ofGuest() bool {
	return (f.Class == ClassRestart || f.hot) && (f.Seen == SeenQMP || f.Seen == SeenLaunch)
}

func liveMachine(o *driver.Observed, _ string) (string, bool) {
	name := strings.TrimSuffix(o.Guest.MachineType, "-machine")
	return name, name != ""
}

// machineFamilies are the aliases that stand for a versioned board.
var machineFamilies = map[string]string{"q35": "pc-q35-", "pc": "pc-i440fx-", "virt": "virt-"}

// sameMachine takes an alias and the versioned type that it stood for as one: a
// guest on pc-q35-7.2 is what "q35" asks for, however new QEMU has become.
func sameMachine(o *driver.Observed, want, have string) bool {
	if prefix, ok := machineFamilies[want]; ok && strings.HasPrefix(have, prefix) {
		return true
	}
	if prefix, ok := machineFamilies[have]; ok && strings.HasPrefix(want, prefix) {
		// The record says which version the alias stood for at launch.
		return o.Launched != nil && o.Launched.Machine == want
	}
	return o.Launched != nil && machineType(o.Launched.Spec.Machine) == want && have == o.Launched.Machine
}

func liveCPUs(o *driver.Observed, _ string) (string, bool) {
	return strconv.Itoa(o.Guest.CPUs), o.Guest.CPUs > 0
}

func liveTopology(factor func(driver.Topology) int) func(*driver.Observed, string) (string, bool) {
	return func(o *driver.Observed, _ string) (string, bool) {
		n := factor(o.Guest.Topology)
		return strconv.Itoa(n), n > 0
	}
}

// liveCPUModel cuts QOM's ending off: max-x86_64-cpu is the model max.
func liveCPUModel(o *driver.Observed, _ string) (string, bool) {
	model := o.Guest.CPUModel
	if rest, ok := strings.CutSuffix(model, "-cpu"); ok {
		if i := strings.LastIndex(rest, "-"); i > 0 {
			model = rest[:i]
		}
	}
	return model, model != ""
}

func liveMemory(o *driver.Observed, _ string) (string, bool) {
	return manifest.Quantity(o.Guest.Memory).String(), o.Guest.Memory > 0
}

func liveUEFI(o *driver.Observed, _ string) (string, bool) {
	return strconv.FormatBool(o.Guest.NVRAM != nil), true
}

func liveSecureBoot(o *driver.Observed, _ string) (string, bool) {
	return strconv.FormatBool(o.Guest.NVRAM != nil && o.Guest.NVRAM.Name == driver.FirmwareSecureBoot.NVRAMNode()), true
}

// liveTPM tells only whether there is one: the board says which device it is.
func liveTPM(o *driver.Observed, _ string) (string, bool) {
	if o.Guest.TPM == "" {
		return "", true
	}
	return present, true
}

func liveWatchdog(o *driver.Observed, _ string) (string, bool) { return o.Guest.Watchdog, true }

func liveMAC(o *driver.Observed, item string) (string, bool) {
	for _, n := range o.Guest.NICs {
		if n.Name == item {
			return strings.ToLower(n.MAC), n.MAC != ""
		}
	}
	return "", false
}

// liveAgent tells whether the port of the guest's agent is there.
func liveAgent(o *driver.Observed, _ string) (string, bool) {
	if o.Guest.Agent == nil {
		return "", true
	}
	return present, true
}

// machineType is the wanted type; empty stands for QEMU's default.
func machineType(m *manifest.Machine) string {
	if m == nil {
		return ""
	}
	return m.Type
}
