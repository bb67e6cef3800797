package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// daily has a machine's snapshot taken at three o'clock.
func daily(edit ...func(*manifest.Snapshots)) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) {
		s.Snapshots = &manifest.Snapshots{Schedule: "0 3 * * *"}
		for _, f := range edit {
			f(s.Snapshots)
		}
	}
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDueSlot(t *testing.T) {
	for _, c := range []struct {
		name, schedule, zone, since, now, want string
	}{
		{"not yet", "0 3 * * *", "", "2026-01-02T00:00:00Z", "2026-01-02T02:59:59Z", ""},
		{"just now", "0 3 * * *", "", "2026-01-02T00:00:00Z", "2026-01-02T03:00:00Z", "2026-01-02T03:00:00Z"},
		{"missed once", "0 3 * * *", "", "2026-01-02T03:00:00Z", "2026-01-03T20:00:00Z", "2026-01-03T03:00:00Z"},
		{"missed a month of days", "0 3 * * *", "", "2026-01-02T03:00:00Z", "2026-02-03T02:00:00Z", "2026-02-02T03:00:00Z"},
		{"missed a year of minutes", "* * * * *", "", "2025-01-02T03:00:00Z", "2026-02-03T02:00:30Z", "2026-02-03T02:00:00Z"},
		{"missed months of months", "0 3 1 * *", "", "2026-01-15T00:00:00Z", "2026-04-20T00:00:00Z", "2026-04-01T03:00:00Z"},
		{"zone", "0 3 * * *", "Europe/Berlin", "2026-01-02T00:00:00Z", "2026-01-02T02:00:00Z", "2026-01-02T02:00:00Z"},
		{"an hour that the clock leaves out", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T23:00:00Z", ""},
		{"the clock was set back", "0 3 * * *", "", "2026-01-02T03:00:00Z", "2025-12-31T12:00:00Z", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := &state.Machine{Scheduled: at(t, c.since)}
			rec.Object.Spec.Snapshots = &manifest.Snapshots{Schedule: c.schedule, TimeZone: c.zone}
			slot, due := dueSlot(rec, at(t, c.now))
			got := ""
			if due {
				got = slot.Format(time.RFC3339)
			}
			if got != c.want {
				t.Errorf("due is %q, want %q", got, c.want)
			}
		})
	}
}

func TestDueSlot_newSchedule_hasMissedNothing(t *testing.T) {
	rec := &state.Machine{Created: t0.AddDate(-1, 0, 0), Updated: t0}
	rec.Object.Spec.Snapshots = &manifest.Snapshots{Schedule: "0 3 * * *"}
	if slot, due := dueSlot(rec, t0.Add(time.Minute)); due {
		t.Errorf("a schedule of a minute ago is owed a snapshot of %s", slot)
	}
	if _, due := dueSlot(rec, t0.AddDate(0, 0, 1)); !due {
		t.Error("nothing is due a day later")
	}
}

// scheduled adds a snapshot that the schedule had taken.
func scheduled(slot time.Time, edit ...func(*state.Snapshot)) func(*scene) {
	return func(s *scene) {
		object := newSnap(slotTag(testUID, slot), "web", manifest.SnapshotDisk)
		object.Owner, object.Created = OwnerSchedule, slot
		taken(object, testUID, slot)
		for _, f := range edit {
			f(object)
		}
		s.want.Snapshots = append(s.want.Snapshots, object)
		if object.TakenUID != "" {
			s.addSnapshot(object.Object.Metadata.Name, 0)
		}
		if slot.After(s.want.Machine.Scheduled) {
			s.want.Machine.Scheduled = slot
		}
	}
}

func TestPlanMachine_schedule(t *testing.T) {
	slot := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC) // four minutes before t0
	before := func(days int) time.Time { return slot.AddDate(0, 0, -days) }
	due := func(edit ...func(*manifest.Snapshots)) *scene {
		s := newScene(daily(edit...)).up()
		s.want.Machine.Updated = t0.AddDate(0, 0, -1)
		return s
	}
	failed := func(s *state.Snapshot) { s.TakenUID, s.Failed = "", "no room" }
	last := func(n int) func(*manifest.Snapshots) {
		return func(s *manifest.Snapshots) { s.Keep = &manifest.Keep{Last: n} }
	}
	full := func(s *manifest.Snapshots) { s.Method = manifest.SnapshotFull }
	ran := func(s *scene) *scene { return s.down(driver.EndStopped).recorded().edit(stopped()) }
	longOff := func(s *scene) { s.want.Machine.LastTermination.At = before(3); s.want.Machine.Scheduled = before(2) }
	tag := slotTag(testUID, slot)
	runPlanCases(t, []planCase{
		{"due", due(), "schedule-snapshot " + tag + ";", PhaseRunning},
		{"due, with memory", due(full), "schedule-snapshot " + tag + ";", PhaseRunning},
		{"had already", due().with(scheduled(slot)), "", PhaseRunning},
		{"stopped since the last", ran(due(full)), "schedule-snapshot " + tag + ";", PhaseStopped},
		{"stopped before the last", ran(due()).with(longOff), "", PhaseStopped},
		{"never started", newScene(daily(), stopped()), "", PhaseStopped},
		{"deleting", due().with(func(s *scene) { s.want.Machine.Deleting = &state.Deletion{} }), "powerdown(Stop,1m0s);", PhaseRunning},
		{"another first", due().with(snap(manifest.SnapshotDisk)), "take-snapshot before;", PhaseRunning},
		{"all kept", due().with(scheduled(before(1))).with(scheduled(slot)), "", PhaseRunning},
		{"one too many", due(last(1)).with(scheduled(before(1))).with(scheduled(slot)), "expire-snapshot " + slotTag(testUID, before(1)) + ";", PhaseRunning},
		{"the oldest first", due(last(1)).with(scheduled(before(1))).with(scheduled(before(2))).with(scheduled(slot)), "expire-snapshot " + slotTag(testUID, before(2)) + ";", PhaseRunning},
		{"others' are not counted", due(last(1)).with(scheduled(slot)).with(snap(manifest.SnapshotDisk, func(s *state.Snapshot) { taken(s, testUID, t0.AddDate(-1, 0, 0)) })), "", PhaseRunning},
		{"failed is shown", due().with(scheduled(slot, failed)), "!SnapshotFailed", PhaseRunning},
		{"failed and failed again", due().with(scheduled(before(1), failed)).with(scheduled(slot, failed)), "expire-snapshot " + slotTag(testUID, before(1)) + "; !SnapshotFailed !SnapshotFailed", PhaseRunning},
		{"failed and then taken", due().with(scheduled(before(1), failed)).with(scheduled(slot)), "expire-snapshot " + slotTag(testUID, before(1)) + "; !SnapshotFailed", PhaseRunning},
	})
}

func TestKeeping_countsPeriods(t *testing.T) {
	// One every six hours for a year, newest first.
	var all []*state.Snapshot
	newest := time.Date(2026, 12, 31, 18, 0, 0, 0, time.UTC)
	for i := range 4 * 365 {
		s := newSnap(fmt.Sprint("s", i), "web", manifest.SnapshotDisk)
		s.Created = newest.Add(-time.Duration(i) * 6 * time.Hour)
		all = append(all, s)
	}
	for _, c := range []struct {
		keep manifest.Keep
		want []string
	}{
		{manifest.Keep{Last: 2}, []string{"2026-12-31T12", "2026-12-31T18"}},
		{manifest.Keep{Hourly: 2}, []string{"2026-12-31T12", "2026-12-31T18"}},
		{manifest.Keep{Daily: 3}, []string{"2026-12-29T18", "2026-12-30T18", "2026-12-31T18"}},
		{manifest.Keep{Weekly: 2}, []string{"2026-12-27T18", "2026-12-31T18"}},
		{manifest.Keep{Monthly: 3}, []string{"2026-10-31T18", "2026-11-30T18", "2026-12-31T18"}},
		{manifest.Keep{Last: 1, Daily: 2, Monthly: 2}, []string{"2026-11-30T18", "2026-12-30T18", "2026-12-31T18"}},
	} {
		var got []string
		for s := range keeping(c.keep, all, time.UTC) {
			got = append(got, s.Created.Format("2006-01-02T15"))
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.keep, diff)
		}
	}
}

// The newest one of each count's periods always stays, nothing else does, and pruning
// a second time prunes nothing.
func TestKeeping_random_isStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := manifest.Keep{
			Last: rapid.IntRange(0, 4).Draw(t, "last"), Daily: rapid.IntRange(0, 4).Draw(t, "daily"),
			Weekly: rapid.IntRange(0, 4).Draw(t, "weekly"), Monthly: rapid.IntRange(1, 4).Draw(t, "monthly"),
		}
		var all []*state.Snapshot
		when := t0
		for i := range rapid.IntRange(1, 60).Draw(t, "n") {
			when = when.Add(-time.Duration(rapid.IntRange(1, 400).Draw(t, "hours")) * time.Hour)
			s := newSnap(fmt.Sprint("s", i), "web", manifest.SnapshotDisk)
			s.Created = when
			all = append(all, s)
		}
		kept := keeping(keep, all, time.UTC)
		if !kept[all[0]] {
			t.Fatal("the newest one is not kept")
		}
		if most := keep.Last + keep.Daily + keep.Weekly + keep.Monthly; len(kept) > most {
			t.Fatalf("%d are kept by %+v", len(kept), keep)
		}
		left := slices.DeleteFunc(slices.Clone(all), func(s *state.Snapshot) bool { return !kept[s] })
		if again := keeping(keep, left, time.UTC); len(again) != len(left) {
			t.Fatalf("of %d that were kept %d stay", len(left), len(again))
		}
	})
}

// A controller takes one a day, deletes the old ones, catches one up after it was
// away, and leaves what others took alone.
func TestController_schedule_takesAndDeletes(t *testing.T) {
	inWorld(t, func(w *world) {
		vm := newVM("web", daily(func(s *manifest.Snapshots) { s.Keep = &manifest.Keep{Last: 3} }))
		w.apply(ApplyOptions{}, vm)
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "mine", Method: manifest.SnapshotDisk}); err != nil {
			w.Fatal(err)
		}
		run := func(days int) {
			ctx, cancel := context.WithTimeout(w.Context(), time.Duration(days)*24*time.Hour)
			defer cancel()
			c := NewController(ControllerConfig{Engine: w.engine, Load: func(context.Context) (*manifest.Set, error) { return setOf(vm), nil }})
			if err := c.Run(ctx); err != nil {
				w.Fatal(err)
			}
		}
		autos := func() (tags []string) {
			for tag := range w.host.obs("web").Snapshots {
				if strings.HasPrefix(tag, "auto-") {
					tags = append(tags, tag)
				}
			}
			return tags
		}
		run(2)
		if got := autos(); len(got) != 2 {
			w.Errorf("after two days there are %v", got)
		}
		run(5)
		if got := autos(); len(got) != 3 {
			w.Errorf("after a week there are %v", got)
		}
		after(w.Context(), 10*24*time.Hour) // nobody watches
		before := len(w.host.called())
		run(1)
		took := 0
		for _, call := range w.host.called()[before:] {
			if strings.Contains(call, " take auto-") {
				took++
			}
		}
		if took != 2 { // one that was missed, and that of the day
			w.Errorf("after ten days away %d were taken: %v", took, w.host.called()[before:])
		}
		if _, there := w.host.obs("web").Snapshots["mine"]; !there {
			w.Error("a snapshot that somebody took is gone")
		}
	})
}
