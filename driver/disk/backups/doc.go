// Package backups keeps backup runs in a folder that may be another disk's, another
// host's, or gone.
//
// # Basics
//
// A target folder looks like this:
//
//	.maqet-backup              the mark: an id by which the folder is known again
//	web-0fe4c9d2/              a machine, by its name and the beginning of its uuid
//	  20260102T030000Z-3f9a/   a run
//	    root.qcow2             a disk; its backing file is ../RUN-BEFORE/root.qcow2
//	    manifest               the run's manifest, written last
//
// [Open] finds a target, [Folder.Runs] lists what is complete, [Folder.Begin] makes a
// run's folder and [Folder.Complete] its manifest, when every file and name is on the
// disk. [Folder.Sweep] removes runs that have none.
//
// A run and those that it is the difference to are a chain. [Expired] only ever names
// whole chains, so that none is broken by deleting what is old.
//
// # Caveats
//
// A folder without its mark is not filled: it may be the place of a disk that is not
// mounted. One backup of a machine goes on at a time; the caller sees to that. What lies
// in a target is not trusted: manifests name files beside them only, and headers of
// images are read here before QEMU or qemu-img opens them.
package backups
