package reconcile

import (
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// snap adds a Snapshot object to a scene.
func snap(method manifest.SnapshotMethod, edit ...func(*state.Snapshot)) func(*scene) {
	return func(s *scene) {
		object := newSnap("before", "web", method)
		for _, f := range edit {
			f(object)
		}
		s.want.Snapshots = append(s.want.Snapshots, object)
	}
}

func probed(s *manifest.VirtualMachineSpec) {
	s.Readiness = &manifest.Readiness{TCP: &manifest.TCPReadiness{Port: 22}}
}

// savingJob puts a running job of the snapshot into a scene.
func savingJob(status string) func(*scene) {
	return func(s *scene) {
		s.obs.Intent = &driver.Intent{
			Kind: driver.IntentSnapshot, Since: t0, Deadline: t0.Add(time.Minute), UID: testUID,
			Snapshot: &driver.SnapshotIntent{Tag: "before", Method: manifest.SnapshotFull, Job: jobName(testUID)},
		}
		s.obs.Guest.Jobs = []driver.Job{{ID: jobName(testUID), Type: "snapshot-save", Status: status}}
	}
}

func TestPlanMachine_snapshots(t *testing.T) {
	const disk, full = manifest.SnapshotDisk, manifest.SnapshotFull
	up := func(edit ...func(*manifest.VirtualMachineSpec)) *scene { return newScene(edit...).up() }
	off := func() *scene {
		return newScene().up().down(driver.EndStopped).recorded().edit(stopped())
	}
	here := func(size int64) func(*scene) {
		return func(s *scene) { s.obs.Snapshots["before"] = driver.SnapshotState{Tag: "before", VMStateSize: size} }
	}
	wasTaken := func(s *state.Snapshot) { taken(s, testUID, t0) }
	deleting := func(data bool) func(*state.Snapshot) {
		return func(s *state.Snapshot) { s.Deleting = &state.Deletion{Who: "x", DeleteDisks: data} }
	}
	dataToo := func(s *state.Snapshot) { s.Object.Spec.OnDelete = manifest.SnapshotDelete }
	late := func(s *scene) { s.now = t0.Add(time.Hour) }
	deaf := func(s *scene) {
		s.obs.Presence, s.obs.Reason, s.obs.Message, s.obs.Guest = driver.Unresponsive, driver.ReasonNoAnswer, "no answer", nil
	}
	runPlanCases(t, []planCase{
		{"disk, running", up().with(snap(disk)), "take-snapshot before;", PhaseRunning},
		{"full, running", up().with(snap(full)), "take-snapshot before;", PhaseRunning},
		{"disk, stopped", off().with(snap(disk)), "take-snapshot before;", PhaseStopped},
		{"full, stopped", off().with(snap(full)), "!SnapshotPending", PhaseStopped},
		{"stopped, never started", newScene(stopped()).with(snap(disk)), "!SnapshotPending", PhaseStopped},
		{"one step at a time", up().with(snap(disk)).with(snap(disk, func(s *state.Snapshot) { s.Object.Metadata.Name = "other" })), "take-snapshot before;", PhaseRunning},
		{"after the start", newScene().with(snap(disk)), "identity; create-disk root; start;", PhasePending},
		{"after Ready", up(probed).with(snap(disk)), "wait,exit,ready,2m0s", PhaseRunning},
		{"is Ready", up(probed).with(snap(disk)).with(func(s *scene) { s.obs.Ready = true }), "take-snapshot before;", PhaseRunning},
		{"never Ready", up(probed).with(snap(disk)).with(late), "!SnapshotPending", PhaseRunning},
		{"paused before Ready", up(probed, power(manifest.PowerPaused)).with(snap(disk)), "!SnapshotPending", PhasePaused},
		{"io-error", up().with(snap(disk)).with(func(s *scene) { s.obs.Guest.RunState = "io-error" }), "!IOError !SnapshotPending", PhasePaused},
		{"there already", up().with(snap(disk)).with(here(0)), "finish-snapshot before;", PhaseRunning},
		{"there already, with memory", up().with(snap(full)).with(here(9)), "finish-snapshot before;", PhaseRunning},
		{"there already, without memory", up().with(snap(full)).with(here(0)), "!SnapshotConflict", PhaseRunning},
		{"taken", up().with(snap(disk, wasTaken)).with(here(0)), "", PhaseRunning},
		{"taken and gone", up().with(snap(disk, wasTaken)), "", PhaseRunning},
		{"taken of another machine", up().with(snap(disk, func(s *state.Snapshot) { taken(s, "old", t0) })), "take-snapshot before;", PhaseRunning},
		{"failed", up().with(snap(disk, func(s *state.Snapshot) { s.Failed = "no room" })), "!SnapshotFailed", PhaseRunning},
		{"disks not asked", up().with(snap(disk)).with(func(s *scene) { s.obs.SnapshotsKnown = false }), "!SnapshotsUnknown", PhaseRunning},
		{"job runs", up().with(snap(full)).with(savingJob("running")), "wait,exit,job,1m0s", PhaseRunning},
		{"job runs, stop wanted", up().with(snap(full)).with(savingJob("running")).edit(stopped()), "wait,exit,job,1m0s", PhaseRunning},
		{"job runs, stop forced", up().with(snap(full)).with(savingJob("running")).edit(stopped()).with(func(s *scene) { s.opt.Force = true }), "quit(Stop,10s);", PhaseRunning},
		{"job runs, restart allowed", up().with(snap(full)).with(savingJob("running")).edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }).with(func(s *scene) { s.opt.AllowRestart = true }), "wait,exit,job,1m0s", PhaseRunning},
		{"job makes QEMU deaf", up().with(snap(full)).with(savingJob("running")).with(deaf), "wait,exit,job,1m0s", PhaseRunning},
		{"job makes QEMU deaf, stop wanted", up().with(snap(full)).with(savingJob("running")).edit(stopped()).with(deaf), "wait,exit,job,1m0s", PhaseRunning},
		{"job makes QEMU deaf, stop forced", up().with(snap(full)).with(savingJob("running")).edit(stopped()).with(deaf).with(func(s *scene) { s.opt.Force = true }), "kill(Stop,5s);", PhaseRunning},
		{"job makes QEMU deaf for too long", up().with(snap(full)).with(savingJob("running")).with(deaf).with(late), "!NoAnswer", PhaseUnresponsive},
		{"job too late", up().with(snap(full)).with(savingJob("running")).with(late), "!SnapshotStuck", PhaseRunning},
		{"job over", up().with(snap(full)).with(savingJob("concluded")), "finish-snapshot before;", PhaseRunning},
		{"job gone", up().with(snap(full)).with(savingJob("running")).with(func(s *scene) { s.obs.Guest.Jobs = nil }), "take-snapshot before;", PhaseRunning},
		{"job gone, tag there", up().with(snap(full)).with(savingJob("running")).with(here(9)).with(func(s *scene) { s.obs.Guest.Jobs = nil }), "clear-intent; finish-snapshot before;", PhaseRunning},
		{"delete, data kept", up().with(snap(disk, wasTaken, deleting(false))).with(here(0)), "forget-snapshot before;", PhaseRunning},
		{"delete with data by key", up().with(snap(disk, wasTaken, dataToo, deleting(false))).with(here(0)), "delete-snapshot before;", PhaseRunning},
		{"delete with data by word", up().with(snap(disk, wasTaken, deleting(true))).with(here(0)), "delete-snapshot before;", PhaseRunning},
		{"delete, data of somebody else", up().with(snap(disk, dataToo, deleting(false))).with(here(0)), "forget-snapshot before;", PhaseRunning},
		{"delete, data gone", up().with(snap(disk, wasTaken, dataToo, deleting(false))), "forget-snapshot before;", PhaseRunning},
		{"delete, disks not asked", up().with(snap(disk, wasTaken, dataToo, deleting(false))).with(func(s *scene) { s.obs.SnapshotsKnown = false }), "!SnapshotsUnknown", PhaseRunning},
		{"delete, stopped", off().with(snap(disk, wasTaken, deleting(true))).with(here(0)), "delete-snapshot before;", PhaseStopped},
	})
}

func TestPlanMachine_snapshotQuiesceRequired_waitsForAnAgent(t *testing.T) {
	required := func(s *state.Snapshot) { s.Object.Spec.Quiesce = manifest.QuiesceRequired }
	agent := func(s *manifest.VirtualMachineSpec) { s.GuestAgent = &manifest.GuestAgent{} }
	up := func(edit ...func(*manifest.VirtualMachineSpec)) *scene {
		return newScene(edit...).up().with(snap(manifest.SnapshotDisk, required))
	}
	open := func(s *scene) { s.obs.Guest.Agent = &driver.GAgent{Open: true} }
	paused := func(s *scene) { s.obs.Guest.RunState = runPaused }
	left := func(s *scene) { s.obs.Freeze = &driver.Freeze{UID: testUID, Since: t0, Who: "snapshot"} }
	full := func(s *state.Snapshot) { s.Object.Spec.Method = manifest.SnapshotFull }
	runPlanCases(t, []planCase{
		{"no port", up(), "!SnapshotPending", PhaseRunning},
		{"no agent", up(agent), "!SnapshotPending", PhaseRunning},
		{"an agent", up(agent).with(open), "take-snapshot before;", PhaseRunning},
		{"paused", up(agent, power(manifest.PowerPaused)).with(paused), "take-snapshot before;", PhasePaused},
		{"stopped", up(agent).down(driver.EndStopped).recorded().edit(stopped()), "take-snapshot before;", PhaseStopped},
		{"with memory", newScene().up().with(snap(manifest.SnapshotFull, required, full)), "take-snapshot before;", PhaseRunning},
		{"left frozen", up(agent).with(open).with(left), "thaw;", PhaseRunning},
	})
	for _, how := range []manifest.Quiesce{manifest.QuiesceRequired, manifest.QuiesceNever, ""} {
		p := newScene(agent).up().with(open).with(snap(manifest.SnapshotDisk, func(s *state.Snapshot) { s.Object.Spec.Quiesce = how })).plan()
		if got := p.Steps[0].request().Quiesce; got != how {
			t.Errorf("quiesce %q becomes %q", how, got)
		}
	}
}

func TestStatusOf_snapshots_showEachPhase(t *testing.T) {
	const disk = manifest.SnapshotDisk
	named := func(name string) func(*state.Snapshot) {
		return func(s *state.Snapshot) { s.Object.Metadata.Name = name }
	}
	s := newScene().up().
		with(snap(disk, named("pending"))).
		with(snap(disk, named("taken"), func(s *state.Snapshot) { taken(s, testUID, t0) })).
		with(snap(disk, named("missing"), func(s *state.Snapshot) { taken(s, testUID, t0) })).
		with(snap(disk, named("failed"), func(s *state.Snapshot) { s.Failed = "no room" })).
		with(snap(disk, named("deleting"), func(s *state.Snapshot) { s.Deleting = &state.Deletion{} })).
		with(snap(disk)).with(savingJob("running"))
	s.obs.Snapshots["taken"] = driver.SnapshotState{Tag: "taken"}
	s.obs.Snapshots["byhand"] = driver.SnapshotState{Tag: "byhand", VMStateSize: 5}
	got := map[string]SnapshotStatus{}
	for _, one := range StatusOf(s.want, s.obs, s.plan(), t0).Snapshots {
		got[one.Name] = one
	}
	want := map[string]SnapshotPhase{
		"pending": SnapshotPending, "taken": SnapshotTaken, "missing": SnapshotMissing, "failed": SnapshotFailed,
		"deleting": SnapshotDeleting, "before": SnapshotTaking, "byhand": SnapshotTaken,
	}
	for name, phase := range want {
		if got[name].Phase != phase {
			t.Errorf("%s is %s, want %s", name, got[name].Phase, phase)
		}
		if declared := name != "byhand"; got[name].Declared != declared {
			t.Errorf("%s: declared is %v", name, got[name].Declared)
		}
	}
	if got["byhand"].Method != manifest.SnapshotFull {
		t.Errorf("a tag with memory is shown as %s", got["byhand"].Method)
	}
}
