package reconcile

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

var errFull = errors.New("no space left on device")

// keeper is a memory over a store that may take nothing.
type keeper struct {
	*memory
	stored *memStore
	told   []error
}

func newKeeper() *keeper {
	k := &keeper{stored: newMemStore()}
	k.memory = newMemory(k.stored, func(err error) { k.told = append(k.told, err) })
	return k
}

func putMachine(ctx context.Context, s Store, name string, starts int) error {
	return s.Update(ctx, func(tx Tx) error {
		return tx.PutMachine(&state.Machine{Object: *newVM(name), Starts: starts})
	})
}

func deleteMachine(ctx context.Context, s Store, name string) error {
	return s.Update(ctx, func(tx Tx) error { return tx.DeleteMachine(name) })
}

// starts are the machines of a store and how often they were started.
func starts(t *testing.T, s Store) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := s.View(t.Context(), func(tx Tx) error {
		machines, err := tx.Machines()
		for _, m := range machines {
			name := m.Object.Metadata.Name
			out[name] = m.Starts
			if one, err := tx.Machine(name); err != nil || one == nil || one.Starts != m.Starts {
				return fmt.Errorf("%s alone: %+v, %w", name, one, err)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (k *keeper) expect(t *testing.T, read, stored map[string]int) {
	t.Helper()
	if diff := cmp.Diff(read, starts(t, k)); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(stored, starts(t, k.stored)); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestMemory_storeTakesNothing_keepsShowsAndWritesLater(t *testing.T) {
	k := newKeeper()
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		if err := putMachine(ctx, k, name, 1); err != nil {
			t.Fatal(err)
		}
	}
	k.stored.fail = errFull
	if err := errors.Join(putMachine(ctx, k, "a", 2), putMachine(ctx, k, "c", 1), deleteMachine(ctx, k, "b")); err != nil {
		t.Fatalf("update: %v", err)
	}
	k.expect(t, map[string]int{"a": 2, "c": 1}, map[string]int{"a": 1, "b": 1})
	if err := putMachine(ctx, k, "a", 3); err != nil {
		t.Fatal(err)
	}
	k.expect(t, map[string]int{"a": 3, "c": 1}, map[string]int{"a": 1, "b": 1})
	if err := k.retry(ctx); !errors.Is(err, errFull) || !k.pending() {
		t.Errorf("retry: %v, pending %v", err, k.pending())
	}
	k.stored.fail = nil
	if err := k.retry(ctx); err != nil || k.pending() {
		t.Errorf("retry: %v, pending %v", err, k.pending())
	}
	k.expect(t, map[string]int{"a": 3, "c": 1}, map[string]int{"a": 3, "c": 1})
	if len(k.told) != 2 || !errors.Is(k.told[0], errFull) || k.told[1] != nil {
		t.Errorf("told: %v", k.told)
	}
}

func TestMemory_snapshots_areKeptToo(t *testing.T) {
	k := newKeeper()
	ctx := t.Context()
	put := func(name, failed string) error {
		return k.Update(ctx, func(tx Tx) error {
			s := newSnap(name, "web", manifest.SnapshotDisk)
			s.Failed = failed
			return tx.PutSnapshot(s)
		})
	}
	read := func(s Store) map[string]string {
		out := map[string]string{}
		err := s.View(ctx, func(tx Tx) error {
			all, err := tx.Snapshots()
			of, errOf := tx.SnapshotsOf("web")
			for _, snap := range of {
				one, err := tx.Snapshot(snap.Object.Metadata.Name)
				if err != nil {
					return err
				}
				out[one.Object.Metadata.Name] = one.Failed
			}
			if len(all) != len(of) {
				return fmt.Errorf("%d snapshots in all, %d of web", len(all), len(of))
			}
			return errors.Join(err, errOf)
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if err := errors.Join(put("s1", ""), put("s2", "")); err != nil {
		t.Fatal(err)
	}
	k.stored.fail = errFull
	remove := func(tx Tx) error { return tx.DeleteSnapshot("s2") }
	if err := errors.Join(put("s1", "x"), put("s3", ""), k.Update(ctx, remove)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"s1": "x", "s3": ""}
	if diff := cmp.Diff(want, read(k)); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	k.stored.fail = nil
	if err := k.retry(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, read(k.stored)); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestMemory_anotherWroteMeanwhile_standsOverWhatIsKept(t *testing.T) {
	k := newKeeper()
	ctx := t.Context()
	if err := errors.Join(putMachine(ctx, k, "a", 1), putMachine(ctx, k, "b", 1)); err != nil {
		t.Fatal(err)
	}
	k.stored.fail = errFull
	if err := errors.Join(putMachine(ctx, k, "a", 2), putMachine(ctx, k, "b", 2)); err != nil {
		t.Fatal(err)
	}
	k.stored.fail = nil
	if err := putMachine(ctx, k.stored, "a", 7); err != nil {
		t.Fatal(err)
	}
	k.expect(t, map[string]int{"a": 7, "b": 2}, map[string]int{"a": 7, "b": 1})
	if err := k.retry(ctx); err != nil {
		t.Fatal(err)
	}
	k.expect(t, map[string]int{"a": 7, "b": 2}, map[string]int{"a": 7, "b": 2})
}

func TestMemory_refusedByTheCaller_isNoFault(t *testing.T) {
	k := newKeeper()
	if err := k.Update(t.Context(), func(Tx) error { return ErrOwned }); !errors.Is(err, ErrOwned) || k.pending() {
		t.Errorf("error %v, pending %v", err, k.pending())
	}
}

func TestLasting_storeTakesNothing_keepsNothing(t *testing.T) {
	k := newKeeper()
	k.stored.fail = errFull
	if err := putMachine(t.Context(), lasting{k.memory}, "a", 1); !errors.Is(err, errFull) {
		t.Errorf("error: %v", err)
	}
	k.expect(t, map[string]int{}, map[string]int{})
	if len(k.told) != 1 {
		t.Errorf("told: %v", k.told)
	}
}

// TestMemoryLaws_anyFaults_readsWhatWasWritten compares a memory over a store
// that fails at random with a map, and the store with it in the end.
func TestMemoryLaws_anyFaults_readsWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := newKeeper()
		want := map[string]int{}
		for i := range rapid.IntRange(1, 30).Draw(rt, "writes") {
			k.stored.fail = nil
			if rapid.Bool().Draw(rt, "full") {
				k.stored.fail = errFull
			}
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name")
			var err error
			if rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
				delete(want, name)
				err = deleteMachine(t.Context(), k, name)
			} else {
				want[name] = i
				err = putMachine(t.Context(), k, name, i)
			}
			if err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(want, starts(t, k)); diff != "" {
				rt.Fatalf("read (-want +got):\n%s", diff)
			}
		}
		k.stored.fail = nil
		if err := k.retry(t.Context()); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, starts(t, k.stored)); diff != "" {
			rt.Fatalf("stored (-want +got):\n%s", diff)
		}
	})
}
