package qemu

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// Blocker is one reason why a snapshot cannot be taken.
type Blocker struct {
	// Disk is the disk at fault; empty when it is the machine.
	Disk string
	// Filesystem is the filesystem at fault; empty when it is none.
	Filesystem string
	// Reason says what is wrong, Remedy what to do about it.
	Reason, Remedy string
}

// String is "disk data: reason (remedy)".
func (b Blocker) String() string {
	text := b.Reason + " (" + b.Remedy + ")"
	switch {
	case b.Disk != "":
		text = "disk " + b.Disk + ": " + text
	case b.Filesystem != "":
		text = "filesystem " + b.Filesystem + ": " + text
	}
	return text
}

// BlockedError is a snapshot that was not begun, since something forbids it.
type BlockedError struct {
	// Op is what was to be done with it; empty for taking it.
	Op string
	// Tag is the snapshot's name.
	Tag string
	// Blockers are all the reasons.
	Blockers []Blocker
}

// Error lists every blocker with its remedy.
func (e *BlockedError) Error() string {
	parts := make([]string, len(e.Blockers))
	for i, b := range e.Blockers {
		parts[i] = b.String()
	}
	return "cannot " + cmp.Or(e.Op, "take") + " " + e.Tag + ": " + strings.Join(parts, "; ")
}

// SnapshotPreflight names everything that keeps a snapshot of that method from
// being taken, as far as the observation shows it: of a running machine every
// drive that QEMU has, of a stopped one every disk of the manifest. Drives that
// the guest cannot write to do not matter. Nothing is asked and nothing changes.
//
// Whether the name is free is told by [TagBlockers].
func SnapshotPreflight(vm *manifest.VirtualMachine, obs driver.Observed, method manifest.SnapshotMethod) []Blocker {
	switch obs.Presence {
	case driver.Alive:
		return onlineBlockers(obs, method)
	case driver.Absent:
		return offlineBlockers(vm, obs, method)
	case driver.Unresponsive, driver.Unknown:
	}
	remedy := obs.Hint
	if remedy == "" {
		remedy = "see: maqet describe " + vm.Metadata.Name
	}
	return []Blocker{{Reason: strings.TrimSuffix("the machine does not answer: "+obs.Message, ": "), Remedy: remedy}}
}

// TagBlockers tells whether tag can name a new snapshot of the machine.
func TagBlockers(vm *manifest.VirtualMachine, obs driver.Observed, tag string) []Blocker {
	err := manifest.ValidName(tag)
	if err == nil {
		err = disk.CheckTag(tag)
	}
	if err != nil {
		return []Blocker{{Reason: err.Error(), Remedy: "give the snapshot another name"}}
	}
	remedy := "delete it first with: maqet snapshot delete " + vm.Metadata.Name + " " + tag + ", or use another name"
	var blockers []Blocker
	for _, name := range tagged(obs, tag) {
		blockers = append(blockers, Blocker{Disk: name, Reason: "it has a snapshot " + tag + " already", Remedy: remedy})
	}
	return blockers
}

// tagged are the disks that an observation shows to have a tag.
func tagged(obs driver.Observed, tag string) []string {
	all := slices.Clone(obs.Snapshots[tag].Disks)
	if obs.Guest != nil {
		for _, d := range obs.Guest.Disks {
			if slices.ContainsFunc(d.Snapshots, func(s driver.ImageSnapshot) bool { return s.Tag == tag }) {
				all = append(all, d.Name)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func onlineBlockers(obs driver.Observed, method manifest.SnapshotMethod) []Blocker {
	if obs.Guest == nil || obs.Guest.Brief {
		return []Blocker{{Reason: "the machine's drives have not been looked at", Remedy: "try again"}}
	}
	var blockers []Blocker
	writable := 0
	if method == manifest.SnapshotFull {
		blockers = append(blockers, filesystemBlockers(obs.Guest.Filesystems)...)
	}
	for _, d := range obs.Guest.Disks {
		if method == manifest.SnapshotFull && d.Driver == "nvme" {
			blockers = append(blockers, Blocker{
				Disk: d.Name, Reason: "QEMU cannot save the state of an NVMe disk with the memory", Remedy: "use method Disk, or another bus",
			})
		}
		switch {
		case d.ReadOnly:
		case d.Format != string(manifest.FormatQcow2):
			blockers = append(blockers, formatBlocker(d.Name, d.Format))
		default:
			writable++
		}
	}
	if writable == 0 && len(blockers) == 0 {
		blockers = append(blockers, noDiskBlocker())
	}
	return blockers
}

func offlineBlockers(vm *manifest.VirtualMachine, obs driver.Observed, method manifest.SnapshotMethod) []Blocker {
	var blockers []Blocker
	if method == manifest.SnapshotFull {
		blockers = append(blockers, Blocker{
			Reason: "the machine is stopped, so there is no memory to save",
			Remedy: "use method Disk, or start the machine",
		})
	}
	writable := 0
	for i := range vm.Spec.Disks {
		d := &vm.Spec.Disks[i]
		if !writableDisk(d) {
			continue
		}
		writable++
		file, looked := obs.Files[d.Name]
		switch {
		case diskFormat(d) != manifest.FormatQcow2:
			blockers = append(blockers, formatBlocker(d.Name, string(diskFormat(d))))
		case looked && file.Err != "":
			blockers = append(blockers, Blocker{
				Disk: d.Name, Reason: "its image cannot be looked at: " + file.Err, Remedy: "make " + file.Path + " readable",
			})
		case !looked || !file.Exists:
			blockers = append(blockers, Blocker{
				Disk: d.Name, Reason: "its image does not exist yet", Remedy: "start the machine once, which makes the image",
			})
		case file.Format != "" && file.Format != string(manifest.FormatQcow2):
			blockers = append(blockers, formatBlocker(d.Name, file.Format))
		}
	}
	if writable == 0 {
		blockers = append(blockers, noDiskBlocker())
	}
	node := driver.FirmwareKindOf(&vm.Spec).NVRAMNode()
	if file := obs.Files[node]; file.Err != "" {
		blockers = append(blockers, Blocker{
			Disk: node, Reason: "the firmware's NVRAM cannot be looked at: " + file.Err, Remedy: "make " + file.Path + " readable",
		})
	}
	return blockers
}

func formatBlocker(name, format string) Blocker {
	return Blocker{
		Disk:   name,
		Reason: fmt.Sprintf("it is %s and writable, and only a qcow2 holds snapshots", format),
		Remedy: "set readOnly: true, or convert the image with: qemu-img convert -O qcow2",
	}
}

// filesystemBlockers are those of memory: who mounts a folder has state in the server
// of it, of which QEMU saves nothing.
func filesystemBlockers(all []driver.GFilesystem) []Blocker {
	var blockers []Blocker
	for _, f := range all {
		b := Blocker{
			Filesystem: f.Name, Reason: "QEMU cannot save the memory of a guest that shares a folder by virtiofs",
			Remedy: "use method Disk, or remove it from spec.filesystems",
		}
		if f.Driver == string(manifest.Filesystem9P) {
			b.Reason = "QEMU cannot save the memory of a guest that has mounted a folder by 9p"
		}
		blockers = append(blockers, b)
	}
	return blockers
}

func noDiskBlocker() Blocker {
	return Blocker{Reason: "the machine has no disk that the guest writes to", Remedy: "give it a disk with a size"}
}

// writableDisk tells whether the guest can write to a disk of the manifest.
func writableDisk(d *manifest.Disk) bool { return !d.ReadOnly && d.Media != manifest.MediaCDROM }

// diskFormat is a disk's format with the default filled in.
func diskFormat(d *manifest.Disk) manifest.DiskFormat {
	if d.Format == "" {
		return manifest.FormatQcow2
	}
	return d.Format
}
