// Package disk knows where the data of disks is. It makes image files and changes
// those that no QEMU has open, all through qemu-img: creation, growth, information,
// offline snapshots, and what becomes of a deleted machine's folder.
//
// # Basics
//
//	images := disk.New(disk.Config{Timing: timing.Default()})
//	err := images.Create(ctx, "/var/lib/maqet/disks/web/root.qcow2", 20<<30)
//	info, err := images.InfoAs(ctx, "/var/lib/maqet/disks/web/root.qcow2", "qcow2")
//	err = images.CreateSnapshot(ctx, map[string]string{"root": info.Path}, "before-upgrade")
//
// # Kinds of storage
//
// Where a disk's data is decides its [Kind]: [Made] for the images that maqet makes,
// [File], [Device] and [NBD]. [Kinds] is the list of those that there are. It is a
// plain value, which cmd/maqet builds and hands to the driver, so that two drivers
// in one process may know different kinds.
//
// To add one:
//
//  1. Give manifest.Disk the key that names the storage, if no key there is does
//     ([NBD] has a key of its own, [Device] shares one with [File]), and refuse in the
//     manifest's validation what can never work.
//  2. Write the type. Holds tells from the manifest alone which disks are of the
//     kind; of two kinds that hold the same disk the first in the list counts.
//     Source gives the options of QEMU's block node, with every driver named, and
//     looks at nothing: the command line must come out the same each time. Its
//     Name has to be what QEMU says in query-named-block-nodes. Look says how the
//     storage is and never fails: what keeps it from being used goes into
//     DiskFile.Err. It bounds what it waits for.
//  3. If maqet makes the storage and can resize it, add the methods of [Maker].
//  4. Put it into the list in cmd/maqet.
//
// The example NewKind is a whole kind, and runs with the tests.
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
