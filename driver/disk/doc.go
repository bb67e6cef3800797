// Package disk makes image files and changes those that no QEMU has open, all
// through qemu-img: creation, information, offline snapshots, and what becomes
// of a deleted machine's folder.
//
// # Basics
//
//	images := disk.New(disk.Config{Timing: timing.Default()})
//	err := images.Create(ctx, "/var/lib/maqet/disks/web/root.qcow2", 20<<30)
//	info, err := images.InfoAs(ctx, "/var/lib/maqet/disks/web/root.qcow2", "qcow2")
//	err = images.CreateSnapshot(ctx, map[string]string{"root": info.Path}, "before-upgrade")
//
// # Promises
//
//   - No existing file is ever overwritten. A disk appears under its name only
//     when it is complete and on stable storage; a run that was killed leaves at
//     most a temporary file, which the next creation in that folder removes.
//   - A snapshot is made on all disks or on none, and the same holds for
//     reverting to one.
//   - No path is read as anything but a path, whatever characters it has: every
//     path is made absolute, and the image's format and protocol are named where
//     qemu-img lets them be named.
//   - Every qemu-img has a deadline (timing name "image"), runs in its own
//     process group, and is killed when the context or this process ends.
//
// # Caveats
//
// A qcow2 is sparse. Creating a disk checks for room for its metadata and a
// reserve of 64 MiB, not for the size that the guest sees: what the guest writes
// later may still fill the host's filesystem.
//
// Deleting a snapshot from several disks stops at the first failure; what was
// deleted is gone, and asking again goes on with the rest.
//
// While a revert runs, each disk carries a second snapshot whose tag begins with
// "maqet.undo.", from which a failure is undone. A run that is killed leaves it
// behind, with the content the disk had before. Nothing uses it by itself: the next
// revert of these disks that succeeds deletes it, and until then a person can.
package disk
