package qemu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// load begins the job that sets disks and memory of a running QEMU back to a Full
// snapshot. The vCPUs are stopped first, and stay so: whether the guest may run on
// is known only when the job has succeeded, since one that failed may have set the
// disks back already. What is found before anything has changed is undone. Bitmaps are
// the dirty bitmaps that were removed for it, by disk, also with an error.
func (s *snapshots) load(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.SnapshotIntent) (bitmaps map[string][]string, err error) {
	name := vm.Metadata.Name
	ctx, cancel := s.limit(ctx)
	defer cancel()
	record, err := s.record(name, req.Tag)
	if err == nil {
		err = loadable(record, obs, req.Tag)
	}
	if err != nil {
		return nil, snapshotError(name, "restore", err)
	}
	begun := false
	err = s.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		var err error
		bitmaps, begun, err = s.loadBy(ctx, c, record, req.Job)
		return err
	})
	if len(bitmaps) > 0 {
		s.log.InfoContext(ctx, "dirty bitmaps removed", "vm", name, "bitmaps", bitmaps)
	}
	if begun {
		s.log.InfoContext(ctx, "snapshot is being loaded", "vm", name, "tag", req.Tag, "job", req.Job)
		return bitmaps, nil
	}
	return bitmaps, snapshotError(name, "restore", err)
}

// loadBy stops the vCPUs, looks at what could fail the job halfway, removes the dirty
// bitmaps, and begins it.
func (s *snapshots) loadBy(ctx context.Context, c *qmp.Conn, record *driver.SnapshotRecord, job string) (bitmaps map[string][]string, begun bool, err error) {
	if err := freeJob(ctx, c, job); err != nil {
		return nil, false, err
	}
	var status struct{ Running bool }
	if err := c.Do(ctx, "query-status", nil, &status); err != nil {
		return nil, false, err
	}
	if err := c.Do(ctx, "stop", nil, nil); err != nil {
		return nil, false, err
	}
	memory, found, err := readyToLoad(ctx, c, record)
	if err == nil {
		err = removeBitmaps(ctx, c, found)
	}
	if err == nil {
		bitmaps = found
		begun, _, err = s.submit(ctx, c, job, qmp.NewCall("snapshot-load", map[string]any{
			"job-id": job, "tag": record.Tag, "vmstate": memory, "devices": record.Disks,
		}, nil))
	}
	var refused *qmp.Error
	untouched := err != nil && !begun && (errors.As(err, &refused) || errors.Is(err, errNotLoadable))
	if untouched && status.Running {
		goOn, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		err = errors.Join(err, c.Do(goOn, "cont", nil, nil))
	}
	return bitmaps, begun, err
}

// errNotLoadable is wrapped by what forbids loading and was found before anything
// had changed.
var errNotLoadable = errors.New("the snapshot cannot be loaded")

// readyToLoad asks QEMU, whose guest no longer runs, whether the tag is whole on all
// disks of the record. Memory is the disk that has the memory, bitmaps are the dirty
// bitmaps that have to go before.
func readyToLoad(ctx context.Context, c *qmp.Conn, record *driver.SnapshotRecord) (memory string, bitmaps map[string][]string, err error) {
	found, err := onlinePlace{c}.look(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := found.verify(*record); err != nil {
		return "", nil, fmt.Errorf("%w: %w", errNotLoadable, err)
	}
	for _, name := range record.Disks {
		if found.find(name, record.Tag).VMStateSize > 0 {
			bitmaps, err = bitmapsOf(ctx, c, record.Disks)
			return name, bitmaps, err
		}
	}
	return "", nil, fmt.Errorf("%w: no disk has its memory", errNotLoadable)
}

// loadable tells what forbids loading a snapshot into a QEMU, as far as records and
// the observation show it.
func loadable(record *driver.SnapshotRecord, obs driver.Observed, tag string) error {
	var blockers []Blocker
	switch {
	case obs.Presence != driver.Alive || obs.Guest == nil:
		return fmt.Errorf("%w: the machine is %s", errNotLoadable, obs.Presence)
	case record == nil:
		blockers = append(blockers, Blocker{
			Reason: "maqet did not take it, so it is not known which devices it is for", Remedy: "set the disks back with --disks-only",
		})
	case record.Method != manifest.SnapshotFull:
		blockers = append(blockers, Blocker{Reason: "it has no memory", Remedy: "stop the machine first, or say --stop"})
	case record.UID != obs.Guest.UID:
		blockers = append(blockers, Blocker{Reason: "it is of another machine, with the uuid " + record.UID, Remedy: "set the disks back with --disks-only"})
	default:
		for _, difference := range driver.DeviceDifferences(record.Guest, obs.Guest) {
			blockers = append(blockers, Blocker{Reason: difference, Remedy: "it is loaded into a QEMU of its own devices"})
		}
	}
	if len(blockers) > 0 {
		return &BlockedError{Op: "load", Tag: tag, Blockers: blockers}
	}
	return nil
}

// finishLoad tells how the job that loads a snapshot has ended. While it runs the
// error wraps ErrSnapshotRunning; a *JobError is one that failed, and whose disks may
// be those of then or of before. Without a job nothing was begun.
func (s *snapshots) finishLoad(ctx context.Context, vm *manifest.VirtualMachine, req driver.SnapshotIntent) error {
	name := vm.Metadata.Name
	ctx, cancel := s.limit(ctx)
	defer cancel()
	err := s.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		job, err := findJob(ctx, c, req.Job)
		switch {
		case err != nil:
			return err
		case job == nil:
			return fmt.Errorf("QEMU has no job %s", req.Job)
		case job.Status != jobConcluded:
			return fmt.Errorf("%w: QEMU's job %s is %s", ErrSnapshotRunning, job.ID, job.Status)
		case job.Error != "":
			// Not dismissed: it is what tells the next look that this guest must not run on.
			return &JobError{ID: job.ID, Type: job.Type, Reason: job.Error}
		default:
			return dismiss(ctx, c, job.ID)
		}
	})
	if err == nil {
		s.setAt(ctx, name, req.Tag)
	}
	return snapshotError(name, "restore", err)
}

// sawReady notes that the guest of a loaded snapshot is Ready when it was so then:
// it will not say so on its serial line a second time.
func (d *Driver) sawReady(name, tag string, obs driver.Observed) error {
	record, err := d.snapshots().record(name, tag)
	if err != nil || record == nil || record.Launched == nil || record.Launched.ReadyAt.IsZero() || obs.Launched == nil {
		return err
	}
	return d.updateLaunched(name, obs.Launched, func(l *driver.Launched) { l.ReadyAt = time.Now().UTC() })
}

// startedFrom is what a machine is started with to become as it was when a snapshot
// was taken: the object with the recorded spec, and the identity of then.
func startedFrom(vm *manifest.VirtualMachine, now driver.Identity, from *driver.SnapshotRecord) (*manifest.VirtualMachine, driver.Identity, error) {
	l := from.Launched
	if l == nil {
		return nil, driver.Identity{}, fmt.Errorf("the record of snapshot %s does not say how the machine was started", from.Tag)
	}
	if !strings.EqualFold(l.UID, now.UID) {
		return nil, driver.Identity{}, fmt.Errorf("snapshot %s is of a machine with the uuid %s, and this one has %s", from.Tag, l.UID, now.UID)
	}
	then := vm.DeepCopy()
	then.Spec = l.Spec
	id := l.Identity
	id.MACs, id.Slots = maps.Clone(id.MACs), maps.Clone(id.Slots)
	return then, id, nil
}
