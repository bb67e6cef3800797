package reconcile

import (
	"context"

	"github.com/maqet/maqet/state"
)

// MachineTx reads and writes machines within one transaction.
type MachineTx interface {
	// Machine is nil without an error for a name that is not remembered.
	Machine(name string) (*state.Machine, error)
	Machines() ([]*state.Machine, error)
	PutMachine(m *state.Machine) error
	DeleteMachine(name string) error
}

// SnapshotTx reads and writes Snapshot objects within one transaction.
type SnapshotTx interface {
	// Snapshot is nil without an error for a name that is not remembered.
	Snapshot(name string) (*state.Snapshot, error)
	Snapshots() ([]*state.Snapshot, error)
	SnapshotsOf(vm string) ([]*state.Snapshot, error)
	PutSnapshot(s *state.Snapshot) error
	DeleteSnapshot(name string) error
}

// ImageTx reads and writes Image objects within one transaction.
type ImageTx interface {
	// Image is nil without an error for a name that is not remembered.
	Image(name string) (*state.Image, error)
	Images() ([]*state.Image, error)
	PutImage(i *state.Image) error
	DeleteImage(name string) error
}

// Tx is one transaction of a Store.
type Tx interface {
	MachineTx
	SnapshotTx
	ImageTx
	// Warnings are of records that are lost, and read as if they were not there.
	Warnings() []error
}

// Store remembers objects in short transactions.
type Store interface {
	View(ctx context.Context, do func(Tx) error) error
	Update(ctx context.Context, do func(Tx) error) error
}

// transactional is a store with its own type of transaction, such as *state.Store.
type transactional[T Tx] interface {
	View(ctx context.Context, do func(T) error) error
	Update(ctx context.Context, do func(T) error) error
}

// StoreOf makes a Store of anything that has such transactions: StoreOf(stateStore).
func StoreOf[T Tx](s transactional[T]) Store { return storeOf[T]{s} }

type storeOf[T Tx] struct{ inner transactional[T] }

func (s storeOf[T]) View(ctx context.Context, do func(Tx) error) error {
	return s.inner.View(ctx, func(tx T) error { return do(tx) })
}

func (s storeOf[T]) Update(ctx context.Context, do func(Tx) error) error {
	return s.inner.Update(ctx, func(tx T) error { return do(tx) })
}
