package reconcile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
)

// actions are what happened to the objects, by key.
func actions(objects []ObjectChange) map[string]ObjectAction {
	out := map[string]ObjectAction{}
	for _, o := range objects {
		out[o.Object.String()] = o.Action
	}
	return out
}

func (w *world) refused(opt ApplyOptions, set *manifest.Set, want ...error) {
	w.Helper()
	updates, calls := w.store.updates, len(w.host.calls)
	_, err := w.engine.Apply(w.Context(), set, opt)
	for _, one := range want {
		if !errors.Is(err, one) {
			w.Errorf("error %v, want %v", err, one)
		}
	}
	if w.store.updates != updates || len(w.host.calls) != calls {
		w.Errorf("refused, yet %d writes and the calls %v", w.store.updates-updates, w.host.calls[calls:])
	}
}

func TestApply_conflicts_areAllFoundBeforeActing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{Owner: "ann"}, newVM("a"))
		snap := newSnap("s", "b", manifest.SnapshotDisk).Object
		w.apply(ApplyOptions{}, newVM("b"), &snap)
		changed := snap
		changed.Spec.Method = manifest.SnapshotFull
		stray := newSnap("stray", "nobody", manifest.SnapshotDisk).Object
		w.refused(ApplyOptions{}, setOf(newVM("a"), newVM("b"), newVM("new"), &changed, &stray), ErrOwned, ErrImmutable, ErrNotFound)
		if w.record("new") != nil {
			t.Errorf("one object was written although others are refused")
		}
		_, err := w.engine.Apply(w.Context(), setOf(newVM("a")), ApplyOptions{})
		var own *Error
		if !errors.As(err, &own) || own.Object != "vm/a" || own.Detail != "ann" || !strings.Contains(own.Hint, "--take-over") {
			t.Errorf("the error names neither owner nor remedy: %+v", err)
		}
		report := w.apply(ApplyOptions{TakeOver: true}, newVM("a"), newVM("b"), &snap)
		if w.record("a").Owner != "/srv/vms" || w.record("a").Generation != 1 {
			t.Errorf("record: %+v", w.record("a"))
		}
		if diff := cmp.Diff(map[string]ObjectAction{"vm/a": ActionConfigured, "vm/b": ActionUnchanged, "snap/s": ActionUnchanged}, actions(report.Objects)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestApply_labels_changeOnlyTheRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		labelled := newVM("web")
		labelled.Metadata.Labels = map[string]string{"tier": "front"}
		calls := len(w.host.calls)
		report := w.apply(ApplyOptions{}, labelled)
		if m := w.record("web"); m.Generation != 1 || m.Object.Metadata.Labels["tier"] != "front" {
			t.Errorf("record: %+v", m)
		}
		if len(w.host.calls) != calls || report.Pending {
			t.Errorf("calls %v, report %+v", w.host.calls[calls:], report)
		}
	})
}

func TestApply_prune(t *testing.T) {
	inWorld(t, func(w *world) {
		snap := newSnap("s", "a", manifest.SnapshotDisk).Object
		snap.Spec.OnDelete = manifest.SnapshotDelete
		w.apply(ApplyOptions{}, newVM("a"), newVM("b"), &snap)
		w.apply(ApplyOptions{Owner: "ann"}, newVM("hers"))

		report := w.apply(ApplyOptions{}, newVM("a"))
		if diff := cmp.Diff(map[string]ObjectAction{"vm/a": ActionUnchanged, "vm/b": ActionLeft, "snap/s": ActionLeft}, actions(report.Objects)); diff != "" {
			t.Error(diff)
		}
		incomplete := setOf(newVM("a"))
		incomplete.Complete = false
		w.refused(ApplyOptions{Prune: true}, incomplete, ErrPruneGuard)
		w.refused(ApplyOptions{Prune: true}, setOf(), ErrPruneGuard)

		report = w.apply(ApplyOptions{Prune: true}, newVM("a"))
		if diff := cmp.Diff(map[string]ObjectAction{"vm/a": ActionUnchanged, "vm/b": ActionPruned, "snap/s": ActionPruned}, actions(report.Objects)); diff != "" {
			t.Error(diff)
		}
		if w.record("b") != nil || w.record("hers") == nil || w.record("a") == nil {
			t.Errorf("pruned the wrong ones")
		}
		for _, call := range []string{"b powerdown", "b forget false", "a delete-snapshot s"} {
			if !slices.Contains(w.host.called(), call) {
				t.Errorf("%s is not among %v", call, w.host.called())
			}
		}
		w.apply(ApplyOptions{Prune: true, PruneAll: true})
		if w.record("a") != nil || w.record("hers") == nil {
			t.Errorf("--prune-all deletes all of the owner's and no other's")
		}
	})
}

func TestPlan_report_touchesNothingAndPrices(t *testing.T) {
	inWorld(t, func(w *world) {
		plan := func(opt ApplyOptions, objects ...any) PlanReport {
			t.Helper()
			updates, calls := w.store.updates, len(w.host.calls)
			report, err := w.engine.Plan(w.Context(), setOf(objects...), opt)
			if err != nil {
				t.Fatal(err)
			}
			if w.store.updates != updates || len(w.host.calls) != calls {
				t.Errorf("planning touched something: %v", w.host.calls[calls:])
			}
			return report
		}
		forecast := func(r PlanReport) string {
			var lines []string
			for _, m := range r.Machines {
				line := m.Machine + " " + string(m.Action) + " " + string(m.Class) + ":"
				for _, p := range m.Passes {
					line += " " + summary(p)
				}
				lines = append(lines, line)
			}
			return strings.Join(lines, "\n")
		}
		r := plan(ApplyOptions{}, newVM("web"))
		if got := forecast(r); got != "web created live: identity; create-disk root; start;" || r.Empty {
			t.Errorf("forecast: %s", got)
		}
		w.apply(ApplyOptions{}, newVM("web"))
		if r = plan(ApplyOptions{}, newVM("web")); !r.Empty || r.Class != ClassNone {
			t.Errorf("nothing is to be done, yet: %+v", r)
		}
		bigger := newVM("web", func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 })
		bigger.Metadata.Labels = map[string]string{"a": "b"}
		if r = plan(ApplyOptions{}, bigger); forecast(r) != "web configured restart:" || r.Empty || !r.Machines[0].Changes[0].Pending {
			t.Errorf("forecast: %s %+v", forecast(r), r.Machines[0].Changes)
		}
		r = plan(ApplyOptions{Options: Options{AllowRestart: true}}, bigger)
		if got := forecast(r); !strings.HasPrefix(got, "web configured restart: powerdown(Restart,1m0s); wait,exit,") || !strings.HasSuffix(got, "record-end; start;") {
			t.Errorf("forecast: %s", got)
		}
		if n := len(r.Machines[0].Changes); n != 2 {
			t.Errorf("want the memory and the label: %+v", r.Machines[0].Changes)
		}
		dry, err := w.engine.Apply(w.Context(), setOf(bigger), ApplyOptions{DryRun: true})
		if err != nil || dry.Forecast == nil || !dry.Pending || w.record("web").Generation != 1 {
			t.Errorf("dry run: %+v, %v", dry, err)
		}
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		r = plan(ApplyOptions{}, newVM("web", stopped(), func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }))
		if got := forecast(r); got != "web configured next-boot:" {
			t.Errorf("forecast of a stopped machine: %s", got)
		}
	})
}
