package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// admission is what an apply makes of the records, decided before anything is
// written: all of it, or nothing.
type admission struct {
	opt   ApplyOptions
	owner string
	who   string
	now   time.Time
	// machines and snapshots are the records as they will be.
	machines  map[string]*state.Machine
	snapshots map[string]*state.Snapshot
	// before are the objects as they were, by machine.
	before map[string]*manifest.VirtualMachine
	// unheld are the holds that a changed spec ends, by machine.
	unheld map[string]*state.Hold
	// putMachines and putSnapshots name what has to be written.
	putMachines, putSnapshots map[string]bool
	// converge names the machines to converge.
	converge map[string]bool
	objects  []ObjectChange
	errs     []error
	// live is the watch beside which this is applied; nil when there is none.
	live *LiveWatch
	// outside is true when that watch does not read what is applied.
	outside bool
	// sync is set when each object is taken or left by itself.
	sync *objectSync
}

// admit decides what a set makes of the records that there are. The errors are
// all conflicts at once.
func admit(set *manifest.Set, tx Tx, opt ApplyOptions, who string, now time.Time, live *LiveWatch) (*admission, error) {
	a, err := newAdmission(set, tx, opt, who, now)
	if err != nil {
		return nil, err
	}
	a.live = live
	a.outside = live != nil && !live.has(set.Roots)
	a.all(set)
	return a, errors.Join(a.errs...)
}

// newAdmission reads the records.
func newAdmission(set *manifest.Set, tx Tx, opt ApplyOptions, who string, now time.Time) (*admission, error) {
	a := &admission{
		opt: opt, owner: cmp.Or(opt.Owner, OwnerOf(set)), who: who, now: now,
		machines: map[string]*state.Machine{}, snapshots: map[string]*state.Snapshot{}, before: map[string]*manifest.VirtualMachine{},
		unheld:      map[string]*state.Hold{},
		putMachines: map[string]bool{}, putSnapshots: map[string]bool{}, converge: map[string]bool{},
	}
	machines, err := tx.Machines()
	if err != nil {
		return nil, err
	}
	for _, m := range machines {
		a.machines[m.Object.Metadata.Name] = m
	}
	snapshots, err := tx.Snapshots()
	if err != nil {
		return nil, err
	}
	for _, s := range snapshots {
		a.snapshots[s.Object.Metadata.Name] = s
	}
	return a, nil
}

// all admits the objects of the set, machines first.
func (a *admission) all(set *manifest.Set) {
	for _, o := range set.Objects {
		if o.VM != nil && a.sync.takes(o) {
			a.machine(o)
		}
	}
	for _, o := range set.Objects {
		if o.Snapshot != nil && a.sync.takes(o) {
			a.snapshot(o)
		}
	}
	a.absent(set)
}

func (a *admission) refuse(o *manifest.Object, cause error, detail, hint string) {
	a.errs = append(a.errs, &Error{Object: o.Key().String(), Op: "apply", Err: cause, Detail: detail, Hint: hint})
}

// conflict finds why an object that is remembered cannot be applied.
func (a *admission) conflict(o *manifest.Object, owner, source string, deleting *state.Deletion) bool {
	switch {
	case deleting != nil:
		a.refuse(o, ErrDeleting, "asked for by "+deleting.Who,
			"run maqet delete "+o.Key().Name+" to see it through, then apply again")
	case owner != OwnerStdin && a.claim(owner) != owner && !a.opt.TakeOver:
		// While a watch keeps it, taking it over would be refused as well.
		if a.watched(o, owner, source) {
			return true
		}
		a.refuse(o, ErrOwned, owner, "apply it from there, or say --take-over")
	default:
		return false
	}
	return true
}

// watched refuses to change an object that a live watch keeps otherwise.
func (a *admission) watched(o *manifest.Object, owner, source string) bool {
	if !a.outside || owner != a.live.Owner {
		return false
	}
	a.refuse(o, ErrWatched, watchWords(a.live),
		"edit "+cmp.Or(source, "its manifest")+", or override it with maqet hold "+o.Key().Name)
	return true
}

// claim is the owner that an object of the given owner gets. What comes from
// standard input names no place, so it leaves the owner as it is.
func (a *admission) claim(owner string) string {
	if a.owner == OwnerStdin {
		return owner
	}
	return a.owner
}

// machine admits one machine.
func (a *admission) machine(o *manifest.Object) {
	name := o.VM.Metadata.Name
	a.converge[name] = true
	old := a.machines[name]
	if old == nil {
		a.machines[name] = &state.Machine{
			Object: *o.VM, Owner: a.owner, Source: o.Position.File, Generation: 1, Digest: o.Digest, Created: a.now, Updated: a.now,
		}
		a.note(o.Key(), ActionCreated, a.putMachines)
		return
	}
	if a.conflict(o, old.Owner, old.Source, old.Deleting) {
		return
	}
	before := old.Object
	a.before[name] = &before
	owner := a.claim(old.Owner)
	if old.Owner == owner && sameObject(old, o) {
		a.unchanged(o, old)
		return
	}
	if a.watched(o, old.Owner, old.Source) {
		return
	}
	m := *old
	m.Invalid, m.Undeclared = nil, false
	m.Object, m.Owner, m.Source, m.Digest, m.Updated = *o.VM, owner, o.Position.File, o.Digest, a.now
	if !reflect.DeepEqual(leaves(manifest.Resolve(&before, "/").Spec, "spec"), leaves(o.VM.Spec, "spec")) {
		m.Generation++
		// A changed manifest is newer than what an operator overrode, and than
		// what was wrong with the one before.
		a.unheld[name], m.Hold = m.Hold, nil
		forgive(&m)
	}
	a.machines[name] = &m
	a.note(o.Key(), ActionConfigured, a.putMachines)
}

// unchanged notes where an object is found now, and that nothing is wrong with it.
func (a *admission) unchanged(o *manifest.Object, old *state.Machine) {
	a.note(o.Key(), ActionUnchanged, nil)
	moved := a.sync != nil && old.Source != o.Position.File
	if !moved && old.Invalid == nil && !old.Undeclared {
		return
	}
	m := *old
	m.Source, m.Invalid, m.Undeclared = o.Position.File, nil, false
	a.machines[o.Key().Name] = &m
	a.putMachines[o.Key().Name] = true
}

// note keeps what happens to an object; put, when given, is what to write.
func (a *admission) note(key manifest.ObjectKey, action ObjectAction, put map[string]bool) {
	a.objects = append(a.objects, ObjectChange{Object: key, Action: action})
	if put != nil {
		put[key.Name] = true
	}
}

// snapshot admits one snapshot.
func (a *admission) snapshot(o *manifest.Object) {
	name, vm := o.Snapshot.Metadata.Name, o.Snapshot.Spec.VirtualMachine
	if a.machines[vm] == nil {
		a.refuse(o, ErrNotFound, "vm/"+vm, "apply the machine's manifest too")
		return
	}
	a.converge[vm] = true
	old := a.snapshots[name]
	if old == nil {
		a.snapshots[name] = &state.Snapshot{
			Object: *o.Snapshot, Owner: a.owner, Source: o.Position.File, Generation: 1, Digest: o.Digest, Created: a.now,
		}
		a.note(o.Key(), ActionCreated, a.putSnapshots)
		return
	}
	if a.conflict(o, old.Owner, old.Source, old.Deleting) {
		return
	}
	same := old.Object.Spec == o.Snapshot.Spec
	if !same && old.TakenUID != "" {
		a.refuse(o, ErrImmutable, "it was taken at "+old.TakenAt.UTC().Format(time.RFC3339), "give a new snapshot another name")
		return
	}
	owner := a.claim(old.Owner)
	if old.Digest == o.Digest && old.Owner == owner && old.Failed == "" {
		a.note(o.Key(), ActionUnchanged, nil)
		return
	}
	if a.watched(o, old.Owner, old.Source) {
		return
	}
	s := *old
	s.Object, s.Owner, s.Source, s.Digest = *o.Snapshot, owner, o.Position.File, o.Digest
	// Applying is the word to try once more.
	s.Failed = ""
	action := ActionUnchanged
	if old.Digest != o.Digest || old.Owner != owner {
		action = ActionConfigured
	}
	if !same {
		s.Generation++
		a.converge[old.Object.Spec.VirtualMachine] = true
	}
	a.snapshots[name] = &s
	a.note(o.Key(), action, a.putSnapshots)
}

// absent deals with what the owner once had and is in no manifest now.
func (a *admission) absent(set *manifest.Set) {
	var views []MachineView
	for _, name := range slices.Sorted(maps.Keys(a.machines)) {
		m := a.machines[name]
		views = append(views, MachineView{
			Name: name, Owner: m.Owner, Deleting: m.Deleting != nil,
			Declared: a.declared(set, m),
		})
		// A delete that was begun is seen through.
		if m.Owner == a.owner && m.Deleting != nil {
			a.converge[name] = true
		}
	}
	plan := PlanSet(views, SetOptions{
		Owner: a.owner, Complete: set.Complete, Prune: a.opt.Prune, PruneAll: a.opt.PruneAll, MaxDeletions: a.opt.MaxDeletions,
	}, a.now)
	for _, p := range plan.Problems {
		if a.sync != nil {
			a.sync.problems = append(a.sync.problems, p)
			continue
		}
		a.errs = append(a.errs, &Error{Object: a.owner, Op: "prune", Err: p.Err, Detail: p.Message, Hint: p.Hint})
	}
	for _, name := range plan.Prune {
		m := *a.machines[name]
		m.Deleting = &state.Deletion{Since: a.now, Who: a.who, Prune: true}
		a.machines[name] = &m
		a.converge[name] = true
		a.note(manifest.ObjectKey{Kind: manifest.KindVirtualMachine, Name: name}, ActionPruned, a.putMachines)
	}
	for _, name := range plan.Left {
		a.undeclared(set, name)
		a.note(manifest.ObjectKey{Kind: manifest.KindVirtualMachine, Name: name}, ActionLeft, nil)
	}
	a.absentSnapshots(set)
}

func (a *admission) absentSnapshots(set *manifest.Set) {
	for _, name := range slices.Sorted(maps.Keys(a.snapshots)) {
		old := a.snapshots[name]
		key := manifest.ObjectKey{Kind: manifest.KindSnapshot, Name: name}
		if old.Owner != a.owner || set.Lookup(key) != nil {
			continue
		}
		vm := old.Object.Spec.VirtualMachine
		switch {
		case old.Deleting != nil:
			a.converge[vm] = true
		case a.opt.Prune && set.Complete:
			s := *old
			s.Deleting = &state.Deletion{Since: a.now, Who: a.who, Prune: true}
			a.snapshots[name] = &s
			a.converge[vm] = true
			a.note(key, ActionPruned, a.putSnapshots)
		default:
			a.note(key, ActionLeft, nil)
		}
	}
}

// changes tells whether anything has to be written.
func (a *admission) changes() bool { return len(a.putMachines)+len(a.putSnapshots) > 0 }

// write puts what changed.
func (a *admission) write(tx Tx) error {
	for _, name := range slices.Sorted(maps.Keys(a.putMachines)) {
		if err := tx.PutMachine(a.machines[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.putSnapshots)) {
		if err := tx.PutSnapshot(a.snapshots[name]); err != nil {
			return err
		}
	}
	return nil
}

// desired is what a machine should be, as the apply leaves it.
func (a *admission) desired(name string) Desired {
	want := Desired{Machine: a.machines[name]}
	for _, s := range a.snapshots {
		if s.Object.Spec.VirtualMachine == name {
			want.Snapshots = append(want.Snapshots, s)
		}
	}
	slices.SortFunc(want.Snapshots, func(x, y *state.Snapshot) int {
		return strings.Compare(x.Object.Metadata.Name, y.Object.Metadata.Name)
	})
	return want
}

// names are the machines to converge that there are.
func (a *admission) names() []string {
	names := slices.Sorted(maps.Keys(a.converge))
	return slices.DeleteFunc(names, func(n string) bool { return a.machines[n] == nil })
}

// action is what happens to a machine's object.
func (a *admission) action(name string) ObjectAction {
	for _, o := range a.objects {
		if o.Object.Kind == manifest.KindVirtualMachine && o.Object.Name == name {
			return o.Action
		}
	}
	return ActionUnchanged
}

// sameObject tells whether a manifest says what is remembered already. A record
// of an older maqet lacks the keys that are newer than it, which then mean what
// their absence means.
func sameObject(old *state.Machine, o *manifest.Object) bool {
	if old.Digest == o.Digest {
		return true
	}
	resolved, err := manifest.NewObject(manifest.Resolve(&old.Object, "/"))
	return err == nil && resolved.Digest == o.Digest
}

// declared tells whether a manifest has the machine, as far as that is known.
func (a *admission) declared(set *manifest.Set, m *state.Machine) bool {
	key := manifest.ObjectKey{Kind: manifest.KindVirtualMachine, Name: m.Object.Metadata.Name}
	return set.Lookup(key) != nil || a.sync.broken(m.Source) != ""
}

// undeclared notes that the manifests, all read, have no such machine.
func (a *admission) undeclared(set *manifest.Set, name string) {
	old := a.machines[name]
	if !set.Complete || old.Undeclared && old.Invalid == nil {
		return
	}
	m := *old
	m.Undeclared, m.Invalid = true, nil
	a.machines[name] = &m
	a.putMachines[name] = true
}

func watchWords(w *LiveWatch) string {
	return fmt.Sprintf("maqet watch (pid %d) keeps the objects of %s", w.PID, w.Owner)
}
