package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/maqet/maqet/state"
)

// memory is a Store that outlives a state dir that takes nothing, as on a full
// disk: what cannot be written is kept in memory, shown to whoever reads through
// it, and written as soon as that is possible. What others have written
// meanwhile stands over it.
type memory struct {
	inner Store
	// told is called when writing begins to fail, with why, and with nil when
	// it succeeds again.
	told func(error)
	// updating lets one Update at a time through: what one keeps must not be
	// taken for what another has written.
	updating chan struct{}

	mu        sync.Mutex
	machines  map[string]kept[state.Machine]
	snapshots map[string]kept[state.Snapshot]
	failing   bool
}

// kept is a record that could not be written.
type kept[T any] struct {
	// before is the stored record that it replaces, as JSON; nil when there was none.
	before []byte
	// after is the record, nil when it is deleted.
	after *T
}

func newMemory(inner Store, told func(error)) *memory {
	return &memory{inner: inner, told: told, updating: make(chan struct{}, 1), machines: map[string]kept[state.Machine]{}, snapshots: map[string]kept[state.Snapshot]{}}
}

// View reads what is stored with what is kept over it.
func (m *memory) View(ctx context.Context, do func(Tx) error) error {
	return m.inner.View(ctx, func(tx Tx) error { return do(m.over(tx)) })
}

// Update writes, together with what is kept. When the store takes nothing, it
// keeps that too, and there is no error.
func (m *memory) Update(ctx context.Context, do func(Tx) error) error {
	return m.update(ctx, do, m.instead)
}

// update writes, or does something instead when the store takes nothing.
func (m *memory) update(ctx context.Context, do func(Tx) error, instead func(context.Context, func(Tx) error, error) error) error {
	select {
	case m.updating <- struct{}{}:
		defer func() { <-m.updating }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var (
		refused error
		over    *overlay
	)
	err := m.inner.Update(ctx, func(tx Tx) error {
		over = m.over(tx)
		// What is kept is written, or stands no more since others could write.
		over.wrote = len(over.machines)+len(over.snapshots) > 0
		if err := over.flush(); err != nil {
			return err
		}
		refused = do(tx)
		return refused
	})
	switch {
	case err == nil:
		// A transaction that wrote nothing proves nothing.
		if over.wrote {
			m.written()
		}
		return nil
	case refused != nil || ctx.Err() != nil:
		return err
	}
	return instead(ctx, do, err)
}

// instead keeps what could not be written.
func (m *memory) instead(ctx context.Context, do func(Tx) error, err error) error {
	staged := &overlay{}
	again := m.inner.View(ctx, func(tx Tx) error {
		staged = m.over(tx)
		staged.writing = true
		return do(staged)
	})
	if again != nil {
		return errors.Join(err, again)
	}
	m.keep(staged, err)
	return nil
}

// over shows what is kept and still stands over what a transaction has.
func (m *memory) over(tx Tx) *overlay {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &overlay{Tx: tx, machines: maps.Clone(m.machines), snapshots: maps.Clone(m.snapshots)}
}

// keep takes over what a transaction would have written.
func (m *memory) keep(staged *overlay, why error) {
	m.mu.Lock()
	m.machines, m.snapshots = staged.machines, staged.snapshots
	m.mu.Unlock()
	m.fails(why)
}

// fails notes that the store takes nothing.
func (m *memory) fails(why error) {
	m.mu.Lock()
	first := !m.failing
	m.failing = true
	m.mu.Unlock()
	if first {
		m.told(why)
	}
}

// written forgets what is kept, since it is stored now.
func (m *memory) written() {
	m.mu.Lock()
	was := m.failing
	m.failing = false
	clear(m.machines)
	clear(m.snapshots)
	m.mu.Unlock()
	if was {
		m.told(nil)
	}
}

// lasting is the same store for what must not be in memory only: there is an
// error when it cannot be written.
type lasting struct{ *memory }

// Update writes, together with what is kept.
func (l lasting) Update(ctx context.Context, do func(Tx) error) error {
	return l.update(ctx, do, func(_ context.Context, _ func(Tx) error, err error) error {
		l.fails(err)
		return err
	})
}

// retry writes what is kept.
func (m *memory) retry(ctx context.Context) error {
	return lasting{m}.Update(ctx, func(Tx) error { return nil })
}

// pending tells whether anything is kept.
func (m *memory) pending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.machines)+len(m.snapshots) > 0
}

// settled notes that whoever could not write has nothing to write any more.
func (m *memory) settled() {
	if !m.pending() {
		m.written()
	}
}

// overlay is a transaction with kept records over it. Image objects are never kept:
// only who takes manifests writes them, and what is wanted has to last.
type overlay struct {
	Tx
	machines  map[string]kept[state.Machine]
	snapshots map[string]kept[state.Snapshot]
	// writing keeps what is written instead of handing it down.
	writing bool
	// wrote tells that something was handed down.
	wrote bool
}

// text is a record as JSON; nil when there is none.
func text[T any](record *T) []byte {
	if record == nil {
		return nil
	}
	out, err := json.Marshal(record)
	if err != nil {
		return nil // Records are plain data, which always can be written.
	}
	return out
}

// latest is the kept record when the stored one is still what it replaces.
func latest[T any](all map[string]kept[T], name string, stored *T) *T {
	k, ok := all[name]
	if !ok || !bytes.Equal(k.before, text(stored)) {
		delete(all, name)
		return stored
	}
	if k.after == nil {
		return nil
	}
	copied := *k.after
	return &copied
}

// put keeps a record, over the stored one that it replaces.
func put[T any](all map[string]kept[T], name string, stored, after *T) {
	k, ok := all[name]
	if !ok || !bytes.Equal(k.before, text(stored)) {
		k.before = text(stored)
	}
	k.after = after
	all[name] = k
}

func (o *overlay) Machine(name string) (*state.Machine, error) {
	stored, err := o.Tx.Machine(name)
	if err != nil {
		return nil, err
	}
	return latest(o.machines, name, stored), nil
}

func (o *overlay) Snapshot(name string) (*state.Snapshot, error) {
	stored, err := o.Tx.Snapshot(name)
	if err != nil {
		return nil, err
	}
	return latest(o.snapshots, name, stored), nil
}

func (o *overlay) Machines() ([]*state.Machine, error) {
	stored, err := o.Tx.Machines()
	if err != nil {
		return nil, err
	}
	return merge(o.machines, stored, func(m *state.Machine) string { return m.Object.Metadata.Name }), nil
}

func (o *overlay) Snapshots() ([]*state.Snapshot, error) {
	stored, err := o.Tx.Snapshots()
	if err != nil {
		return nil, err
	}
	return merge(o.snapshots, stored, func(s *state.Snapshot) string { return s.Object.Metadata.Name }), nil
}

func (o *overlay) SnapshotsOf(vm string) ([]*state.Snapshot, error) {
	if len(o.snapshots) == 0 {
		return o.Tx.SnapshotsOf(vm)
	}
	all, err := o.Snapshots()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s *state.Snapshot) bool { return s.Object.Spec.VirtualMachine != vm }), nil
}

// merge puts kept records over a listing, in the order of their names.
func merge[T any](all map[string]kept[T], stored []*T, name func(*T) string) []*T {
	if len(all) == 0 {
		return stored
	}
	by := make(map[string]*T, len(stored))
	for _, r := range stored {
		by[name(r)] = r
	}
	for n := range maps.Clone(all) {
		by[n] = latest(all, n, by[n])
	}
	var out []*T
	for _, r := range by {
		if r != nil {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *T) int { return strings.Compare(name(a), name(b)) })
	return out
}

func (o *overlay) PutMachine(m *state.Machine) error {
	if !o.writing {
		o.wrote = true
		return o.Tx.PutMachine(m)
	}
	copied := *m
	return o.machine(m.Object.Metadata.Name, &copied)
}

func (o *overlay) DeleteMachine(name string) error {
	if !o.writing {
		o.wrote = true
		return o.Tx.DeleteMachine(name)
	}
	return o.machine(name, nil)
}

func (o *overlay) machine(name string, after *state.Machine) error {
	stored, err := o.Tx.Machine(name)
	if err == nil {
		put(o.machines, name, stored, after)
	}
	return err
}

func (o *overlay) PutSnapshot(s *state.Snapshot) error {
	if !o.writing {
		o.wrote = true
		return o.Tx.PutSnapshot(s)
	}
	copied := *s
	return o.snapshot(s.Object.Metadata.Name, &copied)
}

func (o *overlay) DeleteSnapshot(name string) error {
	if !o.writing {
		o.wrote = true
		return o.Tx.DeleteSnapshot(name)
	}
	return o.snapshot(name, nil)
}

func (o *overlay) snapshot(name string, after *state.Snapshot) error {
	stored, err := o.Tx.Snapshot(name)
	if err == nil {
		put(o.snapshots, name, stored, after)
	}
	return err
}

// flush writes what is kept and still stands.
func (o *overlay) flush() error {
	for name := range maps.Clone(o.machines) {
		stored, err := o.Tx.Machine(name)
		if err != nil {
			return err
		}
		m := latest(o.machines, name, stored)
		if _, stands := o.machines[name]; !stands {
			continue
		}
		if m == nil {
			err = o.Tx.DeleteMachine(name)
		} else {
			err = o.Tx.PutMachine(m)
		}
		if err != nil {
			return err
		}
	}
	return o.flushSnapshots()
}

func (o *overlay) flushSnapshots() error {
	for name := range maps.Clone(o.snapshots) {
		stored, err := o.Tx.Snapshot(name)
		if err != nil {
			return err
		}
		s := latest(o.snapshots, name, stored)
		if _, stands := o.snapshots[name]; !stands {
			continue
		}
		if s == nil {
			err = o.Tx.DeleteSnapshot(name)
		} else {
			err = o.Tx.PutSnapshot(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
