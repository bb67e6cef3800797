package driver

import (
	"context"
	"time"

	"github.com/maqet/maqet/manifest"
)

// CloneRequest makes the disks and the identity of a new machine out of a snapshot.
type CloneRequest struct {
	// VM is the machine that the snapshot is of, Identity its own.
	VM       *manifest.VirtualMachine
	Identity *Identity
	// Tag is the snapshot, Disks are those of its disks that are copied.
	Tag   string
	Disks []string
	// New is the new machine's name.
	New string
}

// ExportRequest writes disks of a snapshot into files of their own.
type ExportRequest struct {
	VM       *manifest.VirtualMachine
	Identity *Identity
	Tag      string
	// Files are the files to make, by disk; none may be there.
	Files map[string]string
	// Format is qcow2 or raw; Compress compresses a qcow2.
	Format   manifest.DiskFormat
	Compress bool
}

// CopiedDisk is one disk of a snapshot that was copied.
type CopiedDisk struct {
	Disk string `json:"disk"`
	Path string `json:"path"`
	// Size is what a guest sees of it, Allocated what the file takes.
	Size      int64 `json:"size"`
	Allocated int64 `json:"allocated"`
	// Image is the digest of the image that the copy reads from; empty for one that is
	// complete in itself.
	Image string `json:"image,omitempty"`
}

// Clone is a new machine whose disks are made and which is in nobody's sight yet.
type Clone struct {
	// UID is its uuid.
	UID   string
	Disks []CopiedDisk
	// Place makes the disks those of the new machine, or fails when it has some. The
	// caller holds that machine's lock. Discard removes them, if they were not placed.
	Place   func(ctx context.Context) error
	Discard func()
}

// Work is long work that a process does outside of QEMU.
type Work struct {
	// Kind is "clone" or "export".
	Kind string `json:"kind"`
	// VM and Snapshot are what it reads, To is what it makes.
	VM       string `json:"vm"`
	Snapshot string `json:"snapshot"`
	To       string `json:"to"`
	// PID and Start tell the process from any other; Who is it in words.
	PID   int       `json:"pid"`
	Start uint64    `json:"start"`
	Who   string    `json:"who"`
	Since time.Time `json:"since"`
	// Percent is how far it is.
	Percent int `json:"percent"`
	// Temps are the files that it leaves behind when it is killed.
	Temps []string `json:"temps,omitempty"`
}

// The kinds of work.
const (
	WorkClone  = "clone"
	WorkExport = "export"
)
