package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// How consistent a snapshot is, as its record says.
const (
	// ConsistencyStopped is of a machine that was off.
	ConsistencyStopped = "Stopped"
	// ConsistencyPaused is of a machine whose vCPUs were stopped.
	ConsistencyPaused = "Paused"
	// ConsistencyCrash is of a running machine without its memory: the guest finds
	// its disks as after a loss of power, all at the same moment.
	ConsistencyCrash = "CrashConsistent"
	// ConsistencyQuiesced is of a running machine whose guest had its file systems frozen:
	// all that was written is on the disks.
	ConsistencyQuiesced = "Quiesced"
	// ConsistencyMemory is of a machine with its memory.
	ConsistencyMemory = "Memory"
)

// ErrSnapshotRunning is wrapped when a snapshot's job is not over yet.
var ErrSnapshotRunning = errors.New("the snapshot is still being taken")

// ErrSnapshotIncomplete is wrapped when a snapshot is not on every disk that it
// should be on.
var ErrSnapshotIncomplete = errors.New("the snapshot is not on every disk")

// ErrNotCancellable is wrapped when QEMU does not give up a job.
var ErrNotCancellable = errors.New("QEMU does not cancel this job")

// abortTime is how long cleaning up after a failure may take beyond a context
// that has ended.
const abortTime = 30 * time.Second

// snapshots is what taking, deleting and restoring snapshots needs of a Driver.
type snapshots struct {
	visit  func(ctx context.Context, name string, do func(context.Context, *qmp.Conn) error) error
	images *disk.Images
	layout layout.Layout
	timing timing.Table
	log    *slog.Logger
	// freeze freezes the file systems of a guest.
	freeze func(ctx context.Context, name string, lasts time.Duration) (*Frozen, error)
}

// take takes a snapshot, or begins the job that does.
func (s *snapshots) take(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	err := s.prepare(ctx, vm, obs, req)
	if err == nil {
		err = s.perform(ctx, vm, obs, req)
	}
	return snapshotError(vm.Metadata.Name, "snapshot", err)
}

// prepare refuses what cannot be done, and deletes what a run that was killed has
// left of a snapshot of this name.
func (s *snapshots) prepare(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	if blockers := SnapshotPreflight(vm, obs, req.Method); len(blockers) > 0 {
		return &BlockedError{Tag: req.Tag, Blockers: blockers}
	}
	blockers := TagBlockers(vm, obs, req.Tag)
	if len(blockers) > 0 && blockers[0].Disk == "" {
		return &BlockedError{Tag: req.Tag, Blockers: blockers}
	}
	removed, err := s.discardLeftovers(ctx, vm, obs, req.Tag)
	if err != nil {
		return err
	}
	blockers = slices.DeleteFunc(blockers, func(b Blocker) bool { return slices.Contains(removed, b.Disk) })
	if len(blockers) > 0 {
		return &BlockedError{Tag: req.Tag, Blockers: blockers}
	}
	return nil
}

// perform takes a snapshot of which prepare has said that it can be taken.
func (s *snapshots) perform(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	name, draft := vm.Metadata.Name, newRecord(vm, obs, req)
	quiet, err := s.quiesce(ctx, vm, obs, req, &draft)
	if err != nil {
		return err
	}
	defer func() { _ = quiet.thaw(ctx) }() // it is, mostly, and else the next pass does it
	if err := s.writeDraft(name, draft); err != nil {
		return err
	}
	if obs.Presence == driver.Alive && draft.Method == manifest.SnapshotFull {
		// The draft stays until finish has seen the end of the job.
		return s.begin(ctx, vm, draft, req.Job)
	}
	err = s.within(ctx, vm, obs, draft.Disks, func(ctx context.Context, at place) error {
		err := at.take(ctx, draft)
		if broken := s.quieted(ctx, quiet, req, &draft); err == nil {
			err = broken
		}
		if err != nil {
			return err
		}
		found, err := at.look(ctx)
		if err != nil {
			return err
		}
		return found.verify(draft)
	})
	if err != nil {
		_ = quiet.thaw(ctx) // as above; what is left of the snapshot has time
		return s.abort(ctx, vm, obs, draft, err)
	}
	return s.complete(ctx, name, draft)
}

// abort deletes what a failed snapshot has left, and returns its cause. The draft
// goes only when it is known that nothing is left.
func (s *snapshots) abort(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, draft driver.SnapshotRecord, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	_, err := s.discardLeftovers(ctx, vm, obs, draft.Tag)
	return errors.Join(cause, err)
}

// discardLeftovers deletes what was begun under the tag and never completed. A
// snapshot older than the draft is somebody else's and stays.
func (s *snapshots) discardLeftovers(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) (removed []string, err error) {
	name := vm.Metadata.Name
	draft, err := s.draft(name, tag)
	if err != nil || draft == nil {
		return nil, err
	}
	if record, err := s.record(name, tag); err != nil || record != nil {
		return nil, errors.Join(err, s.dropDraft(name, tag))
	}
	err = s.within(ctx, vm, obs, draft.Disks, func(ctx context.Context, at place) error {
		removed, err = discard(ctx, at, *draft)
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("delete what is left of the snapshot %s: %w", tag, err)
	}
	return removed, s.dropDraft(name, tag)
}

// discard deletes the draft's snapshot from the disks that have it.
func discard(ctx context.Context, at place, draft driver.SnapshotRecord) ([]string, error) {
	found, err := at.look(ctx)
	if err != nil {
		return nil, err
	}
	begun := found.begun(draft)
	return begun, at.drop(ctx, begun, draft.Tag)
}

// complete writes the record of a snapshot that has been seen on the disks.
func (s *snapshots) complete(ctx context.Context, vm string, record driver.SnapshotRecord) error {
	record.Duration = time.Since(record.Taken)
	if p := record.Paused; p != nil && p.To.IsZero() {
		p.To, p.AtMost = time.Now().UTC(), true
	}
	record.Parent = s.at(vm)
	if err := s.writeRecord(vm, record); err != nil {
		return err
	}
	s.setAt(ctx, vm, record.Tag)
	s.log.InfoContext(ctx, "snapshot taken", "vm", vm, "tag", record.Tag, "method", record.Method, "dur", record.Duration)
	return nil
}

// remove deletes a tag from every disk that has it, and then its record.
func (s *snapshots) remove(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error {
	const op = "delete snapshot of"
	name := vm.Metadata.Name
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := manifest.ValidName(tag); err != nil {
		return snapshotError(name, op, err)
	}
	if err := s.removeTag(ctx, vm, obs, tag); err != nil {
		return snapshotError(name, op, err)
	}
	if err := s.dropRecord(name, tag); err != nil {
		return snapshotError(name, op, err)
	}
	s.log.InfoContext(ctx, "snapshot deleted", "vm", name, "tag", tag)
	return nil
}

// removeTag deletes a tag from the disks that QEMU has, and from those that it
// has not.
func (s *snapshots) removeTag(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, tag string) error {
	attached := foundSnapshots{}
	if obs.Presence != driver.Absent {
		err := s.within(ctx, vm, obs, nil, func(ctx context.Context, at place) (err error) {
			if attached, err = at.look(ctx); err != nil {
				return err
			}
			return at.drop(ctx, attached.with(tag), tag)
		})
		if err != nil {
			return err
		}
	}
	paths, err := s.detached(vm, obs, tag, attached)
	if err != nil || len(paths) == 0 {
		return err
	}
	return s.images.DeleteSnapshot(ctx, paths, tag)
}

// limit gives ctx the deadline of snapshots.
func (s *snapshots) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.timing.Snapshot <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, s.timing.Snapshot)
}

// snapshotError makes a LifecycleError of err, unless it is one or nil.
func snapshotError(vm, op string, err error) error {
	var known *driver.LifecycleError
	if err == nil || errors.As(err, &known) {
		return err
	}
	e := &driver.LifecycleError{VM: vm, Op: op, Err: err}
	var refused *qmp.Error
	var job *JobError
	e.Refused = errors.As(err, &refused) || errors.As(err, &job)
	switch {
	case errors.Is(err, ErrSnapshotRunning):
		e.Hint = "wait until its job is over; maqet get " + vm + " shows it"
	case errors.Is(err, ErrSnapshotIncomplete):
		e.Hint = "list what there is with: maqet snapshot list " + vm
	case errors.Is(err, driver.ErrUnresponsive):
		e.Hint = "see: maqet describe " + vm
	case errors.Is(err, context.DeadlineExceeded):
		e.Hint = "allow more time with --timeouts snapshot=DURATION"
	}
	return e
}
