package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// RestoreReport says what a restore has done.
type RestoreReport struct {
	// Tag is the snapshot.
	Tag string `json:"tag"`
	// Disks are those that hold again what they held then, Untouched those that
	// are as they were before the restore.
	Disks     []string `json:"disks"`
	Untouched []string `json:"untouched,omitempty"`
	// Method, Taken and Consistency are the snapshot's; Method and Consistency are
	// empty for one that maqet did not take.
	Method      manifest.SnapshotMethod `json:"method,omitempty"`
	Taken       time.Time               `json:"taken,omitzero"`
	Consistency string                  `json:"consistency,omitempty"`
	// MemoryNotRestored tells that the snapshot has memory too, which stays where
	// it is: the guest will boot.
	MemoryNotRestored bool `json:"memoryNotRestored,omitempty"`
	// Note says in words what a person has to know.
	Note string `json:"note,omitempty"`
}

// restore reverts the disks of a stopped machine.
func (s *snapshots) restore(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) (RestoreReport, error) {
	const op = "restore"
	name := vm.Metadata.Name
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if obs.Presence != driver.Absent {
		return RestoreReport{}, notStopped(name, obs)
	}
	record, err := s.record(name, tag)
	if err != nil {
		return RestoreReport{}, snapshotError(name, op, err)
	}
	disks, others := restorable(vm, obs, record)
	paths, err := s.paths(vm, disks)
	if err != nil {
		return RestoreReport{}, snapshotError(name, op, err)
	}
	found, err := offlinePlace{s.images, paths}.look(ctx)
	if err != nil {
		return RestoreReport{}, snapshotError(name, op, err)
	}
	// Whether the memory is there as well is no matter here: it is not restored.
	if err := found.verify(driver.SnapshotRecord{Tag: tag, Disks: disks}); err != nil {
		return RestoreReport{}, snapshotError(name, op, err)
	}
	if err := s.images.RevertSnapshot(ctx, paths, tag); err != nil {
		return RestoreReport{}, snapshotError(name, op, err)
	}
	report := RestoreReport{Tag: tag, Disks: disks, Untouched: others}
	for _, d := range disks {
		at := found.find(d, tag)
		report.MemoryNotRestored = report.MemoryNotRestored || at.VMStateSize > 0
		report.Taken = at.Date
	}
	if record != nil {
		report.Method, report.Taken, report.Consistency = record.Method, record.Taken, record.Consistency
	}
	report.Note = report.note()
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

// note is what a person has to know about a restore that was done.
func (r RestoreReport) note() string {
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
