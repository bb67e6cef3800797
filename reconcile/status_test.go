package reconcile

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func (s *scene) status() Status { return StatusOf(s.want, s.obs, s.plan(), s.now) }

// conditionTypes are the types of a status' conditions with their reasons.
func conditionTypes(s Status) []string {
	var out []string
	for _, c := range s.Conditions {
		out = append(out, c.Type+"="+c.Status+"/"+c.Reason)
	}
	return out
}

func TestStatusOf_conditions_areThereWhileTrue(t *testing.T) {
	cases := []struct {
		name  string
		scene *scene
		want  []string
	}{
		{"running", newScene().up(), []string{"Ready=True/Ready"}},
		{"not probed yet", newScene(probed).up(), []string{"Ready=False/NotReadyYet"}},
		{"probed in vain", newScene(probed).up().with(func(s *scene) { s.now = t0.Add(time.Hour) }), []string{"Ready=False/ReadinessTimeout"}},
		{"new", newScene(), []string{"Ready=False/Pending", "Reconciling=True/StepsToDo"}},
		{"stopping", newScene().up().edit(stopped()).intent(driver.IntentStop, driver.StageQuit, time.Minute), []string{"Ready=False/Stopping", "Reconciling=True/Waiting"}},
		{"restart owed", newScene().up().edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }), []string{"Ready=True/Ready", "RestartRequired=True/ChangesPending"}},
		{"drifted", newScene().up().with(func(s *scene) { s.obs.Guest.CPUs = 9 }), []string{"Ready=True/Ready", "RestartRequired=True/ChangesPending", "Drifted=True/MachineChanged"}},
		{"crashed", newScene().up().down(driver.EndCrash), []string{"Ready=False/Failed", "Reconciling=True/StepsToDo", "Drifted=True/MachineChanged"}},
		{"held", newScene().up().with(func(s *scene) { s.want.Machine.Hold = &state.Hold{Who: "ann", Generation: 1} }), []string{"Ready=True/Ready", "Held=True/HeldByOperator"}},
		{"io-error", newScene().up().with(func(s *scene) { s.obs.Guest.RunState = "io-error" }), []string{"Ready=False/Paused", "Stalled=True/IOError", "IOError=True/IOError"}},
		{"silent", newScene().up().with(func(s *scene) {
			s.obs.Presence, s.obs.Guest, s.obs.Reason = driver.Unresponsive, nil, driver.ReasonSocketsLost
		}), []string{"Ready=Unknown/Unresponsive", "Stalled=True/SocketsLost", "Unresponsive=True/SocketsLost"}},
		{"unknown", newScene().up().with(func(s *scene) { s.obs.Presence, s.obs.Guest = driver.Unknown, nil }), []string{"Ready=Unknown/Unknown", "Stalled=True/LookFailed"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, conditionTypes(c.scene.status())); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusOf_transitionTime_isKeptWhileTheStatusIs(t *testing.T) {
	s := newScene().up()
	first := s.status()
	s.want.Machine.Conditions = first.Conditions
	s.now = t0.Add(time.Minute)
	if got := s.status().Conditions[0]; !got.LastTransitionTime.Equal(t0) {
		t.Errorf("nothing has changed, yet the time has: %+v", got)
	}
	s.obs.Ready = false
	if got := s.status().Conditions[0]; !got.LastTransitionTime.Equal(s.now) || got.Status != "False" {
		t.Errorf("the status has changed, the time has not: %+v", got)
	}
}

func TestStatus_json_hasThePromisedKeys(t *testing.T) {
	s := newScene(rich).up().with(snap(manifest.SnapshotDisk, func(s *state.Snapshot) { taken(s, testUID, t0) }))
	s.obs.Snapshots["before"] = driver.SnapshotState{Tag: "before", Disks: []string{"root"}}
	text, err := json.Marshal(s.status())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"phase", "pid", "uid", "conditions", "restarts", "startedAt", "observed", "snapshots", "observedGeneration"} {
		if _, ok := got[key]; !ok {
			t.Errorf("status lacks %s: %s", key, text)
		}
	}
	observed, ok := got["observed"].(map[string]any)
	if !ok {
		t.Fatalf("observed is %T", got["observed"])
	}
	for _, key := range []string{"cpus", "memory", "disks", "nics", "devices", "runState", "qemuVersion", "accelerator", "machineType"} {
		if _, ok := observed[key]; !ok {
			t.Errorf("observed lacks %s: %s", key, text)
		}
	}
	if observed["memory"] != "512Mi" || observed["cpus"] != 2.0 {
		t.Errorf("observed: %v", observed)
	}
}

func TestStatusOf_endedMachine_saysHow(t *testing.T) {
	s := newScene().up().down(driver.EndCrash)
	s.obs.Ended.LastLine = "out of memory"
	got := s.status().LastTermination
	if got == nil || got.Cause != driver.EndCrash || got.LastLine != "out of memory" || got.Generation != 1 {
		t.Errorf("termination: %+v", got)
	}
}

func TestOutcome_ofResults(t *testing.T) {
	held := Plan{Held: &state.Hold{}}
	cases := []struct {
		name   string
		result Result
		want   Outcome
	}{
		{"done", Result{}, Outcome{}},
		{"failed", Result{Err: errors.New("x")}, Outcome{Failed: true}},
		{"refused", Result{Err: &Error{Err: &driver.LifecycleError{Refused: true, Err: errors.New("x")}}}, Outcome{Failed: true, Refused: true}},
		{"interrupted", Result{Err: &Error{Err: ErrInterrupted}}, Outcome{Interrupted: true}},
		{"timed out", Result{Err: &Error{Err: ErrTimedOut}}, Outcome{Pending: true}},
		{"held", Result{Plan: held}, Outcome{Pending: true}},
		{"held as asked", Result{Plan: held, HoldAsked: true}, Outcome{}},
		{"owed", Result{Plan: Plan{Changes: []Change{{Pending: true}}}}, Outcome{Pending: true}},
		{"cannot be taken yet", Result{Plan: Plan{Problems: []Problem{{Reason: ReasonSnapshotPending}}}}, Outcome{Pending: true}},
		{"silent", Result{Plan: Plan{Problems: []Problem{{Reason: driver.ReasonNoAnswer}}}}, Outcome{Failed: true}},
		{"late", Result{Degraded: true}, Outcome{Degraded: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.result.Outcome(); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestForecast_showsAllPassesUntilSettled(t *testing.T) {
	cases := []struct {
		name  string
		scene *scene
		want  []string
	}{
		{"new", newScene(), []string{"identity; create-disk root; start;", ""}},
		{"new, with snapshots", newScene(probed).with(snap(manifest.SnapshotFull)), []string{
			"identity; create-disk root; start;", "wait,exit,ready,2m0s", "take-snapshot before;", "wait,exit,job,5m0s", "finish-snapshot before;", "",
		}},
		{"stop", newScene().up().edit(stopped()), []string{"powerdown(Stop,1m0s);", "wait,exit,1m0s", "record-end;", ""}},
		{"restart", newScene().up().with(func(s *scene) { s.opt.Restart = true }), []string{
			"powerdown(Restart,1m0s);", "wait,exit,1m0s", "record-end; start;", "",
		}},
		{"delete", newScene().up().with(func(s *scene) { s.want.Machine.Deleting = &state.Deletion{} }), []string{
			"powerdown(Stop,1m0s);", "wait,exit,1m0s", "record-end; forget;",
		}},
		{"held", newScene().up().with(func(s *scene) { s.want.Machine.Hold = &state.Hold{Generation: 1} }), []string{"held"}},
		{"unknown", newScene().with(func(s *scene) { s.obs.Presence = driver.Unknown }), []string{"!LookFailed"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, p := range Forecast(c.scene.want, c.scene.obs, c.scene.opt, c.scene.now) {
				got = append(got, summary(p))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("passes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProblems_eachReason_isInOneList(t *testing.T) {
	owed := []string{ReasonSnapshotPending, ReasonHeld}
	for _, reason := range []string{
		ReasonStuck, ReasonStarting, ReasonIOError, ReasonGuestFailed, ReasonRunState, ReasonIdentityLost, ReasonDiskLost,
		ReasonDiskMissing, ReasonDiskUnknown, ReasonDiskSize, ReasonSnapshotPending, ReasonSnapshotFailed, ReasonSnapshotStuck,
		ReasonSnapshotConflict, ReasonSnapshotsUnknown, ReasonHeld, driver.ReasonNoAnswer, driver.ReasonSocketsLost,
		ReasonNotAsStarted,
	} {
		if got := (Problem{Reason: reason}).Owed(); got != slices.Contains(owed, reason) {
			t.Errorf("%s: owed is %v", reason, got)
		}
	}
}
