package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/reconcile"
	"github.com/maqet/maqet/state"
)

func TestJobsOf_tellsWhoAskedForWhat(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	intent := func(kind driver.IntentKind) *driver.Intent {
		return &driver.Intent{
			Kind: kind, Since: since, Deadline: since.Add(time.Minute), Who: "ann",
			Snapshot: &driver.SnapshotIntent{Tag: "one", Job: "maqet-1"},
		}
	}
	ask := func(l jobLine) jobLine {
		l.Machine, l.For, l.Since, l.Until, l.Who = "web", "one", since, since.Add(time.Minute), "ann"
		return l
	}
	alive := func(in *driver.Intent, jobs ...driver.Job) driver.Observed {
		return driver.Observed{Presence: driver.Alive, Intent: in, Guest: &driver.Guest{Jobs: jobs}}
	}
	for name, c := range map[string]struct {
		obs  driver.Observed
		want []jobLine
	}{
		"none":       {alive(nil), nil},
		"a stop":     {alive(&driver.Intent{Kind: driver.IntentStop}), nil},
		"no process": {driver.Observed{Presence: driver.Absent, Intent: intent(driver.IntentSnapshot)}, nil},
		"ours and another's": {
			alive(intent(driver.IntentSnapshot), driver.Job{ID: "copy", Type: "mirror", Status: "running", Current: 1, Total: 4}, driver.Job{ID: "maqet-1", Type: "snapshot-save", Status: "concluded", Current: 1, Total: 1}),
			[]jobLine{
				{Machine: "web", ID: "copy", Type: "mirror", Status: "running", Percent: 25},
				ask(jobLine{ID: "maqet-1", Type: "snapshot-save", Status: "concluded", Percent: -1}),
			},
		},
		"deaf while it loads": {
			driver.Observed{Presence: driver.Unresponsive, Intent: intent(driver.IntentRestore)},
			[]jobLine{ask(jobLine{ID: "maqet-1", Type: "snapshot-load", Status: "running", Percent: -1})},
		},
	} {
		v := reconcile.View{Machine: &state.Machine{}, Observed: c.obs}
		v.Machine.Object.Metadata.Name = "web"
		if diff := cmp.Diff(c.want, jobsOf(v)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
