package reconcile

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func TestPlanMachine_leftFrozen_isThawedFirst(t *testing.T) {
	left := func(edit ...func(*manifest.VirtualMachineSpec)) *scene {
		s := newScene(edit...).up()
		s.obs.Freeze = &driver.Freeze{UID: testUID, Since: t0, Who: "snapshot (pid 7, root)"}
		return s
	}
	held := func(s *scene) { s.obs.Freeze.Held = true }
	failed := func(s *scene) { s.obs.Freeze.Failed = "the agent hangs" }
	paused := func(s *scene) { s.obs.Guest.RunState = runPaused }
	runPlanCases(t, []planCase{
		{"nobody is left to do it", left(), "thaw;", PhaseRunning},
		{"its maker lives", left().with(held), "", PhaseRunning},
		{"it failed before", left().with(failed), "thaw;", PhaseRunning},
		{"before a stop", left().edit(stopped()), "thaw; powerdown(Stop,1m0s);", PhaseRunning},
		{"before a stop, it failed before", left().edit(stopped()).with(failed), "powerdown(Stop,1m0s);", PhaseRunning},
		{"force waits for no agent", left().edit(stopped()).with(func(s *scene) { s.opt.Force = true }), "quit(Stop,10s);", PhaseRunning},
		{"before a restart", left().with(func(s *scene) { s.opt.Restart = true }), "thaw; powerdown(Restart,1m0s);", PhaseRunning},
		{"before a restart, it failed before", left().with(failed).with(func(s *scene) { s.opt.Restart = true }), "powerdown(Restart,1m0s);", PhaseRunning},
		{"a restart is under way, it failed before", left().with(failed).with(func(s *scene) {
			s.obs.Intent = &driver.Intent{Kind: driver.IntentRestart, Stage: driver.StagePowerdown, Since: t0, Deadline: t0.Add(-time.Second), Who: "me", UID: testUID}
		}), "quit(Restart,10s);", PhaseStopping},
		{"a suspended guest wakes up first", left().with(func(s *scene) { s.obs.Guest.RunState = runSuspended }), "!FilesystemsFrozen", PhaseRunning},
		{"a paused guest goes on first", left().with(paused), "resume; !FilesystemsFrozen", PhasePaused},
		{"left alone", left().with(func(s *scene) {
			s.want.Machine.Hold = &state.Hold{Who: "me", Since: t0, Generation: s.want.Machine.Generation}
		}), "!FilesystemsFrozen held", PhaseRunning},
	})
	if why := left().plan().Steps[0].Why; !strings.Contains(why, "snapshot (pid 7, root), which is gone") {
		t.Errorf("thawed because %q", why)
	}
}

func TestApply_leftFrozen_isThawedAndTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		w.host.freeze("web", false)
		w.host.fail["web thaw"] = errors.New("the agent hangs")
		report := w.apply(ApplyOptions{}, newVM("web"))
		if !report.Failed || report.Results[0].Err == nil {
			t.Errorf("a thaw that failed is no failure: %+v", report.Results[0])
		}
		delete(w.host.fail, "web thaw")
		report = w.apply(ApplyOptions{}, newVM("web"))
		w.expectCalls("web create root", "web start", "web thaw", "web thaw")
		if steps := report.Results[0].Steps; len(steps) != 1 || !strings.HasPrefix(steps[0].Message, "thawed the guest's file systems") || report.Failed {
			t.Errorf("steps: %+v", steps)
		}
	})
}

// TestController_leftFrozen_isThawedSoon has nobody tell of the freeze, nor of the end
// of whoever made it.
func TestController_leftFrozen_isThawedSoon(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		w.put("a.yaml", newVM("a"))
		w.passes(10 * time.Second)
		w.host.freeze("a", true)
		w.passes(20 * time.Second)
		if w.host.obs("a").Freeze == nil {
			t.Fatal("thawed while its maker lives")
		}
		w.host.freeze("a", false)
		w.passes(5 * time.Second)
		if f := w.host.obs("a").Freeze; f != nil {
			t.Errorf("still frozen: %+v", f)
		}
	})
}
