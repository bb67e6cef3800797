package manifest

// APIVersion is the only apiVersion accepted.
const APIVersion = "maqet.io/v1alpha1"

// Kind names a kind of object.
type Kind string

// The kinds of objects a manifest may hold.
const (
	KindVirtualMachine Kind = "VirtualMachine"
	KindSnapshot       Kind = "Snapshot"
	KindImage          Kind = "Image"
)

// Metadata names an object and says what people attach to it.
type Metadata struct {
	// Name is a DNS-1123 label of at most 63 characters, unique among the
	// objects of its kind.
	Name string `json:"name"`
	// Labels are for selecting and grouping; changing them never touches a guest.
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are free notes of people and tools; changing them never touches a guest.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// VirtualMachine is one QEMU guest as it should be.
type VirtualMachine struct {
	// APIVersion is maqet.io/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Kind is VirtualMachine.
	Kind Kind `json:"kind"`
	// Metadata names the machine.
	Metadata Metadata `json:"metadata"`
	// Spec says what the machine should be.
	Spec VirtualMachineSpec `json:"spec"`
}

// PowerState is what a machine should be doing.
type PowerState string

// The power states. Absent means Running.
const (
	PowerRunning PowerState = "Running"
	PowerPaused  PowerState = "Paused"
	PowerStopped PowerState = "Stopped"
)

// RestartPolicy says what a watch does about a machine whose process ended
// without maqet having asked for it.
type RestartPolicy string

// The restart policies. Absent means OnFailure.
const (
	// RestartAlways starts the machine again, whyever it ended.
	RestartAlways RestartPolicy = "Always"
	// RestartOnFailure starts it again unless the guest powered itself off.
	RestartOnFailure RestartPolicy = "OnFailure"
	// RestartNever leaves it as it ended.
	RestartNever RestartPolicy = "Never"
)

// VirtualMachineSpec says everything about the wanted machine. A key that is
// absent is not passed to QEMU, which then decides by itself.
type VirtualMachineSpec struct {
	// PowerState is Running, Paused or Stopped. Absent: Running.
	PowerState PowerState `json:"powerState,omitempty"`
	// RestartPolicy is Always, OnFailure or Never. Absent: OnFailure.
	RestartPolicy RestartPolicy `json:"restartPolicy,omitempty"`
	// Emulator chooses the QEMU binary and how it is run.
	Emulator *Emulator `json:"emulator,omitempty"`
	// Machine is the board. Absent: QEMU's default board for the binary.
	Machine *Machine `json:"machine,omitempty"`
	// Firmware is what the machine begins with. Absent: the board's own, a BIOS on PCs.
	Firmware *Firmware `json:"firmware,omitempty"`
	// CPU is the processor. Absent: QEMU's default model, one vCPU.
	CPU *CPU `json:"cpu,omitempty"`
	// Memory is the guest's RAM. Absent: QEMU's default (128 MiB on x86).
	Memory *Memory `json:"memory,omitempty"`
	// Boot is the order of boot devices and the directly loaded kernel.
	Boot *Boot `json:"boot,omitempty"`
	// Disks are the block devices, in the order the guest meets them.
	Disks []Disk `json:"disks,omitempty"`
	// NICs are the network cards.
	NICs []NIC `json:"nics,omitempty"`
	// Filesystems are folders of the host that the guest can mount.
	Filesystems []Filesystem `json:"filesystems,omitempty"`
	// CloudInit provisions the guest at its first start. Absent: not.
	CloudInit *CloudInit `json:"cloudInit,omitempty"`
	// Serial gives the machine a serial line. Absent: none.
	Serial *Serial `json:"serial,omitempty"`
	// GuestAgent gives the machine a port for qemu-guest-agent. Absent: none.
	GuestAgent *GuestAgent `json:"guestAgent,omitempty"`
	// TPM is a trusted platform module. Absent: none.
	TPM *TPM `json:"tpm,omitempty"`
	// Watchdog acts when the guest hangs. Absent: none.
	Watchdog *Watchdog `json:"watchdog,omitempty"`
	// Devices are further devices, passed to QEMU's -device.
	Devices []Device `json:"devices,omitempty"`
	// Shutdown says how the guest is asked to end. Absent: ACPI, 60s.
	Shutdown *Shutdown `json:"shutdown,omitempty"`
	// Readiness says when the guest counts as Ready. Absent: when QEMU says running.
	Readiness *Readiness `json:"readiness,omitempty"`
	// Snapshots are taken by a schedule. Absent: only by command or object.
	Snapshots *Snapshots `json:"snapshots,omitempty"`
	// Backup copies the disks to a folder. Absent: never.
	Backup *Backup `json:"backup,omitempty"`
	// OnDelete says what goes with the machine when it is deleted.
	OnDelete *OnDelete `json:"onDelete,omitempty"`
}

// Emulator chooses the QEMU binary and its accelerators.
type Emulator struct {
	// Binary is a name looked up in PATH or an absolute path. Absent: qemu-system
	// of the host's own architecture.
	Binary string `json:"binary,omitempty"`
	// Accelerators are tried in order by QEMU while it initialises. Absent: not passed.
	Accelerators []string `json:"accelerators,omitempty"`
	// ExtraArgs are appended to the command line as they are; those that maqet
	// itself owns are refused.
	ExtraArgs []string `json:"extraArgs,omitempty"`
	// DefaultDevices true leaves out -nodefaults, so QEMU adds its default devices.
	DefaultDevices bool `json:"defaultDevices,omitempty"`
	// RunAs is the user of this host that QEMU runs as; only root can use it.
	// Absent: maqet's own user.
	RunAs string `json:"runAs,omitempty"`
}

// Machine is the emulated board.
type Machine struct {
	// Type is a machine type of the binary, such as q35, pc or none.
	Type string `json:"type,omitempty"`
	// HotplugPorts are spare PCIe root ports beyond the used ones. Absent: 0.
	HotplugPorts int `json:"hotplugPorts,omitempty"`
	// Properties are machine properties: strings, numbers or booleans.
	Properties map[string]Scalar `json:"properties,omitempty"`
}

// CPU is the processor model and count.
type CPU struct {
	// Model is the name of a CPU model of the binary, without features.
	Model string `json:"model,omitempty"`
	// Count is the number of vCPUs. Absent: 1 or the product of the topology.
	Count int `json:"count,omitempty"`
	// MaxCount is how many vCPUs there can be without a restart; it needs Count. Absent:
	// as many as the machine starts with.
	MaxCount int `json:"maxCount,omitempty"`
	// Topology arranges the vCPUs; its product must equal MaxCount or, without it, Count.
	Topology *Topology `json:"topology,omitempty"`
}

// Topology is sockets x cores x threads; each absent factor is 1.
type Topology struct {
	// Sockets are the processors. Absent: 1.
	Sockets int `json:"sockets,omitempty"`
	// Cores are those of each socket. Absent: 1.
	Cores int `json:"cores,omitempty"`
	// Threads are those of each core. Absent: 1.
	Threads int `json:"threads,omitempty"`
}

// Memory is the guest's RAM.
type Memory struct {
	// Size is a multiple of 1 MiB.
	Size Quantity `json:"size"`
}

// Boot is what the guest starts from.
type Boot struct {
	// Order lists names of disks and nics; the first is tried first.
	Order []string `json:"order,omitempty"`
	// Kernel is loaded directly by QEMU instead of a boot loader.
	Kernel *Kernel `json:"kernel,omitempty"`
}

// Kernel is a kernel loaded directly by QEMU.
type Kernel struct {
	// Image is the path of the kernel.
	Image string `json:"image"`
	// Initrd is the path of the initial RAM disk.
	Initrd string `json:"initrd,omitempty"`
	// Cmdline is the kernel's command line.
	Cmdline string `json:"cmdline,omitempty"`
}

// NIC is one network card. Exactly one of User and Bridge is given.
type NIC struct {
	// Name is unique among the machine's disks, nics, filesystems and devices.
	Name string `json:"name"`
	// Model is the device driver. Absent: virtio-net-pci.
	Model string `json:"model,omitempty"`
	// MAC is the card's address. Absent: generated once and kept with the machine's identity.
	MAC string `json:"mac,omitempty"`
	// User is QEMU's own user-mode network.
	User *UserNet `json:"user,omitempty"`
	// Bridge connects the card to a bridge of the host.
	Bridge *BridgeNet `json:"bridge,omitempty"`
}

// UserNet is QEMU's user-mode network (slirp).
type UserNet struct {
	// Forward lists "tcp:HOSTADDR:HOSTPORT:GUESTPORT" or udp.
	Forward []string `json:"forward,omitempty"`
}

// BridgeNet is a bridge of the host, joined through qemu-bridge-helper.
type BridgeNet struct {
	// Name is the bridge's interface name.
	Name string `json:"name"`
}

// Serial is the machine's first serial line.
type Serial struct {
	// Log keeps everything the guest writes in the machine's serial log.
	Log bool `json:"log,omitempty"`
}

// GuestAgent is the port that qemu-guest-agent listens on in the guest. It has no
// settings: the agent inside says what it can do.
type GuestAgent struct{}

// Device is any further device.
type Device struct {
	// Name is unique among the machine's disks, nics, filesystems and devices, and is QEMU's id.
	Name string `json:"name"`
	// Driver is QEMU's device type.
	Driver string `json:"driver"`
	// Properties are the device's properties: strings, numbers or booleans.
	Properties map[string]Scalar `json:"properties,omitempty"`
}

// ShutdownMethod is one way to ask a guest to end.
type ShutdownMethod string

// The ways to ask. Absent means ACPI alone.
const (
	// ShutdownGuestAgent tells the guest's agent to power off; needs guestAgent.
	ShutdownGuestAgent ShutdownMethod = "GuestAgent"
	// ShutdownACPI presses the virtual power button (QMP system_powerdown).
	ShutdownACPI ShutdownMethod = "ACPI"
)

// Shutdown says how a guest is asked to end and how long it may take.
type Shutdown struct {
	// Methods are tried in order, each when the one before cannot reach the guest or
	// has not ended it within its share of Timeout. Absent: [ACPI].
	Methods []ShutdownMethod `json:"methods,omitempty"`
	// Timeout is how long the guest may take altogether before QEMU is told to quit.
	// Absent: 60s.
	Timeout Duration `json:"timeout,omitempty"`
}

// Readiness says when a started guest counts as Ready. Exactly one of Serial,
// TCP and GuestAgent is given.
type Readiness struct {
	// Serial waits for text on the serial line; needs serial.log.
	Serial *SerialReadiness `json:"serial,omitempty"`
	// TCP waits until a port of the guest accepts connections.
	TCP *TCPReadiness `json:"tcp,omitempty"`
	// GuestAgent waits until the guest's agent answers; needs guestAgent.
	GuestAgent *AgentReadiness `json:"guestAgent,omitempty"`
	// Timeout is how long the guest may take. Absent: 120s.
	Timeout Duration `json:"timeout,omitempty"`
}

// SerialReadiness waits for a line of the guest's serial output.
type SerialReadiness struct {
	// Match is a regular expression (RE2) looked for in what this start of the guest wrote.
	Match string `json:"match"`
}

// AgentReadiness waits for the guest's agent. It has no settings.
type AgentReadiness struct{}

// TCPReadiness waits for a port of the guest.
type TCPReadiness struct {
	// Port is the guest's port. Without Host it must be the target of one of the
	// machine's forwards, and is reached through it.
	Port int `json:"port"`
	// Host is the guest's own address, for guests on a bridge.
	Host string `json:"host,omitempty"`
}

// DiskPolicy says what happens to a machine's disks.
type DiskPolicy string

// The disk policies. Absent: Keep.
const (
	DisksKeep   DiskPolicy = "Keep"
	DisksDelete DiskPolicy = "Delete"
)

// OnDelete says what goes with a deleted machine.
type OnDelete struct {
	// Disks is Keep or Delete; Delete needs an asked-for delete too. Absent: Keep.
	Disks DiskPolicy `json:"disks,omitempty"`
}

// Snapshots has snapshots taken by a schedule, and old ones of these deleted.
type Snapshots struct {
	// Schedule is when, in cron's five fields or as @daily and the like (crontab(5)).
	Schedule string `json:"schedule"`
	// TimeZone is the IANA name of the zone that the schedule is read in. Absent: UTC.
	TimeZone string `json:"timeZone,omitempty"`
	// Method is Disk or Full. Absent: Disk. Of a machine that is stopped it is always
	// Disk, and only when the machine has run since the last one.
	Method SnapshotMethod `json:"method,omitempty"`
	// Quiesce is as in a Snapshot object. Absent: IfAvailable.
	Quiesce Quiesce `json:"quiesce,omitempty"`
	// Keep says which of them stay. Absent: all.
	Keep *Keep `json:"keep,omitempty"`
}

// Keep says which scheduled snapshots stay: those that any of the counts keeps. Each
// count is of the newest one per hour, day, week (ISO) and month that has one.
type Keep struct {
	// Last is how many of the newest stay. Absent: none for that reason.
	Last int `json:"last,omitempty"`
	// Hourly, Daily, Weekly and Monthly are how many hours, days, weeks and months
	// keep their newest one. Absent: none for that reason.
	Hourly  int `json:"hourly,omitempty"`
	Daily   int `json:"daily,omitempty"`
	Weekly  int `json:"weekly,omitempty"`
	Monthly int `json:"monthly,omitempty"`
}

// Snapshot is a point in time of one machine that should exist.
type Snapshot struct {
	// APIVersion is maqet.io/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Kind is Snapshot.
	Kind Kind `json:"kind"`
	// Metadata names the snapshot.
	Metadata Metadata `json:"metadata"`
	// Spec says what the snapshot should be.
	Spec SnapshotSpec `json:"spec"`
}

// SnapshotMethod says what a snapshot holds.
type SnapshotMethod string

// The snapshot methods. Absent: Disk.
const (
	SnapshotDisk SnapshotMethod = "Disk"
	SnapshotFull SnapshotMethod = "Full"
)

// Quiesce says whether a guest's file systems are frozen by its agent while a Disk
// snapshot of it is taken as it runs. A machine that is paused or stopped, and a Full
// snapshot, which has the guest's memory, need no freeze, whatever it says.
type Quiesce string

// The ways to quiesce. Absent: IfAvailable.
const (
	// QuiesceRequired takes no snapshot without a freeze.
	QuiesceRequired Quiesce = "Required"
	// QuiesceIfAvailable freezes where an agent can, and says why where not.
	QuiesceIfAvailable Quiesce = "IfAvailable"
	// QuiesceNever asks no agent.
	QuiesceNever Quiesce = "Never"
)

// SnapshotPolicy says what happens to the data when the object is removed.
type SnapshotPolicy string

// The snapshot policies. Absent: Keep.
const (
	SnapshotKeep   SnapshotPolicy = "Keep"
	SnapshotDelete SnapshotPolicy = "Delete"
)

// SnapshotSpec cannot be changed once the snapshot is taken.
type SnapshotSpec struct {
	// VirtualMachine is the machine's name.
	VirtualMachine string `json:"virtualMachine"`
	// Method is Disk or Full. Absent: Disk.
	Method SnapshotMethod `json:"method,omitempty"`
	// Quiesce is Required, IfAvailable or Never. Absent: IfAvailable.
	Quiesce Quiesce `json:"quiesce,omitempty"`
	// Deadline is how long taking it may last. Absent: 5m.
	Deadline Duration `json:"deadline,omitempty"`
	// OnDelete is Keep or Delete. Absent: Keep.
	OnDelete SnapshotPolicy `json:"onDelete,omitempty"`
}
