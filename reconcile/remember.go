package reconcile

import (
	"context"
	"maps"
	"slices"

	"github.com/maqet/maqet/state"
)

// remember writes what changed of the record while a machine was converged, in
// one transaction and only if something did. Others may have written the
// record since, so only what belongs to a pass is changed in it.
func (r *run) remember(ctx context.Context, want Desired) error {
	if r.known == nil || want.Machine == nil || r.known.Machine == nil {
		return nil
	}
	conditions := r.result.Status.Conditions
	before, after := r.known.Machine, want.Machine
	counted := before.Starts != after.Starts || before.UID != after.UID ||
		before.Failures != after.Failures || !before.NotBefore.Equal(after.NotBefore)
	news := r.news(before.Conditions)
	if !counted && len(news) == 0 && sameConditions(before.Conditions, conditions) {
		return nil
	}
	want = copyDesired(want)
	want.Machine.Conditions = conditions
	r.known = &want
	err := r.update(ctx, func(m *state.Machine) {
		// Another process may have seen the same, and told of it.
		news = r.news(m.Conditions)
		m.Conditions = conditions
		if counted {
			m.UID, m.Starts, m.Restarts = after.UID, after.Starts, after.Restarts
			m.StartedGeneration, m.LastTermination, m.Unmet = after.StartedGeneration, after.LastTermination, after.Unmet
			m.Failures, m.NotBefore = after.Failures, after.NotBefore
		}
		if before.Starts != after.Starts {
			m.StartedDisks = after.StartedDisks
			overRecreations(m, before)
		}
	})
	if err == nil {
		// What could not be remembered would be news again at the next look.
		r.events = append(r.events, news...)
	}
	return err
}

// overRecreations ends the words that a start has seen through. One that came
// since is left alone.
func overRecreations(m, before *state.Machine) {
	m.Recreate = maps.Clone(m.Recreate)
	maps.DeleteFunc(m.Recreate, func(disk string, w state.Recreation) bool {
		old, said := before.Recreate[disk]
		return said && old.From == w.From && old.To == w.To && old.Since.Equal(w.Since)
	})
}

// update changes the machine's record, if there is one still.
func (r *run) update(ctx context.Context, change func(*state.Machine)) error {
	ctx, cancel := context.WithTimeout(ctx, r.e.cfg.Timing.Lock)
	defer cancel()
	err := r.e.cfg.Store.Update(ctx, func(tx Tx) error {
		m, err := tx.Machine(r.name)
		if err != nil || m == nil {
			return err
		}
		change(m)
		return tx.PutMachine(m)
	})
	return r.recordError(err)
}

// updateSnapshot changes a Snapshot object's record, if there is one still.
func (r *run) updateSnapshot(ctx context.Context, tag string, change func(*state.Snapshot)) error {
	ctx, cancel := context.WithTimeout(ctx, r.e.cfg.Timing.Lock)
	defer cancel()
	err := r.e.cfg.Store.Update(ctx, func(tx Tx) error {
		s, err := tx.Snapshot(tag)
		if err != nil || s == nil {
			return err
		}
		change(s)
		return tx.PutSnapshot(s)
	})
	return r.recordError(err)
}

func (r *run) recordError(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Object: "vm/" + r.name, Op: "write the record of", Err: err}
}

// sameConditions compares what conditions say, not since when.
func sameConditions(a, b []state.Condition) bool {
	return slices.EqualFunc(a, b, func(x, y state.Condition) bool {
		return x.Type == y.Type && x.Status == y.Status && x.Reason == y.Reason && x.ObservedGeneration == y.ObservedGeneration
	})
}
