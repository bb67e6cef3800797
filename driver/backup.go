package driver

import (
	"context"
	"regexp"
	"time"

	"github.com/maqet/maqet/manifest"
)

// BackupRunVersion is the format of the manifests of backup runs that this maqet writes.
const BackupRunVersion = 1

// BackupRun is the manifest of one backup. It is written last: a run without one is
// nothing.
type BackupRun struct {
	Version int `json:"version"`
	// ID names the run, and begins with its time.
	ID string `json:"id"`
	// VM is the machine's name, UID its uuid.
	VM  string `json:"vm"`
	UID string `json:"uid"`
	// Type is Incremental when a disk of it can only be read together with the run before,
	// which is Parent; otherwise it is Full.
	Type   manifest.BackupMode `json:"type"`
	Parent string              `json:"parent,omitempty"`
	// Why is why it is Full although increments were asked for; empty when that needs no
	// word.
	Why string `json:"why,omitempty"`
	// Scheduled is the time that the schedule named; zero for one that was made by command.
	Scheduled time.Time `json:"scheduled,omitzero"`
	// At is the moment whose content it holds, Finished when it was complete.
	At       time.Time `json:"at"`
	Finished time.Time `json:"finished"`
	// Method is Job for a running machine and Convert for a stopped one.
	Method BackupMethod `json:"method"`
	// Consistency is Stopped, Paused, Quiesced or CrashConsistent, as of a snapshot.
	Consistency string `json:"consistency"`
	NotQuiesced string `json:"notQuiesced,omitempty"`
	Frozen      int    `json:"frozen,omitempty"`
	// QEMU is the version of the machine's QEMU; zero for a stopped one.
	QEMU Version `json:"qemu,omitzero"`
	// Disks are what it holds; Without are drives that the guest cannot write to.
	Disks   []BackupDisk `json:"disks"`
	Without []string     `json:"without,omitempty"`
	// Identity is what the guest recognises itself by.
	Identity *Identity `json:"identity,omitempty"`
	// Object is the manifest as it was applied, without what is Omitted since it may hold
	// secrets.
	Object  manifest.VirtualMachine `json:"object"`
	Omitted []string                `json:"omitted,omitempty"`
	// Who made it.
	Who string `json:"who"`

	// Folder is where it was found, and Broken why it cannot be used; neither is written.
	Folder string `json:"-"`
	Broken string `json:"-"`
}

var backupRunSyntax = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}$`)

// ValidBackupRun tells whether a text can name a run.
func ValidBackupRun(id string) bool { return backupRunSyntax.MatchString(id) }

// BackupMethod is how a backup was made.
type BackupMethod string

// The methods.
const (
	// BackupJob is a job of the running QEMU.
	BackupJob BackupMethod = "Job"
	// BackupConvert is a qemu-img that read the disks of a stopped machine.
	BackupConvert BackupMethod = "Convert"
)

// BackupDisk is one disk of a run.
type BackupDisk struct {
	Name string `json:"name"`
	// File is its qcow2, in the folder of the run.
	File string `json:"file"`
	// Type is Full or Incremental. Backing is the file of the run before that an
	// incremental one is the difference to, as its header names it.
	Type    manifest.BackupMode `json:"type"`
	Backing string              `json:"backing,omitempty"`
	// Why is why it is Full.
	Why string `json:"why,omitempty"`
	// Size is what the guest sees, Bytes how long the file is.
	Size  int64 `json:"size"`
	Bytes int64 `json:"bytes"`
	// SHA256 is the digest of the file, in hex.
	SHA256 string `json:"sha256"`
	// Bitmap is the dirty bitmap on the disk that notes what has changed since; empty
	// where there is none.
	Bitmap string `json:"bitmap,omitempty"`
}

// Bytes is how much the run takes.
func (r *BackupRun) Bytes() int64 {
	total := int64(0)
	for _, d := range r.Disks {
		total += d.Bytes
	}
	return total
}

// BackupRequest is a backup that somebody wants.
type BackupRequest struct {
	// Target is the folder, and Marker what it was marked with when it was first used;
	// empty marks it, or takes what is there.
	Target, Marker string
	Mode           manifest.BackupMode
	Quiesce        manifest.Quiesce
	RateLimit      int64
	// Why is why everything is to be copied all the same; empty leaves it to Mode.
	Why string
	// Scheduled is the time that the schedule named; zero for none.
	Scheduled time.Time
	// Keep says which scheduled runs stay, in Zone; nil keeps all.
	Keep *manifest.Keep
	Zone *time.Location
}

// BackupStage is how far a backup is.
type BackupStage struct {
	// What is done, in a word: "copying", "checking".
	What string
	// Done and Total are in bytes; Total is 0 before it is known.
	Done, Total int64
}

// BackupReport is what came of a backup.
type BackupReport struct {
	Run BackupRun
	// Marker is what the target is marked with.
	Marker string
	// Expired are the runs that were deleted since they are kept no longer.
	Expired []string
	// Warning is what did not succeed although the backup did; empty when all has.
	Warning string
}

// PendingBackup is a backup that goes on.
type PendingBackup interface {
	// Finish returns when the run is complete, or when nothing is left of it.
	Finish(ctx context.Context, tell func(BackupStage)) (BackupReport, error)
	// NeedsMachine tells that the machine must not be started meanwhile.
	NeedsMachine() bool
}

// BackupFinding is something wrong with a run.
type BackupFinding struct {
	Run string `json:"run"`
	// File is the file at fault; empty when it is the run.
	File    string `json:"file,omitempty"`
	Problem string `json:"problem"`
}

// BackupRestored says what restoring a backup has done.
type BackupRestored struct {
	Run BackupRun
	// Disks are the disks of the machine that were restored. Untouched are those that the
	// run does not have, Skipped those of the run that the machine does not have.
	Disks, Untouched, Skipped []string
	// Files are the files that were made, where a folder was named.
	Files []string
	// KeptAt are where the disks are that were there before.
	KeptAt []string
}
