package driver

import (
	"time"

	"github.com/maqet/maqet/internal/ending"
	"github.com/maqet/maqet/manifest"
)

// Presence says whether a machine's QEMU process is there and answers.
type Presence string

// The presences.
const (
	// Absent is proved: no process has the machine's uuid.
	Absent Presence = "Absent"
	// Alive is a process that is ours and answered over QMP.
	Alive Presence = "Alive"
	// Unresponsive is a process that is ours but does not answer in time, or
	// whose sockets are lost.
	Unresponsive Presence = "Unresponsive"
	// Unknown means that looking itself failed.
	Unknown Presence = "Unknown"
)

// The reasons that go with Unresponsive and Unknown.
const (
	ReasonNoAnswer    = "NoAnswer"
	ReasonSocketsLost = "SocketsLost"
	ReasonSocketBusy  = "SocketBusy"
	ReasonStartFailed = "StartFailed"
	ReasonLookFailed  = "LookFailed"
	ReasonForeign     = "ForeignProcess"
)

// Observed is what is true of one machine now.
type Observed struct {
	Name     string
	At       time.Time
	Presence Presence
	// Reason, Message and Hint explain a presence that is not Alive or Absent.
	Reason, Message, Hint string
	// PID and StartedAt are of the process; zero when Absent.
	PID       int
	StartedAt time.Time
	// Cgroup is the control group of the process: its own scope, where systemd gave it
	// one, or that of whoever started it. It is looked at only in depth.
	Cgroup string
	// Guest is what QMP said; nil unless Alive.
	Guest *Guest
	// Launched is the launch record; nil when there is none.
	Launched *Launched
	// Intent is what was begun and is not over; nil when nothing was.
	Intent *Intent
	// Ended is how the last process ended, when it left its records behind.
	Ended *Ended
	// Identity is the recorded identity; nil for a machine that never had one.
	Identity *Identity
	// Files are the disk image files by disk name: those maqet creates and those
	// the manifest names.
	Files map[string]DiskFile
	// Images are those that the machine's disks should be made of, by the name of
	// the Image object.
	Images map[string]ImageState
	// TPMLost tells that the running guest has a TPM whose swtpm is gone.
	TPMLost bool
	// FilesystemsLost are the filesystems of the running guest whose virtiofsd is gone.
	FilesystemsLost []string
	// Seed is how the guest is provisioned; nil for a machine without cloudInit.
	Seed *Seed
	// Snapshots are the snapshots found, by tag.
	Snapshots map[string]SnapshotState
	// SnapshotsKnown is false when the disks could not be asked.
	SnapshotsKnown bool
	// Ready tells whether the readiness probe has succeeded in this run of the
	// guest. Without a probe it is whether QEMU says running.
	Ready bool
	// Freeze is a freeze of the guest's file systems that is not known to be over; nil
	// when there is none.
	Freeze *Freeze
}

// Freeze is the marker of a guest whose file systems were frozen. It is written before
// they are and removed once they are thawed, and dies with the process of QEMU.
type Freeze struct {
	// UID is the machine's uuid: a marker of another process is void.
	UID string `json:"uid"`
	// Since is when it began, Deadline when it is thawed in any case.
	Since    time.Time `json:"since"`
	Deadline time.Time `json:"deadline"`
	// Who began it.
	Who string `json:"who"`
	// Mountpoints are the file systems on disks that the agent knew of just before.
	Mountpoints []string `json:"mountpoints,omitempty"`
	// Failed is why thawing did not succeed the last time; empty when nobody tried.
	Failed string `json:"failed,omitempty"`
	// Held tells that somebody visits the agent now: whoever began it, most likely.
	// Otherwise it died before it could thaw.
	Held bool `json:"-"`
}

// Guest is what QEMU says of itself over QMP.
type Guest struct {
	// RunState is query-status' status, such as running, paused or io-error.
	RunState    string    `json:"runState"`
	UID         string    `json:"uid"`
	Version     Version   `json:"qemuVersion"`
	Accelerator string    `json:"accelerator"`
	MachineType string    `json:"machineType"`
	CPUs        int       `json:"cpus"`
	Topology    Topology  `json:"topology"`
	CPUModel    string    `json:"cpuModel,omitempty"`
	Memory      int64     `json:"memory"`
	Disks       []GDisk   `json:"disks"`
	NICs        []GNIC    `json:"nics"`
	Devices     []GDevice `json:"devices"`
	// Filesystems are the folders of the host that the guest can mount.
	Filesystems []GFilesystem `json:"filesystems,omitempty"`
	Jobs        []Job         `json:"jobs,omitempty"`
	// NVRAM is what UEFI firmware writes to, called like its block node; nil for a BIOS.
	NVRAM *GDisk `json:"nvram,omitempty"`
	// Watchdog is the model of the watchdog; empty when there is none.
	Watchdog string `json:"watchdog,omitempty"`
	// TPM is the driver of the trusted platform module; empty when there is none.
	TPM string `json:"tpm,omitempty"`
	// Agent is the port of the guest's agent; nil for a machine without one.
	Agent *GAgent `json:"agent,omitempty"`
	// AddedCPUs are those of the CPUs that were added while the guest ran. QEMU sizes some
	// devices by how many it was started with.
	AddedCPUs int `json:"addedCPUs,omitempty"`
	// Ports is how many root ports maqet has given the machine.
	Ports int `json:"ports,omitempty"`
	// Controllers are the drivers of the controllers that maqet has added for drives.
	Controllers []string `json:"controllers,omitempty"`
	// Brief is true when only the run state and the uuid were asked.
	Brief bool `json:"-"`
}

// Topology is sockets x cores x threads.
type Topology struct {
	Sockets int `json:"sockets"`
	Cores   int `json:"cores"`
	Threads int `json:"threads"`
}

// GDisk is a drive as QEMU has it.
type GDisk struct {
	Name     string `json:"name"`
	File     string `json:"file"`
	Format   string `json:"format"`
	Driver   string `json:"driver"`
	ReadOnly bool   `json:"readOnly"`
	Size     int64  `json:"size"`
	// Empty is a drive without a medium.
	Empty bool `json:"empty,omitempty"`
	// Serial is the serial number that the guest sees. It, a thread and whether each write
	// is flushed are asked of drives only of which a manifest says such a thing; they
	// cannot change while a drive is there.
	Serial string `json:"serial,omitempty"`
	// Cache and DetectZeroes are in the words of a manifest; empty without a medium.
	Cache        string `json:"cache,omitempty"`
	DetectZeroes string `json:"detectZeroes,omitempty"`
	// IOThread is the id of the thread that serves the drive; empty for QEMU's main one.
	IOThread string `json:"ioThread,omitempty"`
	// IOPS and BPS are the limits in operations and bytes a second; 0 is none.
	IOPS int64 `json:"iops,omitempty"`
	BPS  int64 `json:"bps,omitempty"`
	// IOStatus is ok, failed or nospace, as query-block says; empty for drives whose
	// errors QEMU passes on to the guest.
	IOStatus string `json:"ioStatus,omitempty"`
	// Snapshots are the tags of the image's internal snapshots.
	Snapshots []ImageSnapshot `json:"snapshots,omitempty"`
	// Bitmaps are the names of its dirty bitmaps.
	Bitmaps []string `json:"bitmaps,omitempty"`
}

// GNIC is a network card as QEMU has it.
type GNIC struct {
	Name  string `json:"name"`
	Model string `json:"model"`
	MAC   string `json:"mac"`
}

// GDevice is a further device as QEMU has it.
type GDevice struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
}

// GFilesystem is a folder of the host as the guest has it.
type GFilesystem struct {
	// Name is the tag that the guest mounts it by.
	Name string `json:"name"`
	// Driver is virtiofs or 9p, as in a manifest.
	Driver string `json:"driver"`
}

// GAgent is the port of the guest's agent as QEMU has it.
type GAgent struct {
	// Open tells that a program in the guest has the port open. Whether it answers is
	// another question.
	Open bool `json:"open"`
}

// GuestInfo is what a guest's agent says of its guest. Nobody but the guest vouches for
// it; its texts are bounded and hold no control characters.
type GuestInfo struct {
	AgentVersion string `json:"agentVersion,omitempty"`
	Hostname     string `json:"hostname,omitempty"`
	// OS is nil when the agent does not tell.
	OS *GuestOS `json:"os,omitempty"`
	// Addresses are those by which others may reach the guest: of all interfaces, without
	// loopback and link-local ones.
	Addresses  []string         `json:"addresses"`
	Interfaces []GuestInterface `json:"interfaces"`
}

// GuestOS is the operating system of a guest.
type GuestOS struct {
	// ID is a short name such as debian, Name one for people.
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	// Kernel is its kernel's release, Machine its architecture.
	Kernel  string `json:"kernel,omitempty"`
	Machine string `json:"machine,omitempty"`
}

// GuestInterface is a network interface of a guest.
type GuestInterface struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"`
	// Addresses are with their prefix, such as 10.0.2.15/24.
	Addresses []string `json:"addresses"`
}

// Job is a job of QEMU (query-jobs).
type Job struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	// Current and Total are how far it is, in units of its own; Total is 0 before it knows,
	// and for jobs that only know whether they are over it is 1.
	Current int64 `json:"current-progress,omitempty"`
	Total   int64 `json:"total-progress,omitempty"`
}

// DiskFile is where the data of a disk is: an image file, or what stands for one.
type DiskFile struct {
	// Path is a path, or a URI of what has none.
	Path   string
	Exists bool
	// Kind is the name of the kind of storage, such as "file".
	Kind string
	// Size is the virtual size, Format what the image says it is; both are known
	// only when qemu-img or QEMU was asked.
	Size   int64
	Format string
	// Image is the digest of the image that the disk was made of, such as
	// "sha256:HEX"; empty for a disk that was made of none.
	Image string
	// Backing is the file that the disk cannot be read without; Lost tells that it
	// is gone.
	Backing string
	Lost    bool
	// Allocated is what a file takes on its filesystem, Free and Total what that has
	// free and in all. They are zero where they are not known.
	Allocated, Free, Total int64
	// Filesystem tells filesystems apart.
	Filesystem uint64
	// Err is why the file could not be looked at.
	Err string
}

// EndCause is why a QEMU process ended.
type EndCause = ending.Cause

// The causes.
const (
	// EndStopped is an end that maqet asked for.
	EndStopped = ending.Stopped
	// EndGuest is a guest that powered itself off.
	EndGuest = ending.Guest
	// EndSignal is a QEMU that was asked politely to end by a signal.
	EndSignal = ending.Signal
	// EndCrash is a QEMU that left its pid file and sockets behind.
	EndCrash = ending.Crash
	// EndHostReboot is a host that was restarted under the guest.
	EndHostReboot = ending.HostReboot
	// EndStartFailed is a QEMU that never answered query-status.
	EndStartFailed = ending.StartFailed
	// EndPanic is a guest that panicked, upon which QEMU ended. It is told from
	// EndGuest only when somebody listened to QEMU.
	EndPanic = ending.Panic
	// EndWatchdog is a guest that its watchdog ended, told apart likewise.
	EndWatchdog = ending.Watchdog
	// EndQuit is a QEMU that somebody told to quit in a monitor, told apart likewise.
	EndQuit = ending.Quit
)

// ExitNotSeen is said of processes whose end nobody waited for.
const ExitNotSeen = "not seen"

// Ended is how a process ended, read from what it left.
type Ended struct {
	Cause EndCause
	// Reason is QEMU's own word for why it ended, such as guest-shutdown or
	// guest-reset; empty when nobody listened.
	Reason string
	At     time.Time
	// Boot is the boot id the process ran in.
	Boot string
	// Exit is the exit status in words, such as "exit status 1" or "signal SIGABRT",
	// or ExitNotSeen.
	Exit string
	// LastLine is the last line QEMU wrote on stderr.
	LastLine string
	UID      string
}

// SnapshotRecordVersion is the format of snapshot records that this maqet writes.
const SnapshotRecordVersion = 1

// SnapshotRecord is what must be known to restore a snapshot. It lives with
// the disks and is written before success is reported.
type SnapshotRecord struct {
	Version int                     `json:"version"`
	Tag     string                  `json:"tag"`
	UID     string                  `json:"uid"`
	Method  manifest.SnapshotMethod `json:"method"`
	Taken   time.Time               `json:"taken"`
	// Consistency is Stopped, Paused, Quiesced or CrashConsistent, or Memory for Full.
	Consistency string `json:"consistency"`
	// NotQuiesced is why a CrashConsistent one is not Quiesced.
	NotQuiesced string `json:"notQuiesced,omitempty"`
	// Frozen is how many file systems were frozen for a Quiesced one.
	Frozen int `json:"frozen,omitempty"`
	// Disks are those the snapshot is on; Without lists drives that are not in it.
	Disks   []string `json:"disks"`
	Without []string `json:"without,omitempty"`
	// Launched is the launch record of the running machine; nil for a stopped one.
	Launched *Launched `json:"launched,omitempty"`
	// Guest is the device set, vCPUs, memory and machine type at that time.
	Guest    *Guest        `json:"guest,omitempty"`
	QEMU     Version       `json:"qemu"`
	Duration time.Duration `json:"duration"`
	// Paused is from when to when the guest stood still for it, by QEMU's clock; nil
	// when it never did, as for a disk-only one.
	Paused *Paused `json:"paused,omitempty"`
	// Parent is the tag that the machine was at: the last one that was taken of it or
	// that it was set back to; empty for the first.
	Parent string `json:"parent,omitempty"`
}

// Paused is how long a guest stood still.
type Paused struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// AtMost tells that nobody heard when the guest went on: To is when it had.
	AtMost bool `json:"atMost,omitempty"`
}

// Lasted is how long the guest stood still, or at most did.
func (p Paused) Lasted() time.Duration { return p.To.Sub(p.From) }

// SnapshotState is one tag as the disks show it.
type SnapshotState struct {
	Tag string
	// Disks are the disks that carry the tag.
	Disks []string
	// Record is the snapshot record; nil for a tag that maqet did not take.
	Record *SnapshotRecord
	// VMStateSize is the size of the saved memory; 0 for a disk-only snapshot.
	VMStateSize int64
	// Date is when QEMU says it was taken.
	Date time.Time
}

// ImageSnapshot is an internal snapshot of one image.
type ImageSnapshot struct {
	Tag         string    `json:"tag"`
	VMStateSize int64     `json:"vmStateSize"`
	Date        time.Time `json:"date"`
}
