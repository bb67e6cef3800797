package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// wanted asks for a restore of a scene's snapshot.
func wanted(tag string, edit ...func(*state.Restore)) func(*scene) {
	return func(s *scene) {
		r := &state.Restore{Snapshot: tag, Since: t0, Who: "ann"}
		for _, f := range edit {
			f(r)
		}
		s.want.Machine.Restore = r
	}
}

// loadingJob puts the job of a load into a scene.
func loadingJob(status, failure string) func(*scene) {
	return func(s *scene) {
		s.obs.Intent = &driver.Intent{
			Kind: driver.IntentRestore, Since: t0, Deadline: t0.Add(time.Minute), UID: testUID,
			Snapshot: &driver.SnapshotIntent{Tag: "full", Method: manifest.SnapshotFull, Job: restoreJobName(testUID)},
		}
		s.obs.Guest.RunState = runPaused
		s.obs.Guest.Jobs = []driver.Job{{ID: restoreJobName(testUID), Type: "snapshot-load", Status: status, Error: failure}}
	}
}

func TestPlanMachine_restore(t *testing.T) {
	up := func() *scene {
		s := newScene().up()
		s.addSnapshot("full", 9)
		s.addSnapshot("disk", 0)
		return s
	}
	off := func(cause driver.EndCause) *scene { return up().down(cause).recorded() }
	more := func(s *scene) { s.obs.Guest.Memory *= 2 }
	failed := func(r *state.Restore) { r.Failed = "no luck" }
	gaveUp := func(r *state.Restore) { r.Failed, r.GaveUp = "no luck", "no start" }
	launched := func(r *state.Restore) { r.Launched = true }
	disksOnly := func(r *state.Restore) { r.DisksOnly = true }
	late := func(s *scene) { s.now = t0.Add(time.Hour) }
	noJob := func(s *scene) { s.obs.Guest.Jobs = nil }
	deaf := func(s *scene) {
		s.obs.Presence, s.obs.Reason, s.obs.Guest = driver.Unresponsive, driver.ReasonNoAnswer, nil
	}
	runPlanCases(t, []planCase{
		{"memory, same devices", up().with(wanted("full")), "load-snapshot full;", PhaseRunning},
		{"memory, other devices", up().with(more).with(wanted("full")), "quit(Restart,10s);", PhaseRunning},
		{"memory, other devices although started for it", up().with(more).with(wanted("full", launched)), "end-restore full;", PhaseRunning},
		{"memory, same devices, a stop is under way", up().with(wanted("full", launched)).intent(driver.IntentStop, driver.StagePowerdown, time.Minute), "quit(Restart,10s);", PhaseStopping},
		{"memory, stopped", off(driver.EndCrash).with(wanted("full")), "start full(paused);", PhaseFailed},
		{"memory, completed", off(driver.EndGuest).with(wanted("full")), "start full(paused);", PhaseCompleted},
		{"memory, stopped for good", off(driver.EndStopped).edit(stopped()).with(wanted("full")), "revert-disks full;", PhaseStopped},
		{"disks, stopped", off(driver.EndStopped).with(wanted("disk")), "revert-disks disk;", PhasePending},
		{"disks of a Full one", off(driver.EndStopped).with(wanted("full", disksOnly)), "revert-disks full;", PhasePending},
		{"disks, running", up().with(wanted("disk")), "powerdown(Restart,1m0s);", PhaseRunning},
		{"gone", up().with(wanted("none")), "end-restore none;", PhaseRunning},
		{"gone, stopped", off(driver.EndStopped).with(wanted("none")), "end-restore none;", PhasePending},
		{"disks not asked", up().with(wanted("full")).with(func(s *scene) { s.obs.SnapshotsKnown = false }), "!SnapshotsUnknown", PhaseRunning},
		{"all are stopped", off(driver.EndStopped).with(wanted("disk")).with(func(s *scene) { s.opt.Stop = true }), "", PhasePending},
		{"a stop is wanted", up().edit(stopped()).with(wanted("full")), "powerdown(Stop,1m0s);", PhaseRunning},
		{"deleting", up().with(wanted("full")).with(func(s *scene) { s.want.Machine.Deleting = &state.Deletion{} }), "powerdown(Stop,1m0s);", PhaseRunning},

		{"job runs", up().with(wanted("full")).with(loadingJob("running", "")), "wait,exit,job,1m0s", PhasePaused},
		{"job makes QEMU deaf", up().with(wanted("full")).with(loadingJob("running", "")).with(deaf), "wait,exit,job,1m0s", PhaseRunning},
		{"job too late", up().with(wanted("full")).with(loadingJob("running", "")).with(late), "!RestoreFailed", PhasePaused},
		{"job over", up().with(wanted("full")).with(loadingJob("concluded", "")), "finish-load full;", PhasePaused},
		{"job never begun", up().with(wanted("full")).with(loadingJob("running", "")).with(noJob), "clear-intent; load-snapshot full;", PhasePaused},
		{"job failed", up().with(wanted("full")).with(loadingJob("concluded", "no luck")), "fail-restore full;", PhasePaused},
		{"job failed, noted", up().with(loadingJob("concluded", "no luck")).with(wanted("full", failed)).with(func(s *scene) { s.obs.Intent = nil }), "quit(Restart,10s);", PhasePaused},
		{"job failed, given up by a person", up().with(loadingJob("concluded", "no luck")).with(func(s *scene) { s.obs.Intent = nil }), "!RestoreFailed", PhasePaused},
		{"failed, ended", off(driver.EndStopped).with(wanted("full", failed)), "start full;", PhaseFailed},
		{"failed, ended, not to run", off(driver.EndStopped).edit(stopped()).with(wanted("full", failed)), "end-restore full;", PhaseStopped},
		{"nothing helped", off(driver.EndStopped).with(wanted("full", gaveUp)), "!RestoreFailed", PhaseFailed},
	})
}

func TestForecast_restore_goesOnToTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		scene *scene
		want  string
	}{
		"running": {newScene().up(), "load-snapshot full; wait,exit,job,5m0s finish-load full; resume;"},
		"stopped": {newScene().up().down(driver.EndStopped).recorded(), "start full(paused); load-snapshot full; wait,exit,job,5m0s finish-load full; resume;"},
	} {
		up := newScene().up()
		up.addSnapshot("full", 9)
		c.scene.obs.Snapshots["full"] = up.obs.Snapshots["full"]
		c.scene.with(wanted("full"))
		did := ""
		for _, p := range Forecast(c.scene.want, c.scene.obs, c.scene.opt, c.scene.now) {
			did = strings.TrimSpace(did + " " + summary(p))
		}
		if did != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, did, c.want)
		}
	}
}
