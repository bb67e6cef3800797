package reconcile

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// SyncReport is what came of a sync.
type SyncReport struct {
	// Objects are those that were looked at and what happened to their records.
	Objects []ObjectChange
	// Left are the owner's objects that are in no manifest and stay.
	Left []manifest.ObjectKey
	// Refused are why objects were left as they were, besides the faults.
	Refused []error
	// Problems are why nothing is pruned although it may be.
	Problems []Problem
	// Machines are those whose records changed.
	Machines []string
}

// Sync makes the objects of a set the desired ones, each by itself: what is at
// fault keeps its last good version, and the others are taken. The faults are
// those of loading and admitting the set. Nothing is converged.
func (e *Engine) Sync(ctx context.Context, set *manifest.Set, faults manifest.Errors, opt ApplyOptions) (SyncReport, error) {
	var a *admission
	decide := func(tx Tx) error {
		var err error
		a, err = newAdmission(set, tx, opt, e.cfg.Who, e.cfg.Now())
		if err != nil {
			return err
		}
		a.sync = newObjectSync(faults)
		a.all(set)
		a.mark()
		return nil
	}
	if err := e.cfg.Store.View(ctx, decide); err != nil {
		return SyncReport{}, err
	}
	if a.changes() {
		err := e.cfg.Store.Update(ctx, func(tx Tx) error {
			// Others may have written since: what counts is decided in here.
			if err := decide(tx); err != nil {
				return err
			}
			return a.write(tx)
		})
		if err != nil {
			return SyncReport{}, err
		}
		events := a.events(e)
		for _, name := range slices.Sorted(maps.Keys(events)) {
			e.journal(ctx, events[name])
		}
	}
	return a.report(), nil
}

// report is what came of the admission.
func (a *admission) report() SyncReport {
	r := SyncReport{Objects: a.objects, Refused: a.errs, Problems: a.sync.problems}
	changed := maps.Clone(a.putMachines)
	for name := range a.putSnapshots {
		changed[a.snapshots[name].Object.Spec.VirtualMachine] = true
	}
	for image := range a.putImages {
		for name, m := range a.machines {
			changed[name] = changed[name] || usesImage(m, image)
		}
	}
	maps.DeleteFunc(changed, func(_ string, yes bool) bool { return !yes })
	r.Machines = slices.Sorted(maps.Keys(changed))
	for _, o := range a.objects {
		if o.Action == ActionLeft {
			r.Left = append(r.Left, o.Object)
		}
	}
	return r
}

// objectSync is what is at fault in a set of which each object is taken or left
// by itself.
type objectSync struct {
	// files are the files and folders at fault and what is wrong with them.
	files map[string]string
	// conflicts are the objects that are at odds with others.
	conflicts map[manifest.ObjectKey]string
	problems  []Problem
}

func newObjectSync(faults manifest.Errors) *objectSync {
	s := &objectSync{files: map[string]string{}, conflicts: map[manifest.ObjectKey]string{}}
	for _, f := range faults {
		if f.Warning {
			continue
		}
		for _, key := range f.Conflict {
			s.conflicts[key] = join(s.conflicts[key], f.Error())
		}
		if file := f.Position.File; len(f.Conflict) == 0 && file != "" {
			s.files[file] = join(s.files[file], f.Error())
		}
	}
	return s
}

func join(before, more string) string {
	if before == "" {
		return more
	}
	return before + "\n" + more
}

// takes tells whether an object may be taken as it is. Without a sync any may.
func (s *objectSync) takes(o *manifest.Object) bool {
	return s == nil || s.conflicts[o.Key()] == "" && s.broken(o.Position.File) == ""
}

// broken says what is wrong with the file, or a folder above it; empty when
// nothing is.
func (s *objectSync) broken(file string) string {
	if s == nil || file == "" {
		return ""
	}
	if why := s.files[file]; why != "" {
		return why
	}
	for at, why := range s.files {
		if strings.HasPrefix(file, strings.TrimSuffix(at, "/")+"/") || sameFile(at, file) {
			return why
		}
	}
	return ""
}

// sameFile tells whether a name that somebody gave relative to another folder
// is most likely that of a file which is known by its whole path.
func sameFile(whole, given string) bool {
	return filepath.IsAbs(whole) && !filepath.IsAbs(given) && strings.HasSuffix(whole, "/"+filepath.Clean(given))
}

// mark notes in the records which manifests are at fault, and which no longer.
func (a *admission) mark() {
	for _, name := range slices.Sorted(maps.Keys(a.machines)) {
		old := a.machines[name]
		if old.Owner != a.owner || a.taken(name) {
			continue
		}
		why := a.sync.conflicts[manifest.ObjectKey{Kind: manifest.KindVirtualMachine, Name: name}]
		if why == "" {
			why = a.sync.broken(old.Source)
		}
		if why == "" || old.Invalid != nil && old.Invalid.Message == why {
			continue
		}
		m := *old
		m.Invalid = &state.Invalid{Message: why, Since: a.now}
		if old.Invalid != nil {
			m.Invalid.Since = old.Invalid.Since
		}
		a.machines[name] = &m
		a.putMachines[name] = true
	}
}

// taken tells whether the machine's manifest was good.
func (a *admission) taken(name string) bool {
	return slices.ContainsFunc(a.objects, func(o ObjectChange) bool {
		return o.Object.Kind == manifest.KindVirtualMachine && o.Object.Name == name && o.Action != ActionLeft
	})
}
