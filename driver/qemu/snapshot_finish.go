package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// errCutOff is wrapped by the error of a snapshot that was cut off, and of which
// nothing is left.
var errCutOff = errors.New("it was cut off, and what was left of it is deleted")

// finish completes a snapshot that was begun, by the job that takes it and by what
// the disks have. It is also how a snapshot is looked at of which only the tag is
// known.
func (s *snapshots) finish(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	err := s.finishOnce(ctx, vm, obs, req)
	if errors.Is(err, errCutOff) && req.Method != manifest.SnapshotFull && len(SnapshotPreflight(vm, obs, req.Method)) == 0 {
		// To finish a disk-only snapshot of which nothing is left is to take it.
		err = s.perform(ctx, vm, obs, req)
	}
	return snapshotError(vm.Metadata.Name, "snapshot", err)
}

// finishOnce looks at the job and settles what it did.
func (s *snapshots) finishOnce(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) error {
	draft, err := s.draft(vm.Metadata.Name, req.Tag)
	if err != nil {
		return err
	}
	disks, _ := snapshotDisks(vm, obs)
	if draft != nil {
		disks = draft.Disks
	}
	return s.within(ctx, vm, obs, disks, func(ctx context.Context, at place) error {
		job, err := at.job(ctx, req.Job)
		if err != nil {
			return err
		}
		var failed error
		switch {
		case job == nil:
		case job.Status != jobConcluded:
			return fmt.Errorf("%w: QEMU's job %s is %s", ErrSnapshotRunning, job.ID, job.Status)
		case job.Error != "":
			failed = &JobError{ID: job.ID, Type: job.Type, Reason: job.Error}
		}
		err = s.settle(ctx, vm, at, disks, draft, req, failed)
		if job == nil || err != nil && failed == nil && !errors.Is(err, errCutOff) {
			return err // a job that may still be needed stays
		}
		return errors.Join(err, at.dismiss(ctx, job.ID))
	})
}

// settle writes the record of a snapshot that is complete on the disks, and deletes
// what there is of one that is not. Failed is the error of its job.
func (s *snapshots) settle(ctx context.Context, vm *manifest.VirtualMachine, at place, disks []string, draft *driver.SnapshotRecord, req driver.SnapshotIntent, failed error) error {
	name := vm.Metadata.Name
	found, err := at.look(ctx)
	if err != nil {
		return errors.Join(failed, err)
	}
	record, err := s.record(name, req.Tag)
	if err != nil {
		return errors.Join(failed, err)
	}
	switch {
	case record != nil:
		// It was completed before; only the draft may have been left.
		return errors.Join(failed, found.verify(*record), s.dropDraft(name, req.Tag))
	case draft == nil:
		// Nothing was begun by maqet: the disks alone say what there is.
		foreign := driver.SnapshotRecord{Tag: req.Tag, Method: req.Method, Disks: disks}
		return errors.Join(failed, found.verify(foreign))
	}
	incomplete := failed
	if incomplete == nil {
		incomplete = found.verify(*draft)
	}
	if incomplete == nil && req.Quiesce == manifest.QuiesceRequired && draft.Consistency == ConsistencyCrash {
		incomplete = fmt.Errorf("%w: %s", ErrNotQuiesced, draft.NotQuiesced)
	}
	if incomplete == nil {
		return s.complete(ctx, name, *draft)
	}
	if _, err := discard(ctx, at, *draft); err != nil {
		return errors.Join(incomplete, err)
	}
	if err := s.dropDraft(name, req.Tag); err != nil {
		return errors.Join(incomplete, err)
	}
	if failed != nil {
		return failed
	}
	return fmt.Errorf("%w: %w", incomplete, errCutOff)
}

// cancel asks QEMU to give a snapshot's job up.
func (s *snapshots) cancel(ctx context.Context, name, id string) error {
	const op = "cancel the snapshot of"
	err := s.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		job, err := findJob(ctx, c, id)
		switch {
		case err != nil:
			return err
		case job == nil:
			return fmt.Errorf("%w: QEMU has no job %s", ErrNotCancellable, id)
		case job.Status == jobConcluded:
			return fmt.Errorf("%w: %s is over already", ErrNotCancellable, id)
		}
		if err := c.Do(ctx, "job-cancel", map[string]any{"id": id}, nil); err != nil {
			return fmt.Errorf("%w: %w", ErrNotCancellable, err)
		}
		job, err = findJob(ctx, c, id)
		if err != nil {
			return err
		}
		if job != nil && !slices.Contains([]string{"aborting", "null", jobConcluded}, job.Status) {
			return fmt.Errorf("%w: it took the request, and %s is still %s", ErrNotCancellable, id, job.Status)
		}
		return nil
	})
	switch known, ok := errors.AsType[*driver.LifecycleError](err); {
	case err == nil:
		return nil
	case ok:
		// The visit itself failed: most likely QEMU is saving just now.
		return &driver.LifecycleError{
			VM: name, Op: op, Refused: known.Refused, Err: known.Err,
			Hint: "while QEMU saves memory it listens to nobody: let it end, or end it with maqet stop --force " + name,
		}
	default:
		return &driver.LifecycleError{
			VM: name, Op: op, Err: err, Hint: "let it end; then delete the snapshot with: maqet snapshot delete " + name + " NAME",
		}
	}
}
