package driver

import (
	"time"

	"github.com/maqet/maqet/manifest"
)

// CopyDisk is one disk of a running machine that a job of its QEMU copies into a file.
type CopyDisk struct {
	// Name is the disk, and QEMU's block node.
	Name string
	// Path is the qcow2 that is made for it. Its folder must be there, and it must not.
	Path string
	// Backing is the file that Path only holds the difference to, as Path's header names
	// it: relative to Path's folder. Empty copies everything.
	Backing string
	// Since is the dirty bitmap that tells that difference. It is left as it is.
	Since string
	// Mark is a persistent dirty bitmap that is added to the disk at the moment that the
	// copy is of, and notes what the guest writes from then on. Empty adds none.
	Mark string
}

// CopyRequest is a copy of disks as they are at one moment.
type CopyRequest struct {
	// Kind says what for, as a part of names that QEMU sees: "backup", "export".
	Kind  string
	Disks []CopyDisk
	// Quiesce says whether the guest's file systems are frozen at that moment; empty is
	// IfAvailable.
	Quiesce manifest.Quiesce
	// RateLimit is how many bytes a second are read altogether; 0 is no limit.
	RateLimit int64
}

// Copy is a copy that was begun.
type Copy struct {
	Kind string `json:"kind"`
	// UID is the machine's uuid, and PID with Started the process that copies.
	UID     string    `json:"uid"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// At is the moment that the copy is of.
	At time.Time `json:"at"`
	// Consistency is Paused, Quiesced or CrashConsistent, as in a SnapshotRecord;
	// NotQuiesced and Frozen go with it.
	Consistency string  `json:"consistency"`
	NotQuiesced string  `json:"notQuiesced,omitempty"`
	Frozen      int     `json:"frozen,omitempty"`
	QEMU        Version `json:"qemu"`
	// RateLimit is that of the request.
	RateLimit int64      `json:"rateLimit,omitempty"`
	Disks     []CopyMade `json:"disks"`
}

// CopyMade is one disk of a copy that was begun.
type CopyMade struct {
	Name string `json:"name"`
	// Path is where it is copied to.
	Path string `json:"path"`
	// Size is what the guest sees of the disk.
	Size int64 `json:"size"`
	// Sync is what the job copies, in QEMU's word: full, top or bitmap.
	Sync string `json:"sync"`
	// Job is QEMU's job, Node its name of the file.
	Job  string `json:"job"`
	Node string `json:"node"`
}

// CopyProgress is how far a copy is.
type CopyProgress struct {
	// Done and Total are in bytes.
	Done, Total int64
	// Over tells that no job goes on any more, well or not.
	Over bool
	// Failed is the error of the first job that has failed; nil while none has.
	Failed error
	// Going are the jobs that go on.
	Going []string
	// Missing are jobs that QEMU does not know: whoever dismissed them.
	Missing []string
}

// Bitmap is a dirty bitmap of a disk, as QEMU or its image has it.
type Bitmap struct {
	Name string
	// Broken tells that it missed something, as after a QEMU that was killed, and is
	// good for nothing but to be removed.
	Broken bool
	// Persistent tells that it lasts when QEMU ends. Recording tells that it notes what is
	// written, and Busy that a job uses it.
	Persistent, Recording, Busy bool
	// Dirty is how many bytes it has marked.
	Dirty int64
}
