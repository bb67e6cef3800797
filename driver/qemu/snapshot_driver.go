package qemu

import (
	"context"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// TakeSnapshot takes a snapshot of what obs shows: with qemu-img of a stopped
// machine, in one transaction of a running one (Disk), or by a job that also saves
// memory (Full). It is on all disks that the guest writes to, or on none. Success
// means that the disks list it and its record is written; a Full one is only begun,
// unless it is over by the time QEMU would answer, and [Driver.FinishSnapshot]
// completes it.
//
// What forbids the snapshot is a [*BlockedError] that names every disk. What a run
// that was killed has left of a snapshot of that name is deleted first.
func (d *Driver) TakeSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	return d.snapshots().take(ctx, vm, obs, req)
}

// FinishSnapshot completes a snapshot that was begun: it writes the record when the
// job has succeeded and the disks list the snapshot, deletes what is left when it has
// failed, and dismisses the job. While the job runs it returns [ErrSnapshotRunning].
// Without a job, what the disks list decides: a snapshot that is complete is taken
// as such, whoever took it, and a disk-only one that was cut off is taken again.
func (d *Driver) FinishSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	return d.snapshots().finish(ctx, vm, obs, req)
}

// DeleteSnapshot deletes a tag from all disks that have it, whether the machine runs
// or not, and its record. A tag that is nowhere is no error.
func (d *Driver) DeleteSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error {
	return d.snapshots().remove(ctx, vm, obs, tag)
}

// LoadSnapshot begins to set disks and memory of a machine that runs, or is paused,
// back to a Full snapshot: by a job of its QEMU, which must have just the devices that
// the snapshot's had ([driver.DeviceDifferences]). The guest is stopped before, and
// [Driver.FinishLoad] tells whether it may run again. What forbids it is a
// [*BlockedError], and then the guest runs on as before. Dirty bitmaps of the disks are
// removed before, and returned by disk, also with an error.
func (d *Driver) LoadSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) (bitmaps map[string][]string, err error) {
	return d.snapshots().load(ctx, vm, obs, req)
}

// FinishLoad tells whether a snapshot that was to be loaded is, and dismisses the job
// then. While it runs it returns [ErrSnapshotRunning]. After a [*JobError] the disks may
// hold what they held then or what they held before, and the guest must not run on;
// the job is left with QEMU, as the sign of that.
func (d *Driver) FinishLoad(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	if err := d.snapshots().finishLoad(ctx, vm, req); err != nil {
		return err
	}
	return fail("restore", vm.Metadata.Name, d.sawReady(vm.Metadata.Name, req.Tag, obs), "")
}

// RestoreSnapshot gives the disks of a stopped machine the content they had when the
// snapshot was taken: all disks of its record, or none of them. What was written
// since is lost, and so are the disks' dirty bitmaps, which the report names, also with
// an error. Memory is not restored, and a running machine is refused.
func (d *Driver) RestoreSnapshot(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) (driver.RestoreReport, error) {
	return d.snapshots().restore(ctx, vm, obs, tag)
}

// CancelSnapshot asks QEMU to give up the job of a snapshot and tells whether it
// does.
//
// QEMU 7.2 does not: it saves memory in its main loop and listens to nobody until
// that is over, so the request arrives when there is nothing to cancel any more, and
// the answer is [ErrNotCancellable]. A snapshot that is not wanted is deleted
// afterwards.
func (d *Driver) CancelSnapshot(ctx context.Context, name, job string) error {
	return d.snapshots().cancel(ctx, name, job)
}

func (d *Driver) snapshots() *snapshots {
	return &snapshots{visit: d.Visit, images: d.images, layout: d.layout, timing: d.timing, log: d.log, freeze: d.Freeze}
}
