package reconcile

import (
	"path/filepath"
	"testing"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func TestStoreOf_realStore_keepsRecords(t *testing.T) {
	dir := t.TempDir()
	inner := state.New(state.Config{Path: filepath.Join(dir, "state.db"), LockPath: filepath.Join(dir, "db.lock")})
	t.Cleanup(func() {
		if err := inner.Close(); err != nil {
			t.Error(err)
		}
	})
	store := StoreOf(inner)
	snap := newSnap("s", "web", manifest.SnapshotDisk)
	err := store.Update(t.Context(), func(tx Tx) error {
		if err := tx.PutSnapshot(snap); err != nil {
			return err
		}
		return tx.PutMachine(&state.Machine{Object: *newVM("web"), Owner: "o", Generation: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	e := NewEngine(Config{Store: store})
	want, err := e.desired(t.Context(), "web")
	if err != nil || want.Machine == nil || want.Machine.Owner != "o" || len(want.Snapshots) != 1 {
		t.Errorf("want %+v, error %v", want, err)
	}
	if want, err = e.desired(t.Context(), "nobody"); err != nil || want.Machine != nil {
		t.Errorf("want %+v, error %v", want, err)
	}
}
