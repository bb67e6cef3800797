package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// planCase is one row: a scene and what is planned for it.
type planCase struct {
	name  string
	scene *scene
	want  string
	phase Phase
}

func runPlanCases(t *testing.T, cases []planCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			plan := c.scene.plan()
			if diff := cmp.Diff(c.want, summary(plan)); diff != "" {
				t.Errorf("plan (-want +got):\n%s\nproblems: %v", diff, plan.Problems)
			}
			if status := StatusOf(c.scene.want, c.scene.obs, plan, c.scene.now); status.Phase != c.phase {
				t.Errorf("phase is %s, want %s", status.Phase, c.phase)
			}
			for _, p := range plan.Problems {
				if p.Message == "" || p.Hint == "" {
					t.Errorf("problem %s lacks a message or a hint: %+v", p.Reason, p)
				}
			}
		})
	}
}

func stopped() func(*manifest.VirtualMachineSpec) { return power(manifest.PowerStopped) }

func TestPlanMachine_absent_startsOrSaysWhyNot(t *testing.T) {
	crash := func() *scene { return newScene().up().down(driver.EndCrash) }
	runPlanCases(t, []planCase{
		{"new", newScene(), "identity; create-disk root; start;", PhasePending},
		{"new and paused", newScene(power(manifest.PowerPaused)), "identity; create-disk root; start(paused);", PhasePending},
		{"new and stopped", newScene(stopped()), "", PhaseStopped},
		{"crashed", crash(), "record-end; start;", PhaseFailed},
		{"crash recorded", crash().recorded(), "start;", PhaseFailed},
		{"crashed, stop wanted", crash().edit(stopped()), "record-end;", PhaseStopped},
		{"stopped as asked", newScene().up().down(driver.EndStopped).recorded(), "start;", PhasePending},
		{"ended by signal", newScene().up().down(driver.EndSignal).recorded(), "start;", PhasePending},
		{"host restarted", newScene().up().down(driver.EndHostReboot), "record-end; start;", PhasePending},
		{"never came up", newScene().up().down(driver.EndStartFailed).recorded(), "start;", PhaseFailed},
		{"completed", newScene().up().down(driver.EndGuest), "record-end;", PhaseCompleted},
		{"completed and recorded", newScene().up().down(driver.EndGuest).recorded(), "", PhaseCompleted},
		{"completed, then started", newScene().up().down(driver.EndGuest).recorded().with(func(s *scene) { s.opt.Start = true }), "start;", PhaseCompleted},
		{"completed, then restarted", newScene().up().down(driver.EndGuest).recorded().with(func(s *scene) { s.opt.Restart = true }), "start;", PhaseCompleted},
		{
			"completed, then changed",
			newScene().up().down(driver.EndGuest).recorded().edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }),
			"start;", PhasePending,
		},
		{
			"completed once, started again, then the host restarted without a trace",
			newScene().up().down(driver.EndGuest).recorded().up().with(func(s *scene) {
				s.down(driver.EndCrash)
				s.obs.Ended, s.obs.Launched = nil, nil
			}), "start;", PhasePending,
		},
		{"left over intent", newScene().up().down(driver.EndStopped).recorded().intent(driver.IntentStop, driver.StageQuit, time.Hour), "clear-intent; start;", PhasePending},
		{"disk lost", crash().recorded().with(func(s *scene) { delete(s.obs.Files, "root") }), "!DiskLost", PhaseFailed},
		{"disk lost while the spec changed", crash().recorded().edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }).
			with(func(s *scene) { delete(s.obs.Files, "root") }), "!DiskLost", PhasePending},
		{"disk added", crash().recorded().edit(func(s *manifest.VirtualMachineSpec) {
			s.Disks = append(s.Disks, manifest.Disk{Name: "data", Size: 1 << 30})
		}), "identity; create-disk data; start;", PhasePending},
		{"identity lost", crash().recorded().with(func(s *scene) { s.obs.Identity = nil }), "!IdentityLost", PhaseFailed},
		{"image missing", newScene(func(s *manifest.VirtualMachineSpec) {
			s.Disks = []manifest.Disk{{Name: "iso", File: "/srv/x.iso", Media: manifest.MediaCDROM}}
		}), "!DiskMissing", PhasePending},
		{"server missing", newScene(func(s *manifest.VirtualMachineSpec) {
			s.Disks = []manifest.Disk{{Name: "data", NBD: &manifest.NBD{Unix: "/run/x.sock"}}}
		}), "!DiskMissing", PhasePending},
		{"empty drive", newScene(func(s *manifest.VirtualMachineSpec) {
			s.Disks = []manifest.Disk{{Name: "tray", Media: manifest.MediaCDROM}}
		}), "identity; start;", PhasePending},
		{"image unreadable", newScene().with(func(s *scene) { s.obs.Files["root"] = driver.DiskFile{Err: "permission denied"} }), "!DiskUnknown", PhasePending},
		{"size grown", newScene().up().down(driver.EndStopped).recorded().edit(func(s *manifest.VirtualMachineSpec) { s.Disks[0].Size *= 2 }), "start;", PhasePending},
		{"machine type changed", newScene().up().down(driver.EndStopped).recorded().edit(func(s *manifest.VirtualMachineSpec) { s.Machine.Type = "pc" }), "identity; start;", PhasePending},
		{"unwanted by all", newScene().with(func(s *scene) { s.want.Machine = nil }), "", PhaseStopped},
	})
}

func TestPlanMachine_alive_bringsRunStateToPower(t *testing.T) {
	state := func(run string, edit ...func(*manifest.VirtualMachineSpec)) *scene {
		return newScene(edit...).up().with(func(s *scene) { s.obs.Guest.RunState = run })
	}
	paused := power(manifest.PowerPaused)
	runPlanCases(t, []planCase{
		{"running", state("running"), "", PhaseRunning},
		{"running, pause wanted", state("running", paused), "pause;", PhaseRunning},
		{"paused, run wanted", state("paused"), "resume;", PhasePaused},
		{"paused as wanted", state("paused", paused), "", PhasePaused},
		{"started paused, as wanted", newScene(paused).up(), "", PhasePaused},
		{"started paused, run wanted", newScene(paused).up().edit(power(manifest.PowerRunning)), "resume;", PhasePaused},
		{"still starting", state("prelaunch"), "wait,exit,30s", PhaseStarting},
		{"starting for too long", state("prelaunch").with(func(s *scene) { s.now = t0.Add(time.Minute) }), "!StartingTooLong", PhaseStarting},
		{"io-error", state("io-error"), "!IOError", PhasePaused},
		{"io-error, pause wanted", state("io-error", paused), "!IOError", PhasePaused},
		{"panicked", state("guest-panicked"), "!GuestFailed", PhaseFailed},
		{"internal error", state("internal-error"), "!GuestFailed", PhaseFailed},
		{"watchdog", state("watchdog"), "!GuestFailed", PhaseFailed},
		{"restore-vm without a job", state("restore-vm"), "!GuestFailed", PhaseFailed},
		{"restore-vm with a job", state("restore-vm").with(func(s *scene) {
			s.obs.Guest.Jobs = []driver.Job{{ID: "x", Type: "snapshot-load", Status: "running"}}
		}), "", PhasePaused},
		{"suspended", state("suspended"), "", PhaseRunning},
		{"saving", state("save-vm"), "", PhaseRunning},
		{"migrated", state("finish-migrate"), "", PhaseRunning},
		{"shutting down", state("shutdown"), "wait,exit,10s", PhaseStopping},
		{"some other", state("colo"), "!UnexpectedRunState", PhaseUnknown},
		{"panicked, restart asked", state("guest-panicked").with(func(s *scene) { s.opt.Restart = true }), "quit(Restart,10s);", PhaseFailed},
		{"panicked, stop wanted", state("guest-panicked").edit(stopped()), "quit(Stop,10s);", PhaseFailed},
	})
}

func TestPlanMachine_stop_goesStageByStage(t *testing.T) {
	up := func() *scene { return newScene().up() }
	down := func() *scene { return up().edit(stopped()) }
	force := func(s *scene) { s.opt.Force = true }
	late := func(s *scene) { s.now = t0.Add(2 * time.Minute) }
	more := func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }
	allowed := func(s *scene) { s.opt.AllowRestart = true }
	const stop, restart = driver.IntentStop, driver.IntentRestart
	runPlanCases(t, []planCase{
		{"begins by asking", down(), "powerdown(Stop,1m0s);", PhaseRunning},
		{"its own timeout", down().edit(func(s *manifest.VirtualMachineSpec) { s.Shutdown.Timeout = manifest.Duration(7 * time.Second) }), "powerdown(Stop,7s);", PhaseRunning},
		{"the table's timeout", down().with(func(s *scene) { s.opt.Shutdown = 9 * time.Second }), "powerdown(Stop,9s);", PhaseRunning},
		{"paused", down().with(func(s *scene) { s.obs.Guest.RunState = "paused" }), "quit(Stop,10s);", PhasePaused},
		{"forced", down().with(force), "quit(Stop,10s);", PhaseRunning},
		{"asked, in time", down().intent(stop, driver.StagePowerdown, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"asked, too late", down().intent(stop, driver.StagePowerdown, time.Minute).with(late), "quit(Stop,10s);", PhaseStopping},
		{"asked, then forced", down().intent(stop, driver.StagePowerdown, time.Minute).with(force), "quit(Stop,10s);", PhaseStopping},
		{"asked, then paused", down().intent(stop, driver.StagePowerdown, time.Minute).with(func(s *scene) { s.obs.Guest.RunState = "paused" }), "quit(Stop,10s);", PhaseStopping},
		{"quit, in time", down().intent(stop, driver.StageQuit, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"quit, in time, forced", down().intent(stop, driver.StageQuit, time.Minute).with(force), "wait,exit,1m0s", PhaseStopping},
		{"quit, too late", down().intent(stop, driver.StageQuit, time.Minute).with(late), "kill(Stop,5s);", PhaseStopping},
		{"killed, in time", down().intent(stop, driver.StageKill, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"killed, too late", down().intent(stop, driver.StageKill, time.Minute).with(late), "!Stuck", PhaseStopping},
		{"another process's intent", down().intent(stop, driver.StageKill, time.Minute).with(func(s *scene) { s.obs.Intent.UID = "other" }), "powerdown(Stop,1m0s);", PhaseRunning},
		{"no longer wanted, may still happen", up().intent(stop, driver.StagePowerdown, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"no longer wanted, did not happen", up().intent(stop, driver.StagePowerdown, time.Minute).with(late), "clear-intent;", PhaseStopping},
		{"no longer wanted, did not happen, and a restart is owed", up().edit(more).with(allowed).intent(stop, driver.StagePowerdown, time.Minute).with(late), "powerdown(Restart,1m0s);", PhaseStopping},
		{"no longer wanted, and a restart is owed that nobody allowed", up().edit(more).intent(stop, driver.StagePowerdown, time.Minute).with(late), "clear-intent;", PhaseStopping},
		{"another process's intent, and a restart is owed", up().edit(more).with(allowed).intent(stop, driver.StageQuit, time.Minute).with(func(s *scene) { s.obs.Intent.UID = "other" }), "powerdown(Restart,1m0s);", PhaseRunning},
		{"no longer wanted, did not happen, and a restart is asked", up().intent(stop, driver.StagePowerdown, time.Minute).with(late).with(func(s *scene) { s.opt.Restart = true }), "quit(Restart,10s);", PhaseStopping},
		{"restart asked", up().with(func(s *scene) { s.opt.Restart = true }), "powerdown(Restart,1m0s);", PhaseRunning},
		{"restart begun by a dead process", up().intent(restart, driver.StagePowerdown, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"restart begun, too late", up().intent(restart, driver.StagePowerdown, time.Minute).with(late), "quit(Restart,10s);", PhaseStopping},
		{"restart begun, now stop wanted", down().intent(restart, driver.StagePowerdown, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"intent without a stage", down().intent(stop, "", time.Minute), "powerdown(Stop,1m0s);", PhaseStopping},
	})
}

// withAgent is a machine whose guest has an agent, and is asked in these ways to end.
func withAgent(methods ...manifest.ShutdownMethod) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) {
		s.GuestAgent, s.Shutdown = &manifest.GuestAgent{}, &manifest.Shutdown{Methods: methods}
	}
}

func TestPlanMachine_stopByAgent_goesWayByWay(t *testing.T) {
	const agent, acpi = manifest.ShutdownGuestAgent, manifest.ShutdownACPI
	// down is a machine to be stopped, with an agent that listens.
	down := func(methods ...manifest.ShutdownMethod) *scene {
		s := newScene(withAgent(methods...)).up().edit(stopped())
		s.obs.Guest.Agent.Open = true
		return s
	}
	closed := func(s *scene) { s.obs.Guest.Agent.Open = false }
	at := func(d time.Duration) func(*scene) { return func(s *scene) { s.now = t0.Add(d) } }
	failed := func(s *scene) { s.obs.Intent.Failed, s.obs.Intent.Deadline = "refused", s.now }
	const stop = driver.IntentStop
	runPlanCases(t, []planCase{
		{"agent first, for its share", down(agent, acpi), "agent-shutdown(Stop,30s);", PhaseRunning},
		{"agent alone", down(agent), "agent-shutdown(Stop,1m0s);", PhaseRunning},
		{"power button first", down(acpi, agent), "powerdown(Stop,30s);", PhaseRunning},
		{"no agent", down(agent, acpi).with(closed), "powerdown(Stop,1m0s);", PhaseRunning},
		{"no agent, no other way", down(agent).with(closed), "quit(Stop,10s);", PhaseRunning},
		{"no port", down(agent, acpi).with(func(s *scene) { s.obs.Guest.Agent = nil }), "powerdown(Stop,1m0s);", PhaseRunning},
		{"paused", down(agent, acpi).with(func(s *scene) { s.obs.Guest.RunState = runPaused }), "quit(Stop,10s);", PhasePaused},
		{"forced", down(agent, acpi).with(func(s *scene) { s.opt.Force = true }), "quit(Stop,10s);", PhaseRunning},
		{"asked, in time", down(agent, acpi).intent(stop, driver.StageAgent, 30*time.Second), "wait,exit,30s", PhaseStopping},
		{"asked, the agent is gone already", down(agent, acpi).intent(stop, driver.StageAgent, 30*time.Second).with(closed), "wait,exit,30s", PhaseStopping},
		{"asked, its share is over", down(agent, acpi).intent(stop, driver.StageAgent, 30*time.Second).with(at(30 * time.Second)), "powerdown(Stop,30s);", PhaseStopping},
		{"asked long ago", down(agent, acpi).intent(stop, driver.StageAgent, 30*time.Second).with(at(time.Hour)), "powerdown(Stop,30s);", PhaseStopping},
		{"declined", down(agent, acpi).intent(stop, driver.StageAgent, 30*time.Second).with(at(2 * time.Second)).with(failed), "powerdown(Stop,58s);", PhaseStopping},
		{"declined, no other way", down(agent).intent(stop, driver.StageAgent, time.Minute).with(failed), "quit(Stop,10s);", PhaseStopping},
		{"both were asked", down(agent, acpi).intent(stop, driver.StagePowerdown, 30*time.Second).with(at(30 * time.Second)), "quit(Stop,10s);", PhaseStopping},
		{"the button did nothing", down(acpi, agent).intent(stop, driver.StagePowerdown, 30*time.Second).with(at(30 * time.Second)), "agent-shutdown(Stop,30s);", PhaseStopping},
		{"asked, then paused", down(agent, acpi).intent(stop, driver.StageAgent, time.Minute).with(func(s *scene) { s.obs.Guest.RunState = runPaused }), "quit(Stop,10s);", PhaseStopping},
		{"asked, then forced", down(agent, acpi).intent(stop, driver.StageAgent, time.Minute).with(func(s *scene) { s.opt.Force = true }), "quit(Stop,10s);", PhaseStopping},
		{"the way is no longer in the manifest", down(acpi).intent(stop, driver.StageAgent, time.Second).with(at(time.Second)), "powerdown(Stop,1m0s);", PhaseStopping},
	})
	why := down(agent, acpi).with(closed).plan().Steps[0].Why
	if !strings.Contains(why, "no agent runs in the guest") {
		t.Errorf("the power button is pressed because %q", why)
	}
	why = down(agent, acpi).intent(stop, driver.StageAgent, time.Second).with(failed).plan().Steps[0].Why
	if why != "refused" {
		t.Errorf("the power button is pressed because %q", why)
	}
}

func TestPlanMachine_askedToEnd_tellsWhatComesNext(t *testing.T) {
	const agent, acpi = manifest.ShutdownGuestAgent, manifest.ShutdownACPI
	asked := func(stage driver.Stage, open bool, methods ...manifest.ShutdownMethod) string {
		s := newScene(withAgent(methods...)).up().edit(stopped()).intent(driver.IntentStop, stage, time.Minute)
		s.obs.Guest.Agent.Open = open
		return s.plan().Wait.Then
	}
	const button, quit = "its power button is pressed", "QEMU is told to quit"
	for _, c := range []struct{ name, got, want string }{
		{"by its agent first", asked(driver.StageAgent, true, agent, acpi), button},
		{"by its agent alone", asked(driver.StageAgent, true, agent), quit},
		{"by the button first", asked(driver.StagePowerdown, true, acpi, agent), "its agent is asked"},
		{"by the button first, no agent", asked(driver.StagePowerdown, false, acpi, agent), quit},
		{"by the button last", asked(driver.StagePowerdown, true, agent, acpi), quit},
		{"in a way that is no longer in the manifest", asked(driver.StageAgent, true, acpi), button},
	} {
		if c.got != c.want {
			t.Errorf("asked %s: then %q, want %q", c.name, c.got, c.want)
		}
	}
}

func TestPlanMachine_notObserved_neverDestroys(t *testing.T) {
	gone := func(p driver.Presence, reason string) *scene {
		return newScene().up().edit(stopped()).with(func(s *scene) {
			s.obs.Presence, s.obs.Reason, s.obs.Guest, s.obs.Message, s.obs.Hint = p, reason, nil, "it is so", ""
		})
	}
	force := func(s *scene) { s.opt.Force = true }
	deleting := func(s *scene) { s.want.Machine.Deleting = &state.Deletion{Who: "x", DeleteDisks: true} }
	late := func(s *scene) { s.now = t0.Add(2 * time.Minute) }
	const stop = driver.IntentStop
	runPlanCases(t, []planCase{
		{"unknown", gone(driver.Unknown, "LookFailed"), "!LookFailed", PhaseUnknown},
		{"unknown, forced", gone(driver.Unknown, "ForeignProcess").with(force), "!ForeignProcess", PhaseUnknown},
		{"unknown, deleting", gone(driver.Unknown, "LookFailed").with(deleting).with(force), "!LookFailed", PhaseUnknown},
		{"socket busy while it stops", gone(driver.Unknown, "SocketBusy").intent(stop, driver.StageQuit, time.Minute), "wait,exit,1m0s", PhaseUnknown},
		{"socket busy for too long", gone(driver.Unknown, "SocketBusy").intent(stop, driver.StageQuit, time.Minute).with(late), "!SocketBusy", PhaseUnknown},
		{"no answer", gone(driver.Unresponsive, "NoAnswer"), "!NoAnswer", PhaseUnresponsive},
		{"no answer, deleting", gone(driver.Unresponsive, "NoAnswer").with(deleting), "!NoAnswer", PhaseUnresponsive},
		{"no answer, forced", gone(driver.Unresponsive, "NoAnswer").with(force), "kill(Stop,5s);", PhaseUnresponsive},
		{"no answer, forced, but running wanted", gone(driver.Unresponsive, "NoAnswer").with(force).edit(power(manifest.PowerRunning)), "!NoAnswer", PhaseUnresponsive},
		{"no answer, killed", gone(driver.Unresponsive, "NoAnswer").with(force).intent(stop, driver.StageKill, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"no answer, killed in vain", gone(driver.Unresponsive, "NoAnswer").with(force).intent(stop, driver.StageKill, time.Minute).with(late), "!Stuck", PhaseUnresponsive},
		{"no answer, stop begun and dropped, restart forced", gone(driver.Unresponsive, "NoAnswer").edit(power(manifest.PowerRunning)).with(force).intent(stop, driver.StagePowerdown, time.Minute).with(late).with(func(s *scene) { s.opt.Restart = true }), "kill(Restart,5s);", PhaseUnresponsive},
		{"quitting, so no answer", gone(driver.Unresponsive, "NoAnswer").intent(stop, driver.StageQuit, time.Minute), "wait,exit,1m0s", PhaseStopping},
		{"quit in vain", gone(driver.Unresponsive, "NoAnswer").intent(stop, driver.StageQuit, time.Minute).with(late), "!NoAnswer", PhaseUnresponsive},
		{"sockets lost, forced", gone(driver.Unresponsive, "SocketsLost").with(force), "!SocketsLost", PhaseUnresponsive},
		{"socket busy, forced", gone(driver.Unresponsive, "SocketBusy").with(force), "!SocketBusy", PhaseUnresponsive},
	})
}

func TestPlanMachine_holdAndDelete(t *testing.T) {
	hold := func(p manifest.PowerState, generation int64, until time.Duration) func(*scene) {
		return func(s *scene) {
			s.want.Machine.Hold = &state.Hold{PowerState: p, Who: "ann", Since: t0, Generation: generation}
			if until != 0 {
				s.want.Machine.Hold.Until = t0.Add(until)
			}
		}
	}
	deleting := func(disks, prune bool) func(*scene) {
		return func(s *scene) {
			s.want.Machine.Deleting = &state.Deletion{Who: "x", DeleteDisks: disks, Prune: prune}
		}
	}
	onDelete := func(s *manifest.VirtualMachineSpec) { s.OnDelete = &manifest.OnDelete{Disks: manifest.DisksDelete} }
	off := func() *scene { return newScene().up().down(driver.EndStopped).recorded() }
	runPlanCases(t, []planCase{
		{"held stopped", newScene().up().with(hold(manifest.PowerStopped, 1, 0)), "powerdown(Stop,1m0s); held", PhaseRunning},
		{"held running", newScene(stopped()).with(hold(manifest.PowerRunning, 1, 0)), "identity; create-disk root; start; held", PhasePending},
		{"held untouched", newScene().up().edit(stopped()).with(hold("", 2, 0)), "held", PhaseRunning},
		{"held untouched, crashed", newScene().up().down(driver.EndCrash).with(hold("", 1, 0)), "held", PhaseFailed},
		{"held untouched, deleting", off().with(hold("", 1, 0)).with(deleting(true, false)), "!Held held", PhasePending},
		{"held until later", newScene().up().with(hold(manifest.PowerPaused, 1, time.Minute)), "pause; held", PhaseRunning},
		{"held until now", newScene().up().with(hold(manifest.PowerPaused, 1, -time.Second)), "end-hold;", PhaseRunning},
		{"held another spec", newScene().up().edit(func(*manifest.VirtualMachineSpec) {}).with(hold(manifest.PowerPaused, 1, 0)), "end-hold;", PhaseRunning},
		{"delete running", newScene().up().with(deleting(false, false)), "powerdown(Stop,1m0s);", PhaseRunning},
		{"delete stopped", off().with(deleting(false, false)), "forget;", PhasePending},
		{"delete crashed", newScene().up().down(driver.EndCrash).with(deleting(false, true)), "record-end; forget;", PhaseFailed},
		{"delete with disks by flag", off().with(deleting(true, false)), "forget(disks);", PhasePending},
		{"delete with disks by key", off().edit(onDelete).with(deleting(false, false)), "forget(disks);", PhasePending},
		{"prune with disks by key", off().edit(onDelete).with(deleting(false, true)), "forget(disks);", PhasePending},
		{"prune", off().with(deleting(false, true)), "forget;", PhasePending},
	})
}
