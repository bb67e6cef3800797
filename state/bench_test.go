package state_test

import (
	"fmt"
	"testing"

	"github.com/maqet/maqet/state"
)

func fifty(b *testing.B) *fixture {
	b.Helper()
	f := newFixture(b)
	mustUpdate(b, f.Store, func(tx *state.Tx) error {
		for i := range 50 {
			if err := tx.PutMachine(machine(fmt.Sprintf("vm-%02d", i))); err != nil {
				return err
			}
		}
		return nil
	})
	return f
}

// BenchmarkStore_View reads one of 50 machines.
func BenchmarkStore_View(b *testing.B) {
	f := fifty(b)
	for b.Loop() {
		mustView(b, f.Store, func(tx *state.Tx) error {
			_, err := tx.Machine("vm-25")
			return err
		})
	}
}

// BenchmarkStore_ViewAll reads all of 50 machines.
func BenchmarkStore_ViewAll(b *testing.B) {
	f := fifty(b)
	for b.Loop() {
		mustView(b, f.Store, func(tx *state.Tx) error {
			_, err := tx.Machines()
			return err
		})
	}
}

// BenchmarkStore_Update changes one of 50 machines, each time in an opening of its own.
func BenchmarkStore_Update(b *testing.B) {
	f := fifty(b)
	for b.Loop() {
		mustUpdate(b, f.Store, func(tx *state.Tx) error { return addTo(tx, "vm-25") })
	}
}

// BenchmarkStore_UpdateShared changes one of 50 machines from many goroutines.
func BenchmarkStore_UpdateShared(b *testing.B) {
	f := fifty(b)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f.Update(b.Context(), func(tx *state.Tx) error { return addTo(tx, "vm-25") }); err != nil {
				b.Error(err)
			}
		}
	})
}
