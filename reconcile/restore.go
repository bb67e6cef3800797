package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/state"
)

// startFrom starts a machine as a snapshot's record says. A start that fails before
// anything was loaded ends the restore; one after a failed load is the last resort.
func (x *execution) startFrom(ctx context.Context, s Step, from *driver.SnapshotRecord) error {
	m := x.want.Machine
	if from == nil {
		return x.endRestore(ctx, errors.New("there is no record of snapshot "+s.Snapshot))
	}
	generation := int64(0) // what runs then is no generation of this manifest
	if asThen(m, from) {
		generation = m.Generation
	}
	cold := m.Restore != nil && m.Restore.Failed != ""
	_, err := x.run.e.cfg.Ports.Power.Start(ctx, driver.StartRequest{VM: x.want.vm(), Generation: generation, Paused: s.Paused, From: from})
	writing := context.WithoutCancel(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil && cold:
		why := err.Error()
		return errors.Join(err, x.restoring(writing, func(r *state.Restore) { r.GaveUp = why }))
	case err != nil:
		return x.endRestore(writing, err)
	case cold:
		// The guest boots, as after a loss of power: that is how it ends.
		err = x.endRestore(writing, nil)
	default:
		err = x.restoring(writing, func(r *state.Restore) { r.Launched = true })
	}
	started(m, "")
	if generation == 0 {
		m.StartedGeneration, m.StartedDisks = 0, nil
	}
	return err
}

// restore executes a step of a restore; brief bounds those that only write something.
func (x *execution) restore(ctx, brief context.Context, s Step) error {
	if s.Kind == StepLoadSnapshot {
		return x.load(ctx, s)
	}
	if s.Kind == StepFinishLoad {
		return x.finishLoad(ctx, s)
	}
	if s.Kind == StepFailRestore {
		return x.failRestore(brief, s)
	}
	if s.Kind == StepRevertDisks {
		return x.revertDisks(ctx, s)
	}
	return x.endRestore(brief, nil)
}

// load writes down that a snapshot is being loaded, and begins to.
func (x *execution) load(ctx context.Context, s Step) error {
	ports := x.run.e.cfg.Ports
	calmly := context.WithoutCancel(ctx)
	if err := ports.Records.WriteIntent(ctx, x.run.name, s.Intent); err != nil {
		return err
	}
	bitmaps, err := ports.Snapshots.LoadSnapshot(ctx, x.want.vm(), x.obs, s.request())
	x.lostBitmaps(bitmaps, err)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return x.endRestore(calmly, errors.Join(err, ports.Records.WriteIntent(calmly, x.run.name, nil)))
}

// finishLoad ends a restore that has succeeded.
func (x *execution) finishLoad(ctx context.Context, s Step) error {
	ports := x.run.e.cfg.Ports
	calmly := context.WithoutCancel(ctx)
	if err := ports.Snapshots.FinishLoad(ctx, x.want.vm(), x.obs, s.request()); err != nil {
		return err
	}
	// The intent goes last: while it is there nobody continues the guest, and once the
	// restore is over nobody loads the snapshot again.
	return errors.Join(x.endRestore(calmly, nil), ports.Records.WriteIntent(calmly, x.run.name, nil))
}

// failRestore notes that loading failed halfway. From then on this guest is never
// continued.
func (x *execution) failRestore(ctx context.Context, s Step) error {
	if err := x.restoring(ctx, func(r *state.Restore) { r.Failed = s.Why }); err != nil {
		return err
	}
	return x.run.e.cfg.Ports.Records.WriteIntent(ctx, x.run.name, nil)
}

// revertDisks sets the disks of a stopped machine back.
func (x *execution) revertDisks(ctx context.Context, s Step) error {
	report, err := x.run.e.cfg.Ports.Snapshots.RestoreSnapshot(ctx, x.want.vm(), x.obs, s.Snapshot)
	x.lostBitmaps(report.Bitmaps, err)
	calmly := context.WithoutCancel(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return x.endRestore(calmly, err)
	}
	x.run.result.Restored = &report
	return x.endRestore(calmly, nil)
}

// lostBitmaps tells of dirty bitmaps that a restore removed: with the step that did, or
// at once when that has failed.
func (x *execution) lostBitmaps(bitmaps map[string][]string, failed error) {
	var words []string
	for _, disk := range slices.Sorted(maps.Keys(bitmaps)) {
		words = append(words, strings.Join(bitmaps[disk], ", ")+" of "+disk)
	}
	if len(words) == 0 {
		return
	}
	x.bitmaps = "dirty bitmaps removed: " + strings.Join(words, ", ") + "; the next backup of that is a full one"
	if failed != nil {
		x.run.happened(state.EventNormal, state.EventRestoring, x.bitmaps)
		x.run.e.tell(Event{Machine: x.run.name, Message: x.bitmaps, Done: true})
	}
}

// endRestore ends the restore, and returns why.
func (x *execution) endRestore(ctx context.Context, cause error) error {
	over := x.want.Machine.Restore
	x.want.Machine.Restore = nil
	err := x.run.update(context.WithoutCancel(ctx), func(m *state.Machine) {
		if sameRestore(m.Restore, over) {
			m.Restore = nil
		}
	})
	return errors.Join(cause, err)
}

// restoring changes the restore that is under way.
func (x *execution) restoring(ctx context.Context, change func(*state.Restore)) error {
	now := x.want.Machine.Restore
	if now == nil {
		return nil
	}
	next := *now
	change(&next)
	x.want.Machine.Restore = &next
	return x.run.update(ctx, func(m *state.Machine) {
		if sameRestore(m.Restore, now) {
			r := next
			m.Restore = &r
		}
	})
}

// sameRestore tells that both are of one request.
func sameRestore(a, b *state.Restore) bool {
	return a != nil && b != nil && a.Snapshot == b.Snapshot && a.Since.Equal(b.Since)
}
