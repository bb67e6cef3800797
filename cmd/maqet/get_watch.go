package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

// phaseGone is what stands for the phase of a machine of which nothing is
// remembered any more.
const phaseGone = "Deleted"

// watchGet prints machines, and each again when it has changed.
type watchGet struct {
	env    environment
	format format
	table  *columns
	// last is what was last printed of each machine, without what always changes.
	last map[string]string
	// views are the machines as last seen, to tell of their end.
	views map[string]*reconcile.View
}

func watchMachines(ctx context.Context, a *app, names []string, f format) error {
	engine, err := a.reader(nil)
	if err != nil {
		return err
	}
	depth := depthOf(f)
	told, stop := watchChanges(ctx, a.built)
	defer stop()
	views, err := look(ctx, a, names, depth)
	if err != nil {
		return err
	}
	w := &watchGet{
		env: a.env, format: f, table: newColumns(a.env.out, machineHeader(f.kind == "wide"), []string{"", string(reconcile.PhaseUnresponsive), "Unknown"}),
		last: map[string]string{}, views: map[string]*reconcile.View{},
	}
	if err := w.begin(views); err != nil {
		return err
	}
	err = engine.Follow(ctx, reconcile.FollowOptions{Names: names, Depth: depth, Changes: told}, w.saw)
	if ctx.Err() != nil {
		// Interrupting is how watching ends: nothing needs to be said.
		return &outcomeError{code: exitInterrupted}
	}
	return err
}

// depthOf is how closely machines are looked at for a format.
func depthOf(f format) driver.Depth {
	if f.structured() || f.kind == "wide" {
		return driver.DepthFull
	}
	return driver.DepthBrief
}

// begin prints the machines that there are.
func (w *watchGet) begin(views []reconcile.View) error {
	var rows [][]string
	for i := range views {
		v := &views[i]
		name := v.Machine.Object.Metadata.Name
		w.views[name] = v
		row := machineRow(w.env, *v, w.format.kind == "wide")
		rows = append(rows, row)
		changed, err := w.differs(name, *v, row)
		if err == nil && changed && w.format.kind != "" && w.format.kind != "wide" {
			err = w.write(name, *v)
		}
		if err != nil {
			return err
		}
	}
	if w.format.kind == "" || w.format.kind == "wide" {
		w.table.add(rows...)
	}
	return nil
}

// saw prints a machine if it differs from what was printed last.
func (w *watchGet) saw(s reconcile.Sighting) error {
	if s.View == nil {
		return w.gone(s.Name)
	}
	w.keepGuest(s.Name, s.View)
	w.views[s.Name] = s.View
	row := machineRow(w.env, *s.View, w.format.kind == "wide")
	changed, err := w.differs(s.Name, *s.View, row)
	if err != nil || !changed {
		return err
	}
	if w.format.kind == "" || w.format.kind == "wide" {
		w.table.add(row)
		return nil
	}
	return w.write(s.Name, *s.View)
}

// keepGuest keeps what the guest said when it does not answer this once: a busy agent is
// no news of the machine.
func (w *watchGet) keepGuest(name string, v *reconcile.View) {
	before := w.views[name]
	running := v.Status.Phase == reconcile.PhaseRunning && before != nil && before.Status.PID == v.Status.PID
	if running && v.Status.Guest == nil && v.Observed.Guest != nil && v.Observed.Guest.Agent != nil && v.Observed.Guest.Agent.Open {
		v.Status.Guest = before.Status.Guest
	}
}

// gone prints once that a machine is no more.
func (w *watchGet) gone(name string) error {
	v := w.views[name]
	if v == nil {
		return nil
	}
	delete(w.views, name)
	delete(w.last, name)
	if w.format.kind != "" && w.format.kind != "wide" {
		last := *v
		last.Status = reconcile.Status{Phase: phaseGone, Conditions: []state.Condition{}}
		return w.write(name, last)
	}
	row := slices.Repeat([]string{"-"}, len(w.table.header))
	row[0], row[1], row[len(row)-1] = name, phaseGone, ""
	w.table.add(row)
	return nil
}

// differs compares a machine with what was printed last, and notes it.
func (w *watchGet) differs(name string, v reconcile.View, row []string) (bool, error) {
	text := ""
	switch w.format.kind {
	case "", "wide":
		// The time it is up changes all the time.
		at := slices.Index(w.table.header, "UP")
		text = strings.Join(slices.Delete(slices.Clone(row), at, at+1), "\x00")
	default:
		object := objectOf(v)
		if end := object.Status.LastTermination; end != nil && v.Observed.Ended != nil {
			// An end that nobody has noted yet is found anew at each look.
			found := *end
			found.At = time.Time{}
			object.Status.LastTermination = &found
		}
		object.Status.Conditions = slices.Clone(object.Status.Conditions)
		for i := range object.Status.Conditions {
			// One that is not remembered yet began just now at each look.
			object.Status.Conditions[i].LastTransitionTime = time.Time{}
		}
		raw, err := json.Marshal(object)
		if err != nil {
			return false, fmt.Errorf("write json: %w", err)
		}
		text = string(raw)
	}
	changed := w.last[name] != text
	w.last[name] = text
	return changed, nil
}

// write prints a machine for programs: one line of JSON, a document of YAML.
func (w *watchGet) write(name string, v reconcile.View) error {
	switch w.format.kind {
	case "name":
		fmt.Fprintln(w.env.out, "vm/"+name)
		return nil
	case "json":
		return writeJSONLine(w.env.out, objectOf(v))
	case "yaml":
		text, err := manifest.MarshalYAML(objectOf(v))
		if err != nil {
			return fmt.Errorf("write yaml: %w", err)
		}
		fmt.Fprintf(w.env.out, "---\n%s", text)
		return nil
	default:
		return w.format.write(w.env.out, objectOf(v))
	}
}
