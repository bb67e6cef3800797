package reconcile

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// The size of the random walks: checks walks of walkSteps steps each, so 100,000
// steps by default and 2,000,000 with MAQET_SOAK=1.
const (
	walkSteps  = 100
	checks     = 1000
	soakChecks = 20000
)

func TestMain(m *testing.M) {
	flag.Parse()
	n := checks
	if os.Getenv("MAQET_SOAK") == "1" {
		n = soakChecks
	}
	if err := flag.Set("rapid.checks", fmt.Sprint(n)); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// walker is a machine to which anything may happen.
type walker struct {
	*scene
	t *rapid.T
	// hidden is what QEMU would say while it does not answer.
	hidden *driver.Guest
	// deaf is a guest that hears no power button, stuck a QEMU that does not end.
	deaf, stuck bool
	snaps       int
}

func (w *walker) coin(label string) bool { return rapid.Bool().Draw(w.t, label) }

// TestLaws_randomWalk_holdAtEachStep does to a machine whatever files, people,
// guests, QEMU and dying controllers may do, and holds each plan to the laws.
func TestLaws_randomWalk_holdAtEachStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &walker{scene: newScene(), t: t}
		w.walk(slices.Sorted(maps.Keys(w.events())))
	})
}

// TestLaws_randomRestores_holdAtEachStep asks again and again for snapshots of a
// machine that has some, while little else happens: all at once is too rare above.
func TestLaws_randomRestores_holdAtEachStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &walker{scene: newScene().up(), t: t}
		w.addSnapshot("full", 9)
		w.addSnapshot("disk", 0)
		names := []string{"restore", "restore", "load fails", "load fails", "memory", "allow restart", "power state", "schedule", "crash", "time", "answers", "unresponsive"}
		for range len(names) {
			names = append(names, "pass 00")
		}
		w.walk(names)
	})
}

// walk lets the named events happen at random, and then all faults end.
func (w *walker) walk(names []string) {
	events := w.events()
	for range walkSteps {
		if w.want.Machine == nil {
			return
		}
		events[rapid.SampledFrom(names).Draw(w.t, "event")]()
	}
	if w.want.Machine != nil {
		w.settles()
	}
}

// pass plans, checks the laws, and executes some or all of the steps: the
// controller may die between any two, and a step may fail.
func (w *walker) pass() {
	p := w.plan()
	w.laws(p)
	upTo := len(p.Steps)
	if w.coin("controller dies") {
		upTo = rapid.IntRange(0, len(p.Steps)).Draw(w.t, "steps done")
	}
	p.Steps = p.Steps[:upTo]
	w.scene.pass(p)
	w.opt = w.opt.after(p)
	if len(p.Steps) == 0 && p.Wait != nil {
		w.wait(*p.Wait)
	}
}

// wait lets what is waited for happen, or the deadline pass.
func (w *walker) wait(wait Wait) {
	in := w.obs.Intent
	byGuest := in != nil && (in.Stage == driver.StagePowerdown || in.Stage == driver.StageAgent)
	onlyExit := wait.Exit && !wait.Job && !wait.Ready && !wait.Unplug
	prevented := w.stuck && onlyExit || w.deaf && (byGuest || wait.Unplug)
	if w.coin("happens") && !prevented && w.obs.Presence == driver.Alive {
		w.elapse(wait)
		return
	}
	if !wait.Until.IsZero() && wait.Until.After(w.now) {
		w.now = wait.Until
	}
}

// laws are what holds for each plan, whatever has happened.
func (w *walker) laws(p Plan) {
	rec, obs := w.want.Machine, &w.obs
	kinds := map[StepKind]int{}
	for _, s := range p.Steps {
		kinds[s.Kind]++
		w.stepLaws(s)
	}
	if f, g := obs.Freeze, obs.Guest; kinds[StepTakeSnapshot] > 0 && f != nil && !f.Held && g != nil && g.RunState == runRunning {
		w.t.Fatalf("a snapshot is taken before what was left frozen is thawed")
	}
	unsure := obs.Presence == driver.Unknown || obs.Presence == driver.Unresponsive
	for _, k := range []StepKind{StepStart, StepThaw, StepAgentShutdown, StepPowerdown, StepQuit, StepForget, StepDeleteSnapshot, StepTakeSnapshot, StepCreateDisk, StepPause, StepResume, StepLoadSnapshot, StepRevertDisks, StepPlug, StepUnplug, StepDrop, StepForward} {
		if unsure && kinds[k] > 0 {
			w.t.Fatalf("%s of a machine that is %s", k, obs.Presence)
		}
	}
	if unsure && kinds[StepKill] > 0 && (!w.opt.Force || obs.Presence == driver.Unknown) {
		w.t.Fatalf("kill of a machine that is %s, force is %v", obs.Presence, w.opt.Force)
	}
	if snaps := kinds[StepTakeSnapshot] + kinds[StepFinishSnapshot] + kinds[StepDeleteSnapshot] + kinds[StepForgetSnapshot]; snaps > 1 {
		w.t.Fatalf("%d snapshot steps in one pass", snaps)
	}
	if h := activeHold(rec, w.now); h != nil && h.PowerState == "" && len(p.Steps) > 0 {
		w.t.Fatalf("steps on a machine that is held untouched: %v", p.Steps)
	}
	if kinds[StepStart] > 0 && (obs.Presence != driver.Absent || rec.Deleting != nil || EffectivePower(rec, w.now) == manifest.PowerStopped) {
		w.t.Fatalf("start of a machine that is %s and wanted %s", obs.Presence, EffectivePower(rec, w.now))
	}
	if kinds[StepStart] > 0 && isCompleted(rec, obs) && !w.opt.Start && !w.opt.Restart && rec.Restore == nil {
		w.t.Fatalf("start of a machine that is Completed")
	}
	if kinds[StepForget] > 0 && (obs.Presence != driver.Absent || rec.Deleting == nil) {
		w.t.Fatalf("forget of a machine that is %s", obs.Presence)
	}
}

// stepLaws are what holds for each step.
func (w *walker) stepLaws(s Step) {
	rec, in := w.want.Machine, w.obs.Intent
	if s.DeleteDisks && !rec.Deleting.DeleteDisks && (rec.Object.Spec.OnDelete == nil || rec.Object.Spec.OnDelete.Disks != manifest.DisksDelete) {
		w.t.Fatalf("disks are deleted without a word")
	}
	if g := w.obs.Guest; s.Kind == StepTakeSnapshot && s.Quiesce == manifest.QuiesceRequired && s.Method == manifest.SnapshotDisk &&
		g != nil && g.RunState == runRunning && (g.Agent == nil || !g.Agent.Open) {
		w.t.Fatalf("snapshot %s is taken for which no agent can freeze anything", s.Snapshot)
	}
	if s.Kind == StepDeleteSnapshot {
		snap := w.want.snapshot(s.Snapshot)
		if snap == nil || snap.Deleting == nil || !snap.Deleting.DeleteDisks && snap.Object.Spec.OnDelete != manifest.SnapshotDelete {
			w.t.Fatalf("data of snapshot %s is deleted without a word", s.Snapshot)
		}
	}
	if snap := w.want.snapshot(s.Snapshot); s.Kind == StepExpireSnapshot && (snap == nil || snap.Owner != OwnerSchedule) {
		w.t.Fatalf("snapshot %s expires, which no schedule made", s.Snapshot)
	}
	w.restoreLaws(s)
	w.plugLaws(s)
	if !s.Kind.stops() {
		return
	}
	stopping := rec.Deleting != nil || EffectivePower(rec, w.now) == manifest.PowerStopped
	owed := w.obs.Guest != nil && len(guestChanges(&rec.Object.Spec, &w.obs)) > 0
	begun := in != nil && in.UID == machineUID(rec, &w.obs) && in.Kind == driver.IntentRestart
	allowed := w.opt.AllowRestart && owed
	if !stopping && !w.opt.Restart && !begun && !allowed && rec.Restore == nil {
		w.t.Fatalf("%s without permission: wanted %s, intent %+v", s.Kind, EffectivePower(rec, w.now), in)
	}
	if s.Intent.Kind == driver.IntentStop && !stopping {
		w.t.Fatalf("%s to stop a machine that should be %s", s.Kind, EffectivePower(rec, w.now))
	}
	if in == nil || in.Stage == "" || w.opt.Force || rec.Restore != nil {
		return // what a restore ends has nothing to lose by it
	}
	// A stop that is no longer wanted has run out before a restart begins.
	dropped := in.Kind == driver.IntentStop && s.Intent.Kind == driver.IntentRestart && !w.opt.Restart && !w.now.Before(in.Deadline)
	if s.Intent.Stage == in.Stage && !dropped {
		w.t.Fatalf("stage %s begun anew: its deadline did not survive", in.Stage)
	}
	if w.now.Before(in.Deadline) && w.obs.Guest.RunState == runRunning {
		w.t.Fatalf("%s at %s, before the deadline of %s at %s", s.Kind, w.now, in.Stage, in.Deadline)
	}
}

// restoreLaws are what holds for the steps that set a machine back: a guest whose
// disks may be of another time than its memory never runs on, memory comes only
// into the devices it is of, and disks are not touched under a QEMU.
func (w *walker) restoreLaws(s Step) {
	g := w.obs.Guest
	if s.Kind == StepResume && failedLoad(g) != nil {
		w.t.Fatalf("a guest is resumed after a load that failed")
	}
	if s.Kind == StepLoadSnapshot {
		if d := driver.DeviceDifferences(w.obs.Snapshots[s.Snapshot].Record.Guest, g); len(d) > 0 {
			w.t.Fatalf("memory is loaded into other devices: %v", d)
		}
	}
	if s.Kind == StepRevertDisks && w.obs.Presence != driver.Absent {
		w.t.Fatalf("disks are set back under a machine that is %s", w.obs.Presence)
	}
	restores := s.Kind == StepLoadSnapshot || s.Kind == StepRevertDisks || s.Kind == StepStart && s.Snapshot != ""
	if restores && (w.want.Machine.Restore == nil || w.want.Machine.Restore.Snapshot != s.Snapshot) {
		w.t.Fatalf("%s, which nobody asked for", s)
	}
}

// settles ends all faults and holds the machine to reaching a plan without
// steps within a few passes, and to staying there.
func (w *walker) settles() {
	w.answer()
	w.deaf, w.stuck = false, false
	if f := w.obs.Freeze; f != nil {
		f.Held = false
	}
	if g := w.obs.Guest; g != nil && g.RunState == runIOError {
		g.RunState = runRunning
	}
	for range maxForecast {
		p := w.plan()
		w.laws(p)
		if p.Settled() {
			w.settled(p)
			return
		}
		w.scene.pass(p)
		w.opt = w.opt.after(p)
		if w.want.Machine == nil {
			return
		}
		if len(p.Steps) == 0 && !w.elapse(*p.Wait) {
			w.t.Fatalf("cannot go on: %s", summary(p))
		}
	}
	w.t.Fatalf("not settled after %d passes: %s", maxForecast, summary(w.plan()))
}

// settled checks that nothing is missing and that planning again plans nothing.
func (w *walker) settled(p Plan) {
	if again := w.plan(); summary(again) != summary(p) {
		w.t.Fatalf("planned again: %s, before: %s", summary(again), summary(p))
	}
	rec := w.want.Machine
	if h := activeHold(rec, w.now); h != nil && h.PowerState == "" {
		return
	}
	for _, problem := range p.Problems {
		if !problem.Owed() && problem.Reason != ReasonSnapshotFailed {
			return
		}
	}
	if f := w.obs.Freeze; f != nil && w.obs.Presence == driver.Alive {
		w.t.Fatalf("settled with file systems that are frozen by nobody")
	}
	if rec.Deleting != nil {
		w.t.Fatalf("settled with a delete that is not over")
	}
	power := EffectivePower(rec, w.now)
	runs := w.obs.Presence == driver.Alive
	if runs != (power != manifest.PowerStopped) && !isCompleted(rec, &w.obs) {
		w.t.Fatalf("settled, %s is wanted, presence is %s", power, w.obs.Presence)
	}
	if w.opt.AllowRestart && runs && slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Class == ClassRestart }) {
		w.t.Fatalf("settled with restarts allowed, and owed is %v", p.Changes)
	}
	w.liveIsCold(p)
}

// answer lets QEMU answer again.
func (w *walker) answer() {
	if w.obs.Presence == driver.Unknown || w.obs.Presence == driver.Unresponsive {
		w.obs.Presence, w.obs.Guest, w.obs.Reason = driver.Alive, w.hidden, ""
		if w.hidden == nil {
			w.obs.Presence = driver.Absent
		}
	}
}

// silence hides what QEMU says.
func (w *walker) silence(p driver.Presence, reason string) {
	if w.obs.Presence == driver.Alive || w.obs.Presence == driver.Absent {
		w.hidden = w.obs.Guest
		w.obs.Guest, w.obs.Presence, w.obs.Reason = nil, p, reason
	}
}

// ends ends a process that is there and answers.
func (w *walker) ends(cause driver.EndCause) {
	if w.obs.Presence == driver.Alive {
		w.end(cause)
	}
}

func (w *walker) change(f func(*manifest.VirtualMachineSpec)) {
	if w.want.Machine.Deleting == nil {
		w.edit(f)
	}
}

// events are what may happen, by name. Passing comes up most often, since a
// machine to which only accidents happen shows nothing.
func (w *walker) events() map[string]func() {
	all := map[string]func(){
		"crash":        func() { w.ends(driver.EndCrash) },
		"power off":    func() { w.ends(driver.EndGuest) },
		"signal":       func() { w.ends(driver.EndSignal) },
		"unresponsive": func() { w.goSilent() },
		"unknown":      func() { w.silence(driver.Unknown, driver.ReasonLookFailed) },
		"answers":      w.answer,
		"host restart": w.hostRestart,
		"deaf":         func() { w.deaf = !w.deaf },
		"stuck":        func() { w.stuck = !w.stuck },
		"run state":    w.runStates,
		"drift":        func() { w.drift() },
		"time":         func() { w.now = w.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(w.t, "seconds")) * time.Second) },
		"hold":         w.hold,
		"release":      func() { w.want.Machine.Hold = nil },
		"power state": func() {
			p := rapid.SampledFrom([]manifest.PowerState{manifest.PowerRunning, manifest.PowerPaused, manifest.PowerStopped}).Draw(w.t, "power")
			w.change(power(p))
		},
		"agent": func() {
			if w.obs.Guest != nil && w.obs.Guest.Agent != nil {
				w.obs.Guest.Agent.Open = !w.obs.Guest.Agent.Open
			}
		},
		"left frozen": func() {
			if w.obs.Presence == driver.Alive {
				w.obs.Freeze = &driver.Freeze{UID: testUID, Since: w.now, Who: "snapshot", Held: w.coin("by somebody who lives")}
			}
		},
		"thaw fails": func() {
			if w.obs.Freeze != nil {
				w.obs.Freeze.Failed = "the agent hangs"
			}
		},
		"agent declines": func() {
			if in := w.obs.Intent; in != nil && in.Stage == driver.StageAgent {
				in.Failed, in.Deadline = "it did not want to", w.now
			}
		},
		"shutdown methods": func() {
			methods := rapid.SampledFrom([][]manifest.ShutdownMethod{
				{manifest.ShutdownACPI}, {manifest.ShutdownGuestAgent}, {manifest.ShutdownGuestAgent, manifest.ShutdownACPI}, {manifest.ShutdownACPI, manifest.ShutdownGuestAgent},
			}).Draw(w.t, "methods")
			w.change(func(s *manifest.VirtualMachineSpec) {
				s.GuestAgent, s.Shutdown.Methods = &manifest.GuestAgent{}, methods
			})
		},
		"memory":     func() { w.change(func(s *manifest.VirtualMachineSpec) { s.Memory.Size += 1 << 20 }) },
		"probe":      func() { w.change(probed) },
		"add nic":    w.addNIC,
		"remove nic": func() { w.change(func(s *manifest.VirtualMachineSpec) { s.NICs = s.NICs[:min(len(s.NICs), 1)] }) },
		"nic":        w.changeNIC,
		"unplugged":  w.unplugged,
		"medium":     w.changeMedium,
		"device":     w.changeDevice,
		"cpus":       w.changeCPUs,
		"ports": func() {
			w.change(func(s *manifest.VirtualMachineSpec) { s.Machine.HotplugPorts = rapid.IntRange(0, 3).Draw(w.t, "ports") })
		},
		"delete disks":  func() { w.change(func(s *manifest.VirtualMachineSpec) { s.OnDelete.Disks = manifest.DisksDelete }) },
		"add disk":      w.addDisk,
		"remove disk":   func() { w.change(func(s *manifest.VirtualMachineSpec) { s.Disks = s.Disks[:1] }) },
		"allow restart": func() { w.opt.AllowRestart = !w.opt.AllowRestart },
		"restart":       func() { w.opt.Restart = true },
		"start":         func() { w.opt.Start = true },
		"force":         func() { w.opt.Force = !w.opt.Force },
		"delete":        w.delete,
		"snapshot":      w.addSnapshotObject,
		"snapshot gone": func() { clear(w.obs.Snapshots) },
		"restore":       w.restore,
		"schedule": func() {
			w.change(daily(func(s *manifest.Snapshots) { s.Schedule, s.Keep = "* * * * *", &manifest.Keep{Last: 1} }))
		},
		"load fails": w.failLoad,
		"forget snapshot": func() {
			if n := len(w.want.Snapshots); n > 0 {
				w.want.Snapshots[n-1].Deleting = &state.Deletion{Who: "x", DeleteDisks: w.coin("with data")}
			}
		},
	}
	for i := range len(all) {
		all[fmt.Sprintf("pass %02d", i)] = w.pass
	}
	return all
}

func (w *walker) goSilent() {
	if w.obs.Presence == driver.Alive {
		reason := rapid.SampledFrom([]string{driver.ReasonNoAnswer, driver.ReasonSocketsLost, driver.ReasonSocketBusy}).Draw(w.t, "reason")
		w.silence(driver.Unresponsive, reason)
	}
}

// hostRestart ends everything, and takes what dies with the boot along or not.
func (w *walker) hostRestart() {
	w.answer()
	w.ends(driver.EndHostReboot)
	if w.coin("without a trace") {
		w.obs.Ended, w.obs.Launched, w.obs.Intent = nil, nil, nil
	}
}

func (w *walker) runStates() {
	if w.obs.Presence == driver.Alive {
		w.obs.Guest.RunState = rapid.SampledFrom([]string{runRunning, runPaused, runIOError, runSuspended, runGuestPanicked}).Draw(w.t, "state")
	}
}

// drift is a guest that somebody has changed by hand: it has a vCPU more where there is
// a place for one, and else more memory.
func (w *walker) drift() {
	if w.obs.Presence != driver.Alive {
		return
	}
	g := w.obs.Guest
	if t := g.Topology; g.CPUs < t.Sockets*t.Cores*t.Threads {
		g.CPUs++
		return
	}
	g.Memory += 1 << 20
}

func (w *walker) hold() {
	m := w.want.Machine
	m.Hold = &state.Hold{
		PowerState: rapid.SampledFrom([]manifest.PowerState{"", manifest.PowerRunning, manifest.PowerStopped, manifest.PowerPaused}).Draw(w.t, "held"),
		Who:        "ann", Since: w.now, Generation: m.Generation,
	}
	if w.coin("for a while") {
		m.Hold.Until = w.now.Add(time.Minute)
	}
}

func (w *walker) addDisk() {
	w.change(func(s *manifest.VirtualMachineSpec) {
		if len(s.Disks) < 3 {
			s.Disks = append(s.Disks, manifest.Disk{Name: fmt.Sprintf("data%d", w.want.Machine.Generation), Size: 1 << 20})
		}
	})
}

func (w *walker) delete() {
	// Rare, since nothing comes after it.
	if w.want.Machine.Deleting == nil && rapid.IntRange(0, 29).Draw(w.t, "delete") == 0 {
		w.want.Machine.Deleting = &state.Deletion{Who: "x", DeleteDisks: w.coin("with disks")}
	}
}

func (w *walker) addSnapshotObject() {
	if len(w.want.Snapshots) > 2 {
		return
	}
	w.snaps++
	method := rapid.SampledFrom([]manifest.SnapshotMethod{manifest.SnapshotDisk, manifest.SnapshotFull}).Draw(w.t, "method")
	s := newSnap(fmt.Sprintf("s%d", w.snaps), "web", method)
	s.Object.Spec.Quiesce = rapid.SampledFrom([]manifest.Quiesce{manifest.QuiesceRequired, manifest.QuiesceIfAvailable, manifest.QuiesceNever, ""}).Draw(w.t, "quiesce")
	if w.coin("data goes with it") {
		s.Object.Spec.OnDelete = manifest.SnapshotDelete
	}
	w.want.Snapshots = append(w.want.Snapshots, s)
}

// restore asks for a snapshot that is there, mostly, or gives that up.
func (w *walker) restore() {
	m := w.want.Machine
	tags := append(slices.Sorted(maps.Keys(w.obs.Snapshots)), "none")
	m.Restore = &state.Restore{Snapshot: rapid.SampledFrom(tags).Draw(w.t, "tag"), Since: w.now, Who: "ann", DisksOnly: w.coin("disks only")}
	if rapid.IntRange(0, 4).Draw(w.t, "given up") == 0 {
		m.Restore = nil
	}
}

// failLoad makes a load that is under way fail.
func (w *walker) failLoad() {
	if w.obs.Presence != driver.Alive {
		return
	}
	for i := range w.obs.Guest.Jobs {
		if j := &w.obs.Guest.Jobs[i]; j.Type == "snapshot-load" && j.Status == "running" {
			j.Status, j.Error = "concluded", "no luck"
		}
	}
}
