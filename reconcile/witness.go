package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/maqet/maqet/state"
)

// witness is a Store that knows what of it others have written: other processes,
// such as a command that a person typed.
type witness struct {
	inner Store

	mu sync.Mutex
	// machines and snapshots are the stored records, by name, as this process has
	// last seen or written them.
	machines  map[string]string
	snapshots map[string]sighted
	// others are the machines whose records turned out to be another's when this
	// process wrote them, and of which nobody was told yet.
	others map[string]bool
}

// sighted is the record of a Snapshot object, and the machine it belongs to.
type sighted struct{ vm, text string }

func newWitness(inner Store) *witness {
	return &witness{inner: inner, machines: map[string]string{}, snapshots: map[string]sighted{}, others: map[string]bool{}}
}

// View reads what is stored.
func (w *witness) View(ctx context.Context, do func(Tx) error) error { return w.inner.View(ctx, do) }

// Update writes, and takes what it wrote for known.
func (w *witness) Update(ctx context.Context, do func(Tx) error) error {
	var wrote *writing
	err := w.inner.Update(ctx, func(tx Tx) error {
		wrote = &writing{Tx: tx, machines: map[string]edit{}, snapshots: map[string]edit{}}
		return do(wrote)
	})
	if err == nil {
		w.wrote(wrote)
	}
	return err
}

// wrote takes in what this process has written. What it found there and had not
// seen before is another's, who would go unnoticed below it.
func (w *witness) wrote(tx *writing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, c := range tx.machines {
		if w.machines[name] != c.before {
			w.others[name] = true
		}
		set(w.machines, name, c.after, c.after != "")
	}
	for name, c := range tx.snapshots {
		if w.snapshots[name].text != c.before {
			w.others[c.vm] = true
		}
		set(w.snapshots, name, sighted{c.vm, c.after}, c.after != "")
	}
}

func set[T any](all map[string]T, name string, value T, is bool) {
	if is {
		all[name] = value
	} else {
		delete(all, name)
	}
}

// changed reads what is stored, and gives the names of the machines of which
// others have written something since it was last called: a record, or one of a
// snapshot, that is new, different or gone.
func (w *witness) changed(ctx context.Context) ([]string, error) {
	machines, snapshots := map[string]string{}, map[string]sighted{}
	err := w.inner.View(ctx, func(tx Tx) error {
		all, err := tx.Machines()
		if err != nil {
			return err
		}
		for _, m := range all {
			machines[m.Object.Metadata.Name] = string(text(m))
		}
		snaps, err := tx.Snapshots()
		for _, s := range snaps {
			snapshots[s.Object.Metadata.Name] = sighted{s.Object.Spec.VirtualMachine, string(text(s))}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	names := w.others
	for name := range differing(w.machines, machines) {
		names[name] = true
	}
	for _, s := range differing(w.snapshots, snapshots) {
		names[s.vm] = true
	}
	w.machines, w.snapshots, w.others = machines, snapshots, map[string]bool{}
	return slices.Sorted(maps.Keys(names)), nil
}

// differing are the entries that only one of two maps has, or that differ.
func differing[T comparable](before, now map[string]T) map[string]T {
	out := map[string]T{}
	for name, is := range now {
		if was, known := before[name]; !known || was != is {
			out[name] = is
		}
	}
	for name, was := range before {
		if _, there := now[name]; !there {
			out[name] = was
		}
	}
	return out
}

// writing is a transaction that notes what is written in it.
type writing struct {
	Tx
	machines, snapshots map[string]edit
}

// edit is what became of one record, as JSON that is empty for none.
type edit struct{ vm, before, after string }

// addEdit adds a later edit of the same record to an earlier one.
func addEdit(all map[string]edit, name string, e edit) {
	if earlier, ok := all[name]; ok {
		e.before = earlier.before
	}
	all[name] = e
}

func (t *writing) PutMachine(m *state.Machine) error {
	return t.machine(m.Object.Metadata.Name, func() error { return t.Tx.PutMachine(m) })
}

func (t *writing) DeleteMachine(name string) error {
	return t.machine(name, func() error { return t.Tx.DeleteMachine(name) })
}

func (t *writing) machine(name string, write func() error) error {
	before, err := t.Machine(name)
	if err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	// As it will be read, which need not be as it was in memory.
	after, err := t.Machine(name)
	if err == nil {
		addEdit(t.machines, name, edit{name, string(text(before)), string(text(after))})
	}
	return err
}

func (t *writing) PutSnapshot(s *state.Snapshot) error {
	return t.snapshot(s.Object.Metadata.Name, func() error { return t.Tx.PutSnapshot(s) })
}

func (t *writing) DeleteSnapshot(name string) error {
	return t.snapshot(name, func() error { return t.Tx.DeleteSnapshot(name) })
}

func (t *writing) snapshot(name string, write func() error) error {
	before, err := t.Snapshot(name)
	if err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	after, err := t.Snapshot(name)
	if err != nil {
		return err
	}
	e := edit{before: string(text(before)), after: string(text(after))}
	for _, s := range []*state.Snapshot{before, after} {
		if s != nil {
			e.vm = s.Object.Spec.VirtualMachine
		}
	}
	addEdit(t.snapshots, name, e)
	return nil
}
