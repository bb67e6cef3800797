package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// OwnerSchedule owns the Snapshot objects that schedules made. Only these are deleted
// when they are kept no longer.
const OwnerSchedule = "schedule"

// schedule has a snapshot taken that is due, or one deleted that is kept no longer.
func (p *planner) schedule() {
	want := p.spec.Snapshots
	if want == nil || p.rec.Deleting != nil || p.rec.Restore != nil {
		return
	}
	slot, due := dueSlot(p.rec, p.now)
	if due && p.worthTaking() {
		method := want.Method
		if p.obs.Presence == driver.Absent {
			method = manifest.SnapshotDisk
		}
		p.step(Step{
			Kind: StepScheduleSnapshot, Snapshot: slotTag(p.uid(), slot), Slot: slot, Method: method, Quiesce: want.Quiesce,
			Why: "due at " + slot.Format(time.RFC3339),
		})
		return
	}
	if tag, why := p.expired(); tag != "" {
		p.step(Step{Kind: StepExpireSnapshot, Snapshot: tag, Why: why})
	}
}

// worthTaking tells whether there is anything new to be held: of a machine that has
// not run since the last scheduled snapshot, another would only push older ones out.
func (p *planner) worthTaking() bool {
	if p.obs.Presence == driver.Alive {
		return true
	}
	t := lastTermination(p.rec, &p.obs)
	return p.obs.Presence == driver.Absent && p.hasDisks() && t != nil && t.At.After(p.rec.Scheduled)
}

// longMissed is how far back the newest missed time is looked for, one after another.
const longMissed = 25 * time.Hour

// dueSlot is the newest time not after now that the schedule named and for which no
// snapshot was asked for yet. However many were missed, that is one.
func dueSlot(rec *state.Machine, now time.Time) (slot time.Time, due bool) {
	s, since, ok := scheduleOf(rec)
	if !ok {
		return time.Time{}, false
	}
	return dueSince(s, since, now)
}

// dueSince is the newest time after since and not after now that a schedule names.
func dueSince(s manifest.Schedule, since, now time.Time) (slot time.Time, due bool) {
	first := s.Next(since)
	if first.IsZero() || first.After(now) {
		return time.Time{}, false
	}
	if late := s.Next(now.Add(-longMissed)); first.Before(late) && !late.After(now) {
		first = late
	}
	for {
		next := s.Next(first)
		if next.IsZero() || next.After(now) {
			return first, true
		}
		first = next
	}
}

// nextSlot is when the schedule has the machine looked at again; zero without one.
func nextSlot(rec *state.Machine, now time.Time) time.Time {
	s, _, ok := scheduleOf(rec)
	if !ok {
		return time.Time{}
	}
	return s.Next(now)
}

// scheduleOf is a machine's schedule, and since when it counts: from the last snapshot
// that it asked for, at first from when the manifest was last changed, so that a new
// schedule has missed nothing.
func scheduleOf(rec *state.Machine) (s manifest.Schedule, since time.Time, ok bool) {
	want := rec.Object.Spec.Snapshots
	if want == nil {
		return s, since, false
	}
	s, err := manifest.ParseSchedule(want.Schedule, want.TimeZone)
	since = rec.Scheduled
	if since.IsZero() {
		since = rec.Updated
	}
	return s, since, err == nil
}

// slotTag names the snapshot of a machine for a time. Names of Snapshot objects are
// unique over all machines.
func slotTag(uid string, slot time.Time) string {
	return "auto-" + shortUID(uid) + "-" + slot.UTC().Format("20060102-1504")
}

// expired is a scheduled snapshot that is kept no longer, and why; empty when all are.
func (p *planner) expired() (tag, why string) {
	keep := p.spec.Snapshots.Keep
	var taken []*state.Snapshot
	failed := false
	uid := p.uid()
	for _, s := range scheduledSnapshots(p.want.Snapshots) {
		switch {
		case s.TakenUID == uid && uid != "":
			taken = append(taken, s)
		case s.Failed != "" && failed:
			// The newest failure is shown; what failed before it tells nothing new.
			return s.Object.Metadata.Name, "it was not taken, and neither was a newer one"
		case s.Failed != "" && len(taken) > 0:
			return s.Object.Metadata.Name, "it was not taken, and a newer one was"
		case s.Failed != "":
			failed = true
		}
	}
	if keep == nil {
		return "", ""
	}
	s, _, ok := scheduleOf(p.rec)
	if !ok {
		return "", ""
	}
	kept := keeping(*keep, taken, s.Zone())
	// The oldest goes first: whatever ends this halfway leaves the newer ones.
	for _, old := range slices.Backward(taken) {
		if !kept[old] {
			return old.Object.Metadata.Name, "keep allows " + keepWords(*keep)
		}
	}
	return "", ""
}

// scheduledSnapshots are those that a schedule made and nobody deletes, newest first.
func scheduledSnapshots(all []*state.Snapshot) []*state.Snapshot {
	var own []*state.Snapshot
	for _, s := range all {
		if s.Owner == OwnerSchedule && s.Deleting == nil {
			own = append(own, s)
		}
	}
	slices.SortFunc(own, func(a, b *state.Snapshot) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(b.Object.Metadata.Name, a.Object.Metadata.Name))
	})
	return own
}

// keeping are the snapshots, newest first, that one of the counts keeps.
func keeping(keep manifest.Keep, taken []*state.Snapshot, zone *time.Location) map[*state.Snapshot]bool {
	times := make([]time.Time, len(taken))
	for i, s := range taken {
		times[i] = s.Created
	}
	kept := map[*state.Snapshot]bool{}
	for i, keeps := range keep.Keeps(times, zone) {
		if keeps {
			kept[taken[i]] = true
		}
	}
	return kept
}

// keepWords say what is kept.
func keepWords(k manifest.Keep) string {
	var words []string
	for _, part := range []struct {
		count int
		what  string
	}{{k.Last, "last"}, {k.Hourly, "hourly"}, {k.Daily, "daily"}, {k.Weekly, "weekly"}, {k.Monthly, "monthly"}} {
		if part.count > 0 {
			words = append(words, fmt.Sprintf("%d %s", part.count, part.what))
		}
	}
	return strings.Join(words, ", ")
}

// newScheduled is the Snapshot object that a step makes.
func newScheduled(vm, who string, s Step) (*state.Snapshot, error) {
	object := manifest.ResolveSnapshot(&manifest.Snapshot{
		APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot, Metadata: manifest.Metadata{Name: s.Snapshot},
		Spec: manifest.SnapshotSpec{VirtualMachine: vm, Method: s.Method, Quiesce: s.Quiesce, OnDelete: manifest.SnapshotDelete},
	})
	whole, err := manifest.NewObject(object)
	if err != nil {
		return nil, err
	}
	// What counts is the time that the schedule named, however late it is taken.
	return &state.Snapshot{
		Object: *object, Owner: OwnerSchedule, Source: who, Generation: 1, Digest: whole.Digest, Created: s.Slot,
	}, nil
}

// schedule makes the object of a snapshot that is due, or has one deleted. That it was
// asked for is remembered in the same transaction, or it would be asked for again.
func (x *execution) schedule(ctx context.Context, s Step) error {
	now := x.run.e.cfg.Now()
	if s.Kind == StepExpireSnapshot {
		expire := func(snap *state.Snapshot) {
			if snap.Owner == OwnerSchedule && snap.Deleting == nil {
				snap.Deleting = &state.Deletion{Since: now, Who: OwnerSchedule, DeleteDisks: snap.TakenUID != ""}
			}
		}
		if snap := x.want.snapshot(s.Snapshot); snap != nil {
			expire(snap)
		}
		return x.run.updateSnapshot(ctx, s.Snapshot, expire)
	}
	snap, err := newScheduled(x.run.name, x.run.e.cfg.Who, s)
	if err != nil {
		return err
	}
	err = x.run.e.cfg.Store.Update(ctx, func(tx Tx) error {
		m, err := tx.Machine(x.run.name)
		if err != nil || m == nil {
			return err
		}
		m.Scheduled = s.Slot
		if err := tx.PutMachine(m); err != nil {
			return err
		}
		return tx.PutSnapshot(snap)
	})
	if err != nil {
		return x.run.recordError(err)
	}
	x.want.Machine.Scheduled = s.Slot
	x.want.Snapshots = append(x.want.Snapshots, snap)
	return nil
}
