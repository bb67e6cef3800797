package reconcile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// backedUp has a machine backed up each hour.
func backedUp(s *manifest.VirtualMachineSpec) {
	s.Backup = &manifest.Backup{Target: "/b", Schedule: "@hourly", TimeZone: "UTC", Mode: manifest.BackupIncremental, Keep: &manifest.Keep{Last: 3}}
}

// conditionsNow are a machine's conditions as another process sees them.
func (w *simWorld) conditionsNow(name string) []state.Condition {
	w.t.Helper()
	views, err := w.cli().Views(w.t.Context(), []string{name}, driver.DepthBrief)
	if err != nil {
		w.t.Fatal(err)
	}
	return views[0].Status.Conditions
}

func TestController_backupDue_isMadeBesideEverythingElse(t *testing.T) {
	controlled(t, []string{"other"}, ApplyOptions{}, func(w *simWorld) {
		w.host.backups.set(func() { w.host.backups.takes = 30 * time.Minute })
		w.put("web.yaml", newVM("web", backedUp))
		w.passes(time.Minute)
		if made := w.host.backups.ofWeb(); len(made) > 0 {
			t.Fatalf("a new schedule is owed a backup: %v", made)
		}
		w.passes(time.Hour)
		// It goes on; the machine, and others, are kept all the same.
		w.crash("web", driver.EndCrash)
		w.passes(time.Minute)
		w.expectRuns("other", "web")
		w.passes(35 * time.Minute)
		made := w.host.backups.ofWeb()
		if len(made) != 1 || made[0].Scheduled.IsZero() || made[0].Scheduled.Minute() != 0 || made[0].Target != "/b" || made[0].Marker != "" {
			t.Fatalf("made: %+v", made)
		}
		w.passes(time.Hour)
		if made = w.host.backups.ofWeb(); len(made) != 2 || made[1].Marker != "mark" || made[1].Scheduled.Sub(made[0].Scheduled) != time.Hour {
			t.Errorf("made: %+v", made)
		}
	})
}

func TestController_backupFails_isAConditionAndTriedAgain(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		w.host.backups.set(func() { w.host.backups.fail = errors.New("the target is gone") })
		w.put("web.yaml", newVM("web", backedUp))
		w.passes(70 * time.Minute)
		c := conditionOf(w.conditionsNow("web"), ConditionBackupFailed)
		if c.Status != "True" || !strings.Contains(c.Message, "the target is gone") || !strings.Contains(c.Message, "there is none") {
			t.Errorf("the condition is %+v", c)
		}
		tries := 0
		w.host.backups.set(func() { tries = w.host.backups.tries })
		if tries < 3 || tries > 30 {
			t.Errorf("%d tries in some minutes", tries)
		}
		w.expectRuns("web")
		w.host.backups.set(func() { w.host.backups.fail = nil })
		w.passes(10 * time.Minute)
		if c := conditionOf(w.conditionsNow("web"), ConditionBackupFailed); c.Status != "" {
			t.Errorf("the condition is still there: %+v", c)
		}
		if made := w.host.backups.ofWeb(); len(made) != 1 {
			t.Errorf("made: %+v", made)
		}
	})
}

func TestController_manyBackupsDue_fewAtOnce(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		for i := range 12 {
			name := fmt.Sprintf("vm%d", i)
			w.put(name+".yaml", newVM(name, backedUp))
		}
		w.passes(80 * time.Minute)
		w.host.backups.mu.Lock()
		defer w.host.backups.mu.Unlock()
		if len(w.host.backups.made) != 12 || w.host.backups.most > maxBackups {
			t.Errorf("%d machines, %d at once", len(w.host.backups.made), w.host.backups.most)
		}
	})
}

func TestController_backupOfAStoppedMachine_onlyWhenItHasRunSince(t *testing.T) {
	controlled(t, nil, ApplyOptions{}, func(w *simWorld) {
		w.put("web.yaml", newVM("web", backedUp, func(s *manifest.VirtualMachineSpec) { s.PowerState = manifest.PowerStopped }))
		w.passes(3 * time.Hour)
		if made := w.host.backups.ofWeb(); len(made) > 0 {
			t.Errorf("it has never run: %+v", made)
		}
	})
}

func TestDueBackup_afterARestartOfTheWatch_isOwedOnce(t *testing.T) {
	rec := &state.Machine{Updated: t0}
	backedUp(&rec.Object.Spec)
	obs := &driver.Observed{Presence: driver.Alive, Guest: &driver.Guest{}}
	now := t0.Add(5*time.Hour + 10*time.Minute)
	slot, due := dueBackup(rec, obs, now)
	if !due || now.Sub(slot) > time.Hour {
		t.Fatalf("due: %v, %v", slot, due)
	}
	rec.Backup = notedBackup(nil, "/b", BackupOptions{Scheduled: slot}, driver.BackupReport{Marker: "m"}, nil, now, Options{})
	if _, due := dueBackup(rec, obs, now); due {
		t.Error("it is due again")
	}
	rec.Backup = notedBackup(rec.Backup, "/b", BackupOptions{}, driver.BackupReport{Marker: "m"}, nil, now, Options{})
	if !rec.Backup.Scheduled.Equal(slot) {
		t.Errorf("one by command has moved the schedule to %v", rec.Backup.Scheduled)
	}
	later := now.Add(time.Hour)
	for _, c := range []struct {
		what string
		not  func(*state.Machine, *driver.Observed)
	}{
		{"a delete", func(m *state.Machine, _ *driver.Observed) { m.Deleting = &state.Deletion{} }},
		{"a restore", func(m *state.Machine, _ *driver.Observed) { m.Restore = &state.Restore{} }},
		{"no answer", func(_ *state.Machine, o *driver.Observed) { o.Presence = driver.Unresponsive }},
		{"a snapshot", func(_ *state.Machine, o *driver.Observed) { o.Intent = &driver.Intent{} }},
		{"a freeze", func(_ *state.Machine, o *driver.Observed) { o.Freeze = &driver.Freeze{} }},
		{"a failure", func(m *state.Machine, _ *driver.Observed) {
			m.Backup = notedBackup(m.Backup, "/b", BackupOptions{Scheduled: later}, driver.BackupReport{}, errors.New("x"), later, Options{Backoff: time.Second, BackoffMax: time.Minute})
		}},
	} {
		m, o := *rec, *obs
		if _, due := dueBackup(&m, &o, later); !due {
			t.Fatal("nothing is due an hour later")
		}
		c.not(&m, &o)
		if _, due := dueBackup(&m, &o, later); due {
			t.Errorf("it is due during %s", c.what)
		}
	}
}
