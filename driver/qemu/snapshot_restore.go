package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// restore reverts the disks of a stopped machine.
func (s *snapshots) restore(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) (driver.RestoreReport, error) {
	const op = "restore"
	name := vm.Metadata.Name
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if obs.Presence != driver.Absent {
		return driver.RestoreReport{}, notStopped(name, obs)
	}
	record, err := s.record(name, tag)
	if err != nil {
		return driver.RestoreReport{}, snapshotError(name, op, err)
	}
	disks, others := restorable(vm, obs, record)
	paths, err := s.paths(vm, disks)
	if err != nil {
		return driver.RestoreReport{}, snapshotError(name, op, err)
	}
	found, err := offlinePlace{s.images, paths}.look(ctx)
	if err != nil {
		return driver.RestoreReport{}, snapshotError(name, op, err)
	}
	// Whether the memory is there as well is no matter here: it is not restored.
	if err := found.verify(driver.SnapshotRecord{Tag: tag, Disks: disks}); err != nil {
		return driver.RestoreReport{}, snapshotError(name, op, err)
	}
	bitmaps, err := s.images.RevertSnapshot(ctx, paths, tag)
	if err != nil {
		return driver.RestoreReport{Bitmaps: bitmaps}, snapshotError(name, op, err)
	}
	if vm.Spec.TPM != nil {
		others = append(others, "the TPM's state")
	}
	for i := range vm.Spec.Filesystems {
		if f := &vm.Spec.Filesystems[i]; !f.ReadOnly {
			others = append(others, "the folder of filesystem "+f.Name)
		}
	}
	report := driver.RestoreReport{Tag: tag, Disks: disks, Untouched: others, Bitmaps: bitmaps}
	for _, d := range disks {
		at := found.find(d, tag)
		report.MemoryNotRestored = report.MemoryNotRestored || at.VMStateSize > 0
		report.Taken = at.Date
	}
	if record != nil {
		report.Method, report.Taken, report.Consistency = record.Method, record.Taken, record.Consistency
	}
	report.Note = restoreNote(report)
	s.setAt(ctx, name, tag)
	s.log.InfoContext(ctx, "snapshot restored", "vm", name, "tag", tag, "disks", disks)
	return report, nil
}

// notStopped refuses to revert disks that a QEMU may have open.
func notStopped(name string, obs driver.Observed) error {
	err, hint := errors.New("the machine is running"), "stop it first with: maqet stop "+name
	if obs.Presence != driver.Alive {
		err, hint = fmt.Errorf("%w, so it may be running: %s", driver.ErrUnresponsive, obs.Message), obs.Hint
	}
	return &driver.LifecycleError{VM: name, Op: "restore", Err: err, Hint: hint}
}

// restorable are the disks to revert and the machine's other ones. Without a record
// these are all disks that the guest writes to: a snapshot on some of them only
// would give disks of different times.
func restorable(vm *manifest.VirtualMachine, obs driver.Observed, record *driver.SnapshotRecord) (disks, others []string) {
	in, without := snapshotDisks(vm, obs)
	all := slices.Concat(in, without)
	if record != nil {
		in = slices.Clone(record.Disks)
	}
	slices.Sort(in)
	return in, slices.DeleteFunc(all, func(d string) bool { return slices.Contains(in, d) })
}

// restoreNote is what a person has to know about disks that were set back.
func restoreNote(r driver.RestoreReport) string {
	var notes []string
	switch {
	case r.MemoryNotRestored:
		notes = append(notes, "memory is not restored: the guest will boot from disks that were in use when the snapshot was taken")
	case r.Consistency == ConsistencyCrash || r.Consistency == ConsistencyPaused:
		notes = append(notes, "the guest was on when the snapshot was taken: it will boot as after a loss of power")
	}
	if len(r.Untouched) > 0 {
		notes = append(notes, "not in the snapshot and as they were: "+strings.Join(r.Untouched, ", "))
	}
	return strings.Join(notes, "; ")
}
