package reconcile

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// writes is a change of a store, which the test insists on.
func writes(t *testing.T, s Store, do func(Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), do); err != nil {
		t.Fatal(err)
	}
}

func putting(name, owner string) func(Tx) error {
	return func(tx Tx) error { return tx.PutMachine(&state.Machine{Object: *newVM(name), Owner: owner}) }
}

func TestWitness_changed_tellsWhatOthersWrote(t *testing.T) {
	snap := newSnap("nightly", "web", manifest.SnapshotDisk)
	tests := []struct {
		name string
		do   func(t *testing.T, own, others Store)
		want []string
	}{
		{"nothing", func(*testing.T, Store, Store) {}, nil},
		{"its own write", func(t *testing.T, own, _ Store) {
			writes(t, own, putting("web", "watch"))
			writes(t, own, putting("new", "watch"))
			writes(t, own, func(tx Tx) error { return tx.DeleteMachine("db") })
			writes(t, own, func(tx Tx) error { return errors.Join(putting("web", "1")(tx), putting("web", "2")(tx)) })
		}, nil},
		{"its own snapshot", func(t *testing.T, own, _ Store) {
			writes(t, own, func(tx Tx) error { return tx.PutSnapshot(snap) })
			writes(t, own, func(tx Tx) error { return tx.DeleteSnapshot("old") })
		}, nil},
		{"another's machine", func(t *testing.T, _, others Store) { writes(t, others, putting("web", "ann")) }, []string{"web"}},
		{"a new machine", func(t *testing.T, _, others Store) { writes(t, others, putting("hand", "ann")) }, []string{"hand"}},
		{"a deleted machine", func(t *testing.T, _, others Store) {
			writes(t, others, func(tx Tx) error { return tx.DeleteMachine("db") })
		}, []string{"db"}},
		{"another's snapshots", func(t *testing.T, _, others Store) {
			writes(t, others, func(tx Tx) error { return errors.Join(tx.PutSnapshot(snap), tx.DeleteSnapshot("old")) })
		}, []string{"db", "web"}},
		{"below its own write", func(t *testing.T, own, others Store) {
			writes(t, others, putting("web", "ann"))
			writes(t, others, func(tx Tx) error { return tx.PutSnapshot(newSnap("old", "db", manifest.SnapshotFull)) })
			writes(t, own, func(tx Tx) error { return errors.Join(putting("web", "watch")(tx), tx.DeleteSnapshot("old")) })
		}, []string{"db", "web"}},
		{"over its own write", func(t *testing.T, own, others Store) {
			writes(t, own, putting("web", "watch"))
			writes(t, others, putting("web", "ann"))
		}, []string{"web"}},
		{"a write of its own that failed", func(t *testing.T, own, others Store) {
			err := own.Update(t.Context(), func(tx Tx) error { return errors.Join(putting("web", "watch")(tx), errors.New("no")) })
			if err == nil {
				t.Error("it was written")
			}
			writes(t, others, putting("web", "watch"))
		}, []string{"web"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := newMemStore()
			writes(t, store, func(tx Tx) error {
				return errors.Join(putting("web", "o")(tx), putting("db", "o")(tx), tx.PutSnapshot(newSnap("old", "db", manifest.SnapshotDisk)))
			})
			w := newWitness(store)
			if _, err := w.changed(t.Context()); err != nil {
				t.Fatal(err)
			}
			tt.do(t, w, store)
			for i, want := range [][]string{tt.want, nil} {
				got, err := w.changed(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the %dth time (-want +got):\n%s", i+1, diff)
				}
			}
		})
	}
}
