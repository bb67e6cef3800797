package state_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/state"
)

var errUndo = errors.New("undo")

// model is what the store should hold: a number by name.
type model struct {
	machines  map[string]int
	snapshots map[string]string // the machine of each
}

func (m model) clone() model { return model{maps.Clone(m.machines), maps.Clone(m.snapshots)} }

// TestStore_randomTransactions_matchModel compares the store with two maps,
// over transactions of random changes, some of which are undone.
func TestStore_randomTransactions_matchModel(t *testing.T) {
	vm := rapid.SampledFrom([]string{"a", "b", "c", "d", "a-long-name-of-a-machine", "zz"})
	snap := rapid.SampledFrom([]string{"s1", "s2", "s3"})
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		other := f.another(t)
		want := model{map[string]int{}, map[string]string{}}
		for range rapid.IntRange(1, 8).Draw(rt, "transactions") {
			next := want.clone()
			undo := rapid.Bool().Draw(rt, "undo")
			s := []*state.Store{f.Store, other}[rapid.IntRange(0, 1).Draw(rt, "store")]
			err := s.Update(t.Context(), func(tx *state.Tx) error {
				for range rapid.IntRange(0, 6).Draw(rt, "changes") {
					if err := next.change(rt, tx, vm.Draw(rt, "vm"), snap.Draw(rt, "snap")); err != nil {
						return err
					}
				}
				next.check(rt, tx)
				if undo {
					return errUndo
				}
				return nil
			})
			switch {
			case undo && !errors.Is(err, errUndo), !undo && err != nil:
				rt.Fatalf("Update: %v", err)
			case !undo:
				want = next
			}
			mustView(t, f.Store, func(tx *state.Tx) error {
				want.check(rt, tx)
				return nil
			})
		}
	})
}

// change makes one random change to both.
func (m model) change(rt *rapid.T, tx *state.Tx, vm, snap string) error {
	switch rapid.IntRange(0, 3).Draw(rt, "kind") {
	case 0:
		record := machine(vm)
		record.Restarts = rapid.IntRange(0, 1000).Draw(rt, "restarts")
		m.machines[vm] = record.Restarts
		return tx.PutMachine(record)
	case 1:
		delete(m.machines, vm)
		return tx.DeleteMachine(vm)
	case 2:
		m.snapshots[snap] = vm
		return tx.PutSnapshot(snapshot(snap, vm))
	default:
		delete(m.snapshots, snap)
		return tx.DeleteSnapshot(snap)
	}
}

// check compares everything that a transaction can be asked.
func (m model) check(rt *rapid.T, tx *state.Tx) {
	all, err := tx.Machines()
	if err != nil {
		rt.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range all {
		got[r.Object.Metadata.Name] = r.Restarts
	}
	if diff := cmp.Diff(m.machines, got); diff != "" || !slices.IsSorted(names(all)) {
		rt.Fatalf("machines (-want +got):\n%s%v", diff, names(all))
	}
	snapshots, err := tx.Snapshots()
	if err != nil {
		rt.Fatal(err)
	}
	gotSnapshots := map[string]string{}
	for _, r := range snapshots {
		gotSnapshots[r.Object.Metadata.Name] = r.Object.Spec.VirtualMachine
	}
	if diff := cmp.Diff(m.snapshots, gotSnapshots); diff != "" {
		rt.Fatalf("snapshots (-want +got):\n%s", diff)
	}
	if warnings := tx.Warnings(); len(warnings) > 0 {
		rt.Fatalf("warnings: %v", warnings)
	}
}
