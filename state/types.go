package state

import (
	"time"

	"github.com/maqet/maqet/internal/ending"
	"github.com/maqet/maqet/manifest"
)

// Machine is what is remembered of one machine when everything stops. It holds
// no transient state: whether a machine runs is always asked, never read here.
type Machine struct {
	// Object is the manifest as it was last applied, resolved.
	Object manifest.VirtualMachine `json:"object"`
	// Owner is where the object comes from.
	Owner string `json:"owner"`
	// Source is the file the object was read from; for messages only.
	Source string `json:"source,omitempty"`
	// Generation grows by one with each change of the spec.
	Generation int64 `json:"generation"`
	// Digest is the sha256 of the object's canonical form.
	Digest string `json:"digest"`
	// UID is a copy of the identity's uuid; empty before the identity is made.
	UID string `json:"uid,omitempty"`
	// Created and Updated are when the object was first and last written.
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	// Hold is an operator's temporary override; nil when there is none.
	Hold *Hold `json:"hold,omitempty"`
	// Deleting is a delete that was asked for and is not over.
	Deleting *Deletion `json:"deleting,omitempty"`
	// Scheduled is the time that the schedule named for the last snapshot it asked for;
	// zero before the first.
	Scheduled time.Time `json:"scheduled,omitzero"`
	// Backup is what is remembered of its backups; nil before the first.
	Backup *Backup `json:"backup,omitempty"`
	// Restore is a snapshot that the machine is to be set back to; nil when nobody
	// asked for that, or when it is done.
	Restore *Restore `json:"restore,omitempty"`
	// Restarts counts cold starts after the first one of this object.
	Restarts int `json:"restarts,omitempty"`
	// Starts counts every start.
	Starts int `json:"starts,omitempty"`
	// StartedGeneration is the generation that was last started; 0 before the first start.
	StartedGeneration int64 `json:"startedGeneration,omitempty"`
	// Unmet are the changes that a restart would have to make and that the last start,
	// made for that very spec, did not bring about; in words that tell one from another.
	Unmet []string `json:"unmet,omitempty"`
	// StartedDisks are the disks of the last start, and the NVRAM: one whose file is gone since
	// was lost, and is not made anew.
	StartedDisks []string `json:"startedDisks,omitempty"`
	// Recreate are the disks that a person wants made anew of what the manifest
	// names now, by disk name. Each goes once that is done.
	Recreate map[string]Recreation `json:"recreate,omitempty"`
	// LastTermination is how the last process ended.
	LastTermination *Termination `json:"lastTermination,omitempty"`
	// Failures counts the ends in a row that were failures.
	Failures int `json:"failures,omitempty"`
	// NotBefore is when a watch tries again to start the machine that failed.
	NotBefore time.Time `json:"notBefore,omitzero"`
	// Invalid is what is wrong with the manifest that Object was read from, of
	// which Object then is the last good version; nil when nothing is.
	Invalid *Invalid `json:"invalid,omitempty"`
	// Undeclared is true when the owner's manifests, all read, have no such
	// object any more.
	Undeclared bool `json:"undeclared,omitempty"`
	// Conditions remembers when a condition last changed.
	Conditions []Condition `json:"conditions,omitempty"`
}

// Invalid is a manifest that is at fault.
type Invalid struct {
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Termination is a fact about the past: how a process ended.
type Termination struct {
	Cause ending.Cause `json:"cause"`
	At    time.Time    `json:"at"`
	Boot  string       `json:"boot"`
	Exit  string       `json:"exit"`
	// LastLine is QEMU's last line.
	LastLine string `json:"lastLine,omitempty"`
	// StartedAt is when the process that ended was started.
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Generation is the generation that ran.
	Generation int64 `json:"generation"`
	// Superseded is true once the machine was started again: then this is no
	// longer how the last process ended, which may have gone without a trace.
	Superseded bool `json:"superseded,omitempty"`
}

// Hold is a temporary override of what the manifest says.
type Hold struct {
	// PowerState overrides the spec's; empty means that nothing is touched at all.
	PowerState manifest.PowerState `json:"powerState,omitempty"`
	Who        string              `json:"who"`
	Why        string              `json:"why,omitempty"`
	Since      time.Time           `json:"since"`
	// Until ends the hold by itself; zero means until released.
	Until time.Time `json:"until,omitzero"`
	// Boot ends the hold with the boot of the host that has this id; empty for
	// one that no boot ends.
	Boot string `json:"boot,omitempty"`
	// Under is the hold that stands again when that boot is over; nil for none.
	Under *Hold `json:"under,omitempty"`
	// Generation is the generation held: another one ends the hold.
	Generation int64 `json:"generation"`
}

// Deletion is an asked-for delete. It is never overwritten by a later update
// until it is over.
type Deletion struct {
	Since time.Time `json:"since"`
	Who   string    `json:"who"`
	// DeleteDisks was asked for explicitly.
	DeleteDisks bool `json:"deleteDisks,omitempty"`
	// Prune tells that the object vanished from its owner's manifests.
	Prune bool `json:"prune,omitempty"`
}

// Restore is an asked-for return to a snapshot. It lasts until the machine is as it
// was then, until that has proved impossible, or until somebody asks for something else.
type Restore struct {
	// Snapshot is the tag.
	Snapshot string    `json:"snapshot"`
	Since    time.Time `json:"since"`
	Who      string    `json:"who"`
	// DisksOnly leaves the memory of a Full snapshot where it is.
	DisksOnly bool `json:"disksOnly,omitempty"`
	// Launched is true once a QEMU was started as the snapshot's record says, for its
	// memory to be loaded into.
	Launched bool `json:"launched,omitempty"`
	// Failed is why loading failed halfway: the disks may be those of then or of before,
	// and the guest is started cold as it was then.
	Failed string `json:"failed,omitempty"`
	// GaveUp is why that start failed too; then nothing more is tried.
	GaveUp string `json:"gaveUp,omitempty"`
}

// Recreation is a person's word that a disk is to be made anew. It holds for just
// that change: from one image to another.
type Recreation struct {
	// From and To are digests; empty for a disk of no image.
	From  string    `json:"from,omitempty"`
	To    string    `json:"to,omitempty"`
	Since time.Time `json:"since"`
	Who   string    `json:"who"`
}

// Condition is a Kubernetes-shaped condition.
type Condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message,omitempty"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
	ObservedGeneration int64     `json:"observedGeneration"`
}

// Snapshot is what is remembered of one Snapshot object.
type Snapshot struct {
	Object     manifest.Snapshot `json:"object"`
	Owner      string            `json:"owner"`
	Source     string            `json:"source,omitempty"`
	Generation int64             `json:"generation"`
	Digest     string            `json:"digest"`
	Created    time.Time         `json:"created"`
	// TakenUID is the uuid of the machine it was taken of; empty before.
	TakenUID string    `json:"takenUID,omitempty"`
	TakenAt  time.Time `json:"takenAt,omitzero"`
	// Failed is why taking it failed for good; cleared by a changed machine or retry.
	Failed string `json:"failed,omitempty"`
	// Deleting is a delete that was asked for and is not over.
	Deleting *Deletion `json:"deleting,omitempty"`
}

// Image is what is remembered of one Image object.
type Image struct {
	// Object is the manifest as it was last applied, resolved.
	Object     manifest.Image `json:"object"`
	Owner      string         `json:"owner"`
	Source     string         `json:"source,omitempty"`
	Generation int64          `json:"generation"`
	Digest     string         `json:"digest"`
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`
}
