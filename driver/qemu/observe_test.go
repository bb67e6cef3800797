package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/manifest"
)

func TestObserve_ended_saysWhy(t *testing.T) {
	stop := func(r *rig, id driver.Identity) {
		intent := &driver.Intent{Kind: driver.IntentStop, Stage: driver.StageQuit, UID: id.UID, Since: time.Now(), Deadline: time.Now()}
		if err := r.WriteIntent(r.t.Context(), "web", intent); err != nil {
			r.t.Fatal(err)
		}
	}
	cases := map[string]struct {
		end       func(r *rig, id driver.Identity)
		want      driver.EndCause
		exit      string
		wantLine  string
		keepsPIDs bool
	}{
		"quitWithoutIntent_isTheGuest": {
			end:  func(r *rig, _ driver.Identity) { r.must(r.Quit(r.t.Context(), "web")) },
			want: driver.EndGuest, exit: "exit status 0",
		},
		"quitWithIntent_isStopped": {
			end: func(r *rig, id driver.Identity) {
				stop(r, id)
				r.must(r.Quit(r.t.Context(), "web"))
			},
			want: driver.EndStopped, exit: "exit status 0",
		},
		"killWithIntent_isStopped": {
			end: func(r *rig, id driver.Identity) {
				stop(r, id)
				r.must(r.Kill(r.t.Context(), "web"))
			},
			want: driver.EndStopped, exit: "signal SIGKILL", keepsPIDs: true,
		},
		"SIGTERM_isSignal": {
			end:  func(r *rig, _ driver.Identity) { r.signal("web", unix.SIGTERM) },
			want: driver.EndSignal, exit: "exit status 0", wantLine: signalWords,
		},
		"SIGKILL_isCrash": {
			end:  func(r *rig, _ driver.Identity) { r.signal("web", unix.SIGKILL) },
			want: driver.EndCrash, exit: "signal SIGKILL", keepsPIDs: true,
		},
		"SIGABRT_isCrash": {
			end:  func(r *rig, _ driver.Identity) { r.signal("web", unix.SIGABRT) },
			want: driver.EndCrash, exit: "signal SIGABRT", keepsPIDs: true,
		},
		"SIGABRTAtTheEnd_isTheGuest": {
			end: func(r *rig, _ driver.Identity) {
				log, err := os.OpenFile(r.layout.QEMULog("web"), os.O_APPEND|os.O_WRONLY, 0)
				r.must(err)
				_, err = log.WriteString("aio_ctx_finalize: BH 'monitor_accept_input' leaked, aborting...\n")
				r.must(errors.Join(err, log.Close()))
				r.signal("web", unix.SIGABRT)
			},
			want: driver.EndGuest, exit: "signal SIGABRT", wantLine: "leaked, aborting", keepsPIDs: true,
		},
		"otherBoot_isHostReboot": {
			end: func(r *rig, _ driver.Identity) {
				r.signal("web", unix.SIGKILL)
				r.rewriteLaunched("web", func(l *driver.Launched) { l.BootID = "another" })
			},
			want: driver.EndHostReboot, exit: "signal SIGKILL", keepsPIDs: true,
		},
		"neverConfirmed_isStartFailed": {
			end: func(r *rig, _ driver.Identity) {
				r.signal("web", unix.SIGKILL)
				r.must(os.Remove(r.layout.Confirmed("web")))
			},
			want: driver.EndStartFailed, exit: "signal SIGKILL", keepsPIDs: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", bareBoard)
			r.start(vm, false)
			k := r.childOf("web")
			o := r.observe(vm, driver.DepthBrief, driver.Alive)
			c.end(r, *o.Identity)
			r.waitChild(k)

			o = r.observe(vm, driver.DepthBrief, driver.Absent)
			if o.Ended == nil {
				t.Fatal("Ended is nil")
			}
			if o.Ended.Cause != c.want || !strings.HasPrefix(o.Ended.Exit, c.exit) || o.Ended.UID != o.Identity.UID {
				t.Errorf("Ended = %+v, want cause %s and exit %s", o.Ended, c.want, c.exit)
			}
			if !strings.Contains(o.Ended.LastLine, c.wantLine) {
				t.Errorf("LastLine = %q, want %q in it", o.Ended.LastLine, c.wantLine)
			}
			if left := slices.Contains(r.runFiles(), "qemu.pid"); left != c.keepsPIDs {
				t.Errorf("pid file left: %v, want %v", left, c.keepsPIDs)
			}
			// Another maqet, which watched nothing, comes to the same conclusion.
			other := rigAt(t, r.layout)
			seen := other.observe(vm, driver.DepthBrief, driver.Absent)
			if seen.Ended == nil || seen.Ended.Cause != c.want || seen.Ended.Exit != exitNotSeen {
				t.Errorf("another maqet sees %+v", seen.Ended)
			}
			r.must(r.ClearRun(t.Context(), "web"))
			if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended != nil || len(r.runFiles()) > 0 {
				t.Errorf("after ClearRun: Ended %+v, files %v", o.Ended, r.runFiles())
			}
		})
	}
}

// must fails the test on an error.
func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// rewriteLaunched changes the launch record behind maqet's back.
func (r *rig) rewriteLaunched(name string, change func(*driver.Launched)) {
	r.t.Helper()
	record, err := r.readLaunched(name)
	r.must(err)
	change(record)
	text, err := json.Marshal(record)
	r.must(err)
	r.must(durable.WriteVolatile(r.layout.Launched(name), text, 0))
}

func TestObserve_stoppedProcess_isUnresponsiveAndRecovers(t *testing.T) {
	r := newRig(t)
	r.timing.Greeting = 200 * time.Millisecond
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.signal("web", unix.SIGSTOP)
	begun := time.Now()
	o := r.observe(vm, driver.DepthFull, driver.Unresponsive)
	if o.Reason != driver.ReasonNoAnswer || o.PID != r.childOf("web").pid || o.Hint == "" {
		t.Errorf("observed %s (%s), pid %d", o.Reason, o.Message, o.PID)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("looking took %s", took)
	}
	if err := r.Quit(t.Context(), "web"); !errors.Is(err, driver.ErrUnresponsive) {
		t.Errorf("Quit = %v, want ErrUnresponsive", err)
	}
	if err := r.tryStart(vm, false); err == nil {
		t.Error("a second Start succeeded")
	}
	other := rigAt(t, r.layout)
	other.timing.Greeting = 200 * time.Millisecond
	if err := other.SetPaused(t.Context(), "web", true); !errors.Is(err, driver.ErrUnresponsive) || lifecycle(err).Hint == "" {
		t.Errorf("SetPaused = %v, want ErrUnresponsive with a hint", err)
	}
	r.signal("web", unix.SIGCONT)
	r.timing.Greeting = 5 * time.Second
	r.observe(vm, driver.DepthFull, driver.Alive)
}

func TestObserve_socketBusy_isUnknownAndNamesTheHolder(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	other := rigAt(t, r.layout)
	other.timing.Lock = 100 * time.Millisecond
	err := r.Visit(t.Context(), "web", func(ctx context.Context, _ *qmp.Conn) error {
		o := other.Observe(ctx, "web", vm, driver.DepthBrief)
		if o.Presence != driver.Unknown || o.Reason != driver.ReasonSocketBusy || !strings.Contains(o.Message, strconv.Itoa(os.Getpid())) {
			t.Errorf("observed %s: %s", o.Reason, o.Message)
		}
		err := other.Visit(ctx, "web", func(context.Context, *qmp.Conn) error { return nil })
		if err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
			t.Errorf("Visit = %v, want the holder's pid", err)
		}
		return nil
	})
	r.must(err)
	other.observe(vm, driver.DepthBrief, driver.Alive)
}

func TestObserve_socketsRemoved_isLost(t *testing.T) {
	r := newRig(t)
	r.timing.Greeting = 100 * time.Millisecond
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.must(os.Remove(r.layout.CLISocket("web")))
	o := r.observe(vm, driver.DepthBrief, driver.Unresponsive)
	if o.Reason != driver.ReasonSocketsLost {
		t.Errorf("observed %s (%s)", o.Reason, o.Message)
	}
	// The launch record is still there, so this one may be killed.
	r.must(r.Kill(t.Context(), "web"))
	r.waitEnd("web")
	if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended == nil || o.Ended.Cause != driver.EndCrash {
		t.Errorf("Ended = %+v", o.Ended)
	}
}

func TestObserve_pidFileGone_isFoundByItsUUID(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.must(os.Remove(r.layout.PIDFile("web")))
	o := r.observe(vm, driver.DepthBrief, driver.Alive)
	if o.PID != r.childOf("web").pid {
		t.Errorf("pid = %d, want %d", o.PID, r.childOf("web").pid)
	}
}

func TestObserve_launchRecordGone_isStillReached(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.must(os.Remove(r.layout.Launched("web")))
	if o := r.observe(vm, driver.DepthFull, driver.Alive); o.Launched != nil {
		t.Errorf("Launched = %+v", o.Launched)
	}
}

func TestObserve_anotherQEMUTookTheSocket_isForeign(t *testing.T) {
	r := newRig(t)
	vm, other := r.vm("web", bareBoard), r.vm("db", bareBoard)
	r.start(vm, false)
	r.start(other, false)
	r.must(os.Rename(r.layout.CLISocket("db"), r.layout.CLISocket("web")))
	if o := r.observe(vm, driver.DepthBrief, driver.Unknown); o.Reason != driver.ReasonForeign {
		t.Errorf("observed %s (%s)", o.Reason, o.Message)
	}
	if err := r.Quit(t.Context(), "web"); !errors.Is(err, driver.ErrForeign) {
		t.Errorf("Quit = %v, want ErrForeign", err)
	}
}

func TestObserve_unconfirmedButAnswering_isConfirmedByLooking(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.must(os.Remove(r.layout.Confirmed("web")))
	r.observe(vm, driver.DepthBrief, driver.Alive)
	r.signal("web", unix.SIGKILL)
	r.waitEnd("web")
	if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended.Cause != driver.EndCrash {
		t.Errorf("Ended = %+v, want a crash", o.Ended)
	}
}

func TestObserve_damagedRecord_isUnknownWithTheRemedy(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	r.must(os.WriteFile(r.layout.Launched("web"), []byte("{"), 0o600))
	o := r.observe(vm, driver.DepthBrief, driver.Unknown)
	if o.Reason != driver.ReasonLookFailed || o.Hint == "" || !strings.Contains(o.Message, "launched.json") {
		t.Errorf("observed %s: %s; %s", o.Reason, o.Message, o.Hint)
	}
}

func TestObserve_recordThatSaysNothing_neitherEndsNorChangesTheMachine(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	pid := r.childOf("web").pid
	for _, path := range []string{r.layout.Launched("web"), r.layout.Identity("web")} {
		good, err := os.ReadFile(path)
		r.must(err)
		for _, text := range []string{"{}", "null", `{"version":1}`, `{"version":1,"uid":"web"}`} {
			t.Run(filepath.Base(path)+" "+text, func(t *testing.T) {
				defer func() { r.must(os.WriteFile(path, good, 0o600)) }() //nolint:gosec // a file of the test's own layout
				r.must(os.WriteFile(path, []byte(text), 0o600))
				if o := r.observe(vm, driver.DepthBrief, driver.Unknown); o.Reason != driver.ReasonLookFailed {
					t.Errorf("observed %s: %s", o.Reason, o.Message)
				}
				if err := r.Start(t.Context(), driver.StartRequest{VM: vm}); err == nil {
					t.Error("Start was not refused")
				}
				if err := r.ClearRun(t.Context(), "web"); err == nil {
					t.Error("ClearRun took the machine for stopped")
				}
				if _, err := r.Forget(t.Context(), "web", false); err == nil {
					t.Error("Forget took the machine for stopped")
				}
			})
		}
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.PID != pid {
		t.Errorf("pid = %d, want %d", o.PID, pid)
	}
}

func TestEnsureIdentity_damagedFile_isNotReplaced(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	for _, text := range []string{"{}", "null", `{"version":1,"uid":"../x"}`} {
		r.must(os.WriteFile(r.layout.Identity("web"), []byte(text), 0o600))
		if id, err := r.EnsureIdentity(t.Context(), vm); err == nil {
			t.Errorf("with %s the machine got the uuid %s", text, id.UID)
		}
		left, err := os.ReadFile(r.layout.Identity("web"))
		r.must(err)
		if string(left) != text {
			t.Errorf("%s was replaced by %s", text, left)
		}
	}
}

func TestObserve_newMachine_isAbsentWithItsMissingFiles(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}, {Name: "iso", File: "/no/such.iso", Format: manifest.FormatRaw}}
	})
	o := r.observe(vm, driver.DepthFull, driver.Absent)
	if o.Files["root"].Exists || o.Files["iso"].Exists || !o.SnapshotsKnown || o.Identity != nil || o.Ended != nil {
		t.Errorf("observed %+v", o)
	}
}

func TestObserve_stoppedMachine_asksItsImages(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}} })
	r.must(r.CreateDisk(t.Context(), vm, "root"))
	r.must(r.images.CreateSnapshot(t.Context(), map[string]string{"root": r.layout.Disk("web", "root")}, "before"))
	for _, desired := range []*manifest.VirtualMachine{vm, nil} {
		o := r.Observe(t.Context(), "web", desired, driver.DepthFull)
		if f := o.Files["root"]; f.Size != 1<<20 || f.Format != "qcow2" || !f.Exists {
			t.Errorf("file = %+v", f)
		}
		if s := o.Snapshots["before"]; !o.SnapshotsKnown || !slices.Equal(s.Disks, []string{"root"}) || s.Record != nil {
			t.Errorf("snapshots = %+v", o.Snapshots)
		}
	}
	r.must(os.WriteFile(r.layout.Disk("web", "root"), []byte("no image"), 0o600))
	o := r.observe(vm, driver.DepthFull, driver.Absent)
	if f := o.Files["root"]; f.Err == "" || o.SnapshotsKnown {
		t.Errorf("file = %+v, SnapshotsKnown %v", f, o.SnapshotsKnown)
	}
}

func TestObserve_manyAtOnce_allAreSeen(t *testing.T) {
	r := newRig(t)
	const machines = 8
	var vms []*manifest.VirtualMachine
	for i := range machines {
		vms = append(vms, r.vm("m"+strconv.Itoa(i), bareBoard))
	}
	var all sync.WaitGroup
	for _, vm := range vms {
		all.Go(func() {
			if err := r.tryStart(vm, false); err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				if o := r.Observe(t.Context(), vm.Metadata.Name, vm, driver.DepthFull); o.Presence != driver.Alive {
					t.Errorf("%s: %s %s", o.Name, o.Presence, o.Message)
				}
			}
		})
	}
	all.Wait()
	names, err := r.Known(t.Context())
	if err != nil || len(names) != machines {
		t.Errorf("Known = %v (%v)", names, err)
	}
}

func TestObserve_duringStart_waitsForItsOutcome(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	other := rigAt(t, r.layout)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			o := other.Observe(t.Context(), "web", vm, driver.DepthBrief)
			if o.Presence == driver.Alive {
				return
			}
			if o.Presence != driver.Absent || o.Ended != nil {
				t.Errorf("observed %s (%s), Ended %+v", o.Presence, o.Message, o.Ended)
				return
			}
		}
	}()
	r.start(vm, false)
	<-done
}

func TestLook_pidOfAnotherProcess_isAbsentAndUntouched(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	k := r.childOf("web")
	o := r.observe(vm, driver.DepthBrief, driver.Alive)
	r.signal("web", unix.SIGKILL)
	r.waitEnd("web")
	// The pid is somebody else's now: this very test's.
	r.must(os.WriteFile(r.layout.PIDFile("web"), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600))
	r.must(r.Kill(t.Context(), "web"))
	if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended.Cause != driver.EndCrash {
		t.Errorf("Ended = %+v", o.Ended)
	}
	_, _ = k, o
}

func TestLook_madeUpProc_tellsOursFromOthers(t *testing.T) {
	const uid = "11111111-2222-4333-8444-555555555555"
	argv := []string{"/usr/bin/qemu-system-x86_64", "-uuid", uid}
	cases := map[string]struct {
		state, cmdline, boot string
		want                 standing
	}{
		"sameCommandLine":      {"S", strings.Join(argv, "\x00") + "\x00", "boot", standingOurs},
		"zombie":               {"Z", "", "boot", standingAbsent},
		"deadWithCommandLine":  {"X", strings.Join(argv, "\x00") + "\x00", "boot", standingAbsent},
		"otherProgram":         {"S", "sleep\x0060\x00", "boot", standingAbsent},
		"uuidAndOtherArgument": {"S", strings.Join(argv, "\x00") + "\x00-S\x00", "boot", standingForeign},
		"otherBootOfRecord":    {"S", strings.Join(argv, "\x00") + "\x00", "next", standingForeign},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			// A real pid, so that it can be held; what it is, the made-up folder says.
			pid := os.Getppid()
			root := t.TempDir()
			r.proc = procfs{root}
			r.scanner = &scanner{proc: r.proc}
			dir := filepath.Join(root, strconv.Itoa(pid))
			r.must(os.MkdirAll(dir, 0o700))
			r.must(os.MkdirAll(filepath.Join(root, "sys/kernel/random"), 0o700))
			stat := strconv.Itoa(pid) + " (odd) name)) " + c.state + strings.Repeat(" 1", 18) + " 4711 0"
			writeTestFile(t, filepath.Join(dir, "stat"), []byte(stat))
			writeTestFile(t, filepath.Join(dir, "cmdline"), []byte(c.cmdline))
			writeTestFile(t, filepath.Join(root, "sys/kernel/random/boot_id"), []byte(c.boot+"\n"))
			r.must(os.MkdirAll(r.layout.RunDir("web"), 0o700))
			r.must(r.writeRunFile("web", r.layout.Launched("web"), &driver.Launched{Version: 1, UID: uid, Argv: argv, BootID: "boot"}))
			writeTestFile(t, r.layout.PIDFile("web"), []byte(strconv.Itoa(pid)+"\n"))
			l, err := r.look("web")
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if l.standing != c.want {
				t.Errorf("standing = %d, want %d", l.standing, c.want)
			}
			if l.standing == standingOurs && l.process.start != 4711 {
				t.Errorf("start = %d, want 4711", l.process.start)
			}
		})
	}
}

func TestKill_stoppedProcess_ends(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	k := r.childOf("web")
	r.signal("web", unix.SIGSTOP)
	r.must(rigAt(t, r.layout).Kill(t.Context(), "web"))
	r.waitChild(k)
	r.observe(vm, driver.DepthBrief, driver.Absent)
}
