package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/maqet/maqet/state"
)

// stateMachine keeps the simulated host's lines short.
type stateMachine = state.Machine

// memStore is a store in memory. Records go in and out as JSON, so nobody
// shares them.
type memStore struct {
	// turns orders the transactions; nil lets all go on at once.
	turns *simTurns

	mu       sync.Mutex
	machines map[string][]byte
	snaps    map[string][]byte
	images   map[string][]byte
	// updates counts writing transactions.
	updates int
	// fail makes writing fail.
	fail error
	// warnings are of records that are lost.
	warnings []error
}

func newMemStore() *memStore {
	return &memStore{machines: map[string][]byte{}, snaps: map[string][]byte{}, images: map[string][]byte{}}
}

// memTx is one transaction: a copy that is put back when it succeeds.
type memTx struct {
	machines, snaps, images map[string][]byte
	warnings                []error
}

func (tx *memTx) Warnings() []error { return tx.warnings }

func (s *memStore) View(ctx context.Context, do func(Tx) error) error {
	if s.turns != nil {
		s.turns.wait(ctx, s.about(do))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return do(&memTx{maps.Clone(s.machines), maps.Clone(s.snaps), maps.Clone(s.images), s.warnings})
}

// about is what a transaction begins with reading, in words. It finds nothing.
func (s *memStore) about(do func(Tx) error) string {
	tx := &namingTx{words: "view"}
	_ = do(tx) // When it is read in earnest the error comes again.
	return tx.words
}

// namingTx is an empty transaction that notes what is read in it.
type namingTx struct {
	memTx
	words string
}

func (tx *namingTx) Machine(name string) (*state.Machine, error) {
	tx.words += " " + name
	return tx.memTx.Machine(name)
}

func (tx *namingTx) Machines() ([]*state.Machine, error) {
	tx.words += " machines"
	return tx.memTx.Machines()
}

func (s *memStore) Update(ctx context.Context, do func(Tx) error) error {
	s.turns.wait(ctx, "update")
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := &memTx{maps.Clone(s.machines), maps.Clone(s.snaps), maps.Clone(s.images), s.warnings}
	if err := do(tx); err != nil {
		return err
	}
	// What changes nothing is not written, by the real store either.
	same := maps.EqualFunc(tx.machines, s.machines, bytes.Equal) && maps.EqualFunc(tx.snaps, s.snaps, bytes.Equal)
	if s.fail != nil && !same {
		return s.fail
	}
	s.updates++
	s.machines, s.snaps, s.images = tx.machines, tx.snaps, tx.images
	return nil
}

// written is how many transactions have written.
func (s *memStore) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

func (s *memStore) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func fromJSON[T any](text []byte) (*T, error) {
	if text == nil {
		return nil, nil //nolint:nilnil // Nothing is what the interface says for an unknown name.
	}
	out := new(T)
	return out, json.Unmarshal(text, out)
}

func listJSON[T any](all map[string][]byte, match func(*T) bool) ([]*T, error) {
	var out []*T
	for _, name := range slices.Sorted(maps.Keys(all)) {
		one, err := fromJSON[T](all[name])
		if err != nil {
			return nil, err
		}
		if match(one) {
			out = append(out, one)
		}
	}
	return out, nil
}

func (tx *memTx) Machine(name string) (*state.Machine, error) {
	return fromJSON[state.Machine](tx.machines[name])
}

func (tx *memTx) Machines() ([]*state.Machine, error) {
	return listJSON(tx.machines, func(*state.Machine) bool { return true })
}

func (tx *memTx) PutMachine(m *state.Machine) (err error) {
	tx.machines[m.Object.Metadata.Name], err = json.Marshal(m)
	return err
}

func (tx *memTx) DeleteMachine(name string) error {
	delete(tx.machines, name)
	return nil
}

func (tx *memTx) Snapshot(name string) (*state.Snapshot, error) {
	return fromJSON[state.Snapshot](tx.snaps[name])
}

func (tx *memTx) Snapshots() ([]*state.Snapshot, error) {
	return listJSON(tx.snaps, func(*state.Snapshot) bool { return true })
}

func (tx *memTx) SnapshotsOf(vm string) ([]*state.Snapshot, error) {
	return listJSON(tx.snaps, func(s *state.Snapshot) bool { return s.Object.Spec.VirtualMachine == vm })
}

func (tx *memTx) PutSnapshot(s *state.Snapshot) (err error) {
	tx.snaps[s.Object.Metadata.Name], err = json.Marshal(s)
	return err
}

func (tx *memTx) DeleteSnapshot(name string) error {
	delete(tx.snaps, name)
	return nil
}

func (tx *memTx) Image(name string) (*state.Image, error) {
	return fromJSON[state.Image](tx.images[name])
}

func (tx *memTx) Images() ([]*state.Image, error) {
	return listJSON(tx.images, func(*state.Image) bool { return true })
}

func (tx *memTx) PutImage(i *state.Image) (err error) {
	tx.images[i.Object.Metadata.Name], err = json.Marshal(i)
	return err
}

func (tx *memTx) DeleteImage(name string) error {
	delete(tx.images, name)
	return nil
}
