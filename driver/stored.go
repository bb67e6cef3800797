package driver

import "strings"

// KeptPrefix begins the names of folders of deleted machines.
const KeptPrefix = "kept/"

// StoredDisk is an image in the state dir, whoever knows of it.
type StoredDisk struct {
	// Folder is the machine whose folder it is in, or "kept/" and the name of a
	// folder that was kept when its machine was deleted.
	Folder string `json:"folder"`
	// Disk is the name of the disk.
	Disk string `json:"disk"`
	Path string `json:"path"`
	// Size is what a guest sees, Allocated what the host stores.
	Size      int64 `json:"size,omitempty"`
	Allocated int64 `json:"allocated"`
	// Snapshots are the tags of the snapshots inside.
	Snapshots []string `json:"snapshots,omitempty"`
	// UsedBy are the processes that have it open, in words.
	UsedBy []string `json:"usedBy,omitempty"`
	// Err is why it could not be looked into.
	Err string `json:"error,omitempty"`
}

// Name is how people name the disk: "web/root" or "kept/web-1a2b3c4d/root".
func (d StoredDisk) Name() string { return d.Folder + "/" + d.Disk }

// Need is why a stored disk has to stay.
type Need struct {
	// Folder is that of what needs it, as in StoredDisk: of another disk or snapshot
	// in the state dir, or the machine that names the disk.
	Folder string
	// By is what needs it, in words, such as "disk web/root".
	By string
	// Raw tells that it is a raw disk: what is in it is the guest's, and names no file of
	// the host, whatever it looks like.
	Raw bool
	// Snapshot is the tag of the snapshot that it is; empty for anything else.
	Snapshot string
}

// StoredRef names a stored disk, or a kept folder with all that is in it.
type StoredRef struct {
	// Folder is as in StoredDisk.
	Folder string
	// Disk is empty for the whole folder.
	Disk string
}

// IsKept tells whether the folder was kept of a machine that is deleted.
func (r StoredRef) IsKept() bool { return strings.HasPrefix(r.Folder, KeptPrefix) }

// String is how people name it.
func (r StoredRef) String() string {
	if r.Disk == "" {
		return r.Folder
	}
	return r.Folder + "/" + r.Disk
}

// Matches tells whether a stored disk is meant.
func (r StoredRef) Matches(d StoredDisk) bool {
	return d.Folder == r.Folder && (r.Disk == "" || r.Disk == d.Disk)
}
