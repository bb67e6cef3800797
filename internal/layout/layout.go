package layout

import (
	"path/filepath"
)

// Layout is the pair of folders everything of one maqet lies in.
type Layout struct {
	// State survives the boot: database, disks, identities, logs.
	State string
	// Run dies with the boot: sockets, locks, launch records.
	Run string
}

// Default is the layout of a user: root has /var/lib/maqet and /run/maqet,
// others the XDG base directories (XDG Base Directory Specification 0.8).
// The flags or MAQET_STATE_DIR and MAQET_RUN_DIR override either.
func Default(getenv func(string) string, home string, root bool) Layout {
	var l Layout
	switch {
	case root:
		l = Layout{State: "/var/lib/maqet", Run: "/run/maqet"}
	default:
		state := getenv("XDG_STATE_HOME")
		if state == "" {
			state = filepath.Join(home, ".local", "state")
		}
		l.State = filepath.Join(state, "maqet")
		if run := getenv("XDG_RUNTIME_DIR"); run != "" {
			l.Run = filepath.Join(run, "maqet")
		}
	}
	if s := getenv("MAQET_STATE_DIR"); s != "" {
		l.State = s
		if root {
			// A private state dir never shares the system's run dir.
			l.Run = ""
		}
	}
	if r := getenv("MAQET_RUN_DIR"); r != "" {
		l.Run = r
	}
	return l.complete()
}

// With replaces the folders that are not empty.
func (l Layout) With(state, run string) Layout {
	if state != "" && state != l.State {
		l = Layout{State: state}
	}
	if run != "" {
		l.Run = run
	}
	return l.complete()
}

func (l Layout) complete() Layout {
	if l.Run == "" {
		l.Run = filepath.Join(l.State, "run")
	}
	return l
}

// Database is the bbolt file.
func (l Layout) Database() string { return filepath.Join(l.State, "state.db") }

// Events is the journal of what happened.
func (l Layout) Events() string { return filepath.Join(l.State, "events.jsonl") }

// EventsBefore is the journal's older part, which the next rotation drops.
func (l Layout) EventsBefore() string { return filepath.Join(l.State, "events.1.jsonl") }

// StateID is the file that gives the state dir its id.
func (l Layout) StateID() string { return filepath.Join(l.State, "id") }

// RunOwner is the file in the run dir that names the state dir it belongs to,
// by id. Its name begins with a dot, so it is in no machine's way.
func (l Layout) RunOwner() string { return filepath.Join(l.Run, ".state-id") }

// DiskDir holds a machine's disks, identity and snapshot records.
func (l Layout) DiskDir(vm string) string { return filepath.Join(l.State, "disks", vm) }

// Disk is a disk that maqet created.
func (l Layout) Disk(vm, disk string) string { return filepath.Join(l.DiskDir(vm), disk+".qcow2") }

// Identity is what a guest recognises itself by.
func (l Layout) Identity(vm string) string { return filepath.Join(l.DiskDir(vm), "identity.json") }

// Seed is the image from which the guest is provisioned.
func (l Layout) Seed(vm string) string { return filepath.Join(l.DiskDir(vm), "seed.iso") }

// SeedRecord is what is remembered of the seed.
func (l Layout) SeedRecord(vm string) string { return filepath.Join(l.DiskDir(vm), "seed.json") }

// SeedScratch is where a machine's seed is laid out before it is written.
func (l Layout) SeedScratch(vm string) string { return filepath.Join(l.Cache(), "seed-"+vm) }

// NVRAM is what firmware of a kind remembers, a qcow2. It is called so that no disk's
// image has its name.
func (l Layout) NVRAM(vm, kind string) string { return filepath.Join(l.DiskDir(vm), kind+".nvram") }

// TPM is the folder in which swtpm keeps a machine's TPM.
func (l Layout) TPM(vm string) string { return filepath.Join(l.DiskDir(vm), "tpm") }

// SnapshotDir holds the snapshot records of a machine.
func (l Layout) SnapshotDir(vm string) string { return filepath.Join(l.DiskDir(vm), "snapshots") }

// Snapshot is the record of one snapshot.
func (l Layout) Snapshot(vm, tag string) string {
	return filepath.Join(l.SnapshotDir(vm), tag+".json")
}

// Kept is where the disks of a deleted machine wait.
func (l Layout) Kept(vm, uid8 string) string {
	return filepath.Join(l.State, "disks", ".kept", vm+"-"+uid8)
}

// ClonePrefix begins the names of the folders of clones that are being made.
const ClonePrefix = ".clone-"

// Clone is where the disks of a clone are made, beside the folders of machines.
func (l Layout) Clone(vm string) string { return filepath.Join(l.State, "disks", ClonePrefix+vm) }

// CloneLock is held while a clone of that name is made.
func (l Layout) CloneLock(vm string) string { return l.lock("clone-" + vm) }

// WorkDir says which long work goes on outside of QEMU. Its name begins with a dot, so
// it is in no machine's way.
func (l Layout) WorkDir() string { return filepath.Join(l.Run, ".work") }

// ImageDir holds the images that disks are made of, by digest.
func (l Layout) ImageDir() string { return filepath.Join(l.State, "images") }

// Image is a stored image. Key is its digest as a part of a name, such as
// sha256-HEX.
func (l Layout) Image(key, format string) string {
	return filepath.Join(l.ImageDir(), key+"."+format)
}

// ImageRecord is what is known of a stored image.
func (l Layout) ImageRecord(key string) string { return filepath.Join(l.ImageDir(), key+".json") }

// ImagePart is what was fetched so far, ImagePartRecord what is needed to go on.
func (l Layout) ImagePart(key string) string { return filepath.Join(l.ImageDir(), ".part-"+key) }

// ImagePartRecord is what is needed to go on with a part.
func (l Layout) ImagePartRecord(key string) string {
	return filepath.Join(l.ImageDir(), ".part-"+key+".json")
}

// ImageSource remembers which image a file without a digest was taken as. Key
// stands for its path.
func (l Layout) ImageSource(key string) string {
	return filepath.Join(l.ImageDir(), ".source-"+key+".json")
}

// Transfer is how far fetching an image has come. The folder's name begins with
// a dot, so it is in no machine's way.
func (l Layout) Transfer(key string) string { return filepath.Join(l.Run, ".images", key+".json") }

// LogDir holds the logs of a machine.
func (l Layout) LogDir(vm string) string { return filepath.Join(l.State, "logs", vm) }

// SerialLog is what the guest wrote on its serial line.
func (l Layout) SerialLog(vm string) string { return filepath.Join(l.LogDir(vm), "serial.log") }

// QEMULog is what QEMU wrote on stderr.
func (l Layout) QEMULog(vm string) string { return filepath.Join(l.LogDir(vm), "qemu.log") }

// VirtioFSLog is what the processes that share folders wrote on stderr.
func (l Layout) VirtioFSLog(vm string) string { return filepath.Join(l.LogDir(vm), "virtiofsd.log") }

// Cache holds answers that cost time to get, such as a binary's probe.
func (l Layout) Cache() string { return filepath.Join(l.State, "cache") }

// RunDir holds the sockets and records of a running machine.
func (l Layout) RunDir(vm string) string { return filepath.Join(l.Run, vm) }

// PIDFile is written and locked by QEMU itself.
func (l Layout) PIDFile(vm string) string { return filepath.Join(l.RunDir(vm), "qemu.pid") }

// Launched is the launch record.
func (l Layout) Launched(vm string) string { return filepath.Join(l.RunDir(vm), "launched.json") }

// Confirmed is an empty file that is there once the launched process has answered.
func (l Layout) Confirmed(vm string) string { return filepath.Join(l.RunDir(vm), "confirmed") }

// Intent is what was begun and is not yet observed.
func (l Layout) Intent(vm string) string { return filepath.Join(l.RunDir(vm), "intent.json") }

// Frozen says that the guest's file systems were frozen and not thawed since.
func (l Layout) Frozen(vm string) string { return filepath.Join(l.RunDir(vm), "frozen.json") }

// VirtioFSSocket is where QEMU and virtiofsd are joined, a moment before they start.
func (l Layout) VirtioFSSocket(vm string) string {
	return filepath.Join(l.RunDir(vm), "virtiofs.sock")
}

// VirtioFSLock is a file that a filesystem's virtiofsd holds a lock on while it lives.
func (l Layout) VirtioFSLock(vm, filesystem string) string {
	return filepath.Join(l.RunDir(vm), filesystem+VirtioFSLockSuffix)
}

// VirtioFSLockSuffix ends the names of such files, and of no others in a run dir.
const VirtioFSLockSuffix = ".virtiofs"

// LastEvent is what QEMU said of its own end to whoever listened.
func (l Layout) LastEvent(vm string) string { return filepath.Join(l.RunDir(vm), "last-event.json") }

// QMPSocket is for whoever stays connected for events.
func (l Layout) QMPSocket(vm string) string { return filepath.Join(l.RunDir(vm), "qmp.sock") }

// CLISocket is for short visits.
func (l Layout) CLISocket(vm string) string { return filepath.Join(l.RunDir(vm), "cli.sock") }

// SerialSocket is the guest's serial line.
func (l Layout) SerialSocket(vm string) string { return filepath.Join(l.RunDir(vm), "serial.sock") }

// AgentSocket is the port of the guest's agent.
func (l Layout) AgentSocket(vm string) string { return filepath.Join(l.RunDir(vm), "qga.sock") }

// LockDir holds all lock files, which are never unlinked.
func (l Layout) LockDir() string { return filepath.Join(l.Run, "locks") }

// MachineLock is held for one reconcile of a machine.
func (l Layout) MachineLock(vm string) string { return l.lock("vm-" + vm) }

// BackupLock is held while backups of a machine are made, checked or restored.
func (l Layout) BackupLock(vm string) string { return l.lock("backup-" + vm) }

// ImageLock is held while an image is fetched, while an overlay of it is made,
// and while it is removed.
func (l Layout) ImageLock(key string) string { return l.lock("image-" + key) }

// CLILock is held while connected to CLISocket.
func (l Layout) CLILock(vm string) string { return l.lock("cli-" + vm) }

// QMPLock is held while connected to QMPSocket.
func (l Layout) QMPLock(vm string) string { return l.lock("qmp-" + vm) }

// AgentLock is held while connected to AgentSocket, and for as long as the guest's
// file systems are frozen.
func (l Layout) AgentLock(vm string) string { return l.lock("qga-" + vm) }

// SerialLock is held while connected to SerialSocket.
func (l Layout) SerialLock(vm string) string { return l.lock("serial-" + vm) }

// SerialLeave is written by who wants SerialLock and asks its holder to leave.
func (l Layout) SerialLeave(vm string) string { return l.SerialLock(vm) + ".leave" }

// DatabaseLock is held for one transaction.
func (l Layout) DatabaseLock() string { return l.lock("db") }

// ControllerLock is held by the one watch of the state dir while it lives.
func (l Layout) ControllerLock() string { return l.lock("controller") }

// Controller says whose objects the watch keeps that holds ControllerLock.
func (l Layout) Controller() string { return filepath.Join(l.LockDir(), "controller.json") }

// EventsLock is held while the journal is appended to.
func (l Layout) EventsLock() string { return l.lock("events") }

// ProbeLock is held while a QEMU binary is probed.
func (l Layout) ProbeLock() string { return l.lock("probe") }

func (l Layout) lock(name string) string { return filepath.Join(l.LockDir(), name+".lock") }
