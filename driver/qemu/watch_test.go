package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// watching is a Watch that goes on in the background.
type watching struct {
	t      *testing.T
	hints  chan string
	result chan error
	cancel context.CancelFunc
	heard  []string
}

// watch begins to watch the machine web.
func (r *rig) watch(t *testing.T) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{t: t, hints: make(chan string, 1000), result: make(chan error, 1), cancel: cancel}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		w.result <- r.Watch(ctx, "web", func(h driver.Hint) { w.hints <- h.Kind })
	}()
	t.Cleanup(func() { cancel(); <-finished })
	return w
}

// await waits for a hint of that kind.
func (w *watching) await(kind string) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case got := <-w.hints:
			w.heard = append(w.heard, got)
			if got == kind {
				return
			}
		case <-deadline:
			w.t.Fatalf("no hint %q; heard %v", kind, w.heard)
		}
	}
}

// returns waits for the end of Watch, after which no hint may come.
func (w *watching) returns() error {
	w.t.Helper()
	select {
	case err := <-w.result:
		if len(w.hints) > 0 {
			w.t.Errorf("%d hints were not waited for, the first is %q", len(w.hints), <-w.hints)
		}
		return err
	case <-time.After(10 * time.Second):
		w.t.Fatal("Watch does not return")
		return nil
	}
}

func TestWatch_eventsAndExit_areTold(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", bareBoard), false)
	w := r.watch(t)
	w.await(driver.HintConnected)
	r.must(r.SetPaused(t.Context(), "web", true))
	w.await("STOP")
	r.must(r.SetPaused(t.Context(), "web", false))
	w.await("RESUME")
	r.must(r.Quit(t.Context(), "web"))
	w.await("SHUTDOWN")
	w.await(driver.HintExit)
	if err := w.returns(); err != nil {
		t.Errorf("Watch = %v, want nil once the process has ended", err)
	}
	if n := len(slices.DeleteFunc(w.heard, func(k string) bool { return k != driver.HintExit })); n != 1 {
		t.Errorf("%d exit hints, want 1", n)
	}
}

// bootSector is a disk that a PC runs these instructions of, in 16-bit code.
func bootSector(t *testing.T, code ...byte) string {
	t.Helper()
	// Smaller than a cylinder it is no disk to the firmware.
	sector := make([]byte, 1<<20)
	// Behind the code the guest does nothing for ever.
	copy(sector, append(code, 0xf4, 0xeb, 0xfd))
	sector[510], sector[511] = 0x55, 0xaa
	path := filepath.Join(t.TempDir(), "boot.raw")
	if err := os.WriteFile(path, sector, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// outByte and outWord are the instructions that write to an I/O port.
func outByte(port uint16, value byte) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{0xba}, port), 0xb0, value, 0xee)
}

func outWord(port, value uint16) []byte {
	code := append(binary.LittleEndian.AppendUint16([]byte{0xba}, port), 0xb8)
	return append(binary.LittleEndian.AppendUint16(code, value), 0xef)
}

func TestWatch_endOfGuest_isToldApart(t *testing.T) {
	const powerManagement, resetControl, panicPort, watchdogTimer = 0x604, 0xcf9, 0x505, 0x443
	cases := map[string]struct {
		code   []byte
		args   []string
		end    func(r *rig)
		want   driver.EndCause
		reason string
	}{
		"powerOff": {code: outWord(powerManagement, 0x2000), want: driver.EndGuest, reason: "guest-shutdown"},
		"resetWithNoReboot": {
			code: outByte(resetControl, 6), args: []string{"-no-reboot"}, want: driver.EndGuest, reason: "guest-reset",
		},
		"panic": {code: outByte(panicPort, 1), args: []string{"-device", "pvpanic"}, want: driver.EndPanic, reason: "guest-panic"},
		"watchdog": {
			code: outByte(watchdogTimer, 0xf), args: []string{"-device", "ib700", "-watchdog-action", "poweroff"}, want: driver.EndWatchdog,
		},
		"quitInMonitor": {
			end: func(r *rig) { r.must(r.Quit(r.t.Context(), "web")) }, want: driver.EndQuit, reason: "host-qmp-quit",
		},
		"signal": {
			end: func(r *rig) { r.signal("web", unix.SIGTERM) }, want: driver.EndSignal, reason: "host-signal",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
				s.Emulator.ExtraArgs = c.args
				s.Disks = []manifest.Disk{{Name: "boot", File: bootSector(t, c.code...), Format: manifest.FormatRaw}}
			})
			r.start(vm, true)
			w := r.watch(t)
			w.await(driver.HintConnected)
			r.must(r.SetPaused(t.Context(), "web", false))
			if c.end != nil {
				c.end(r)
			}
			w.await(driver.HintExit)
			if err := w.returns(); err != nil {
				t.Fatal(err)
			}
			// Also for a maqet that has heard nothing, as after a crash of this one.
			for who, r := range map[string]*rig{"the watcher": r, "another": rigAt(t, r.layout)} {
				o := r.observe(vm, driver.DepthBrief, driver.Absent)
				if e := o.Ended; e == nil || e.Cause != c.want || e.Reason != c.reason || e.Exit != "exit status 0" {
					t.Errorf("%s sees %+v, want cause %s, reason %q", who, e, c.want, c.reason)
				}
			}
			r.must(r.ClearRun(t.Context(), "web"))
			if left := r.runFiles(); len(left) > 0 {
				t.Errorf("ClearRun left %v", left)
			}
		})
	}
}

func TestWatch_killedProcess_isNoticedAtOnceAndItsStatusKept(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	w := r.watch(t)
	w.await(driver.HintConnected)
	k := r.childOf("web")
	begun := time.Now()
	r.signal("web", unix.SIGKILL)
	w.await(driver.HintExit)
	took := time.Since(begun)
	if err := w.returns(); err != nil {
		t.Fatal(err)
	}
	if took > time.Second {
		t.Errorf("noticed after %s", took)
	}
	r.waitChild(k)
	o := rigAt(t, r.layout).observe(vm, driver.DepthBrief, driver.Absent)
	if e := o.Ended; e == nil || e.Cause != driver.EndCrash || e.Exit != "signal SIGKILL" || e.At.Before(begun) {
		t.Errorf("another maqet sees %+v, want a crash by SIGKILL", e)
	}
}

func TestWatch_stuckQEMU_endIsNoticed(t *testing.T) {
	r := newRig(t)
	r.timing.Greeting = 50 * time.Millisecond
	r.start(r.vm("web", bareBoard), false)
	r.signal("web", unix.SIGSTOP)
	w := r.watch(t)
	r.signal("web", unix.SIGKILL)
	w.await(driver.HintExit)
	if err := w.returns(); err != nil {
		t.Fatal(err)
	}
}

func TestWatch_placeTaken_waitsAndTakesOver(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	first := r.watch(t)
	first.await(driver.HintConnected)
	second := rigAt(t, r.layout).watch(t)
	r.must(r.SetPaused(t.Context(), "web", true))
	first.await("STOP")

	first.cancel()
	if err := first.returns(); !errors.Is(err, context.Canceled) {
		t.Errorf("the first Watch = %v, want the context's error", err)
	}
	second.await(driver.HintConnected)
	if slices.Contains(second.heard, "STOP") {
		t.Errorf("the second heard %v before it was connected", second.heard)
	}
	r.must(r.SetPaused(t.Context(), "web", false))
	second.await("RESUME")
	r.must(r.Quit(t.Context(), "web"))
	second.await(driver.HintExit)
	if err := second.returns(); err != nil {
		t.Fatal(err)
	}
	// The second did not start the machine, and heard why it ended all the same.
	if e := r.observe(vm, driver.DepthBrief, driver.Absent).Ended; e == nil || e.Cause != driver.EndQuit {
		t.Errorf("Ended = %+v, want %s", e, driver.EndQuit)
	}
}

func TestWatch_placeTaken_exitIsNoticed(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", bareBoard), false)
	lock, err := r.locks.TryLock(r.layout.QMPLock("web"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { r.must(lock.Unlock()) }()
	w := r.watch(t)
	r.signal("web", unix.SIGKILL)
	w.await(driver.HintExit)
	if err := w.returns(); err != nil || slices.Contains(w.heard, driver.HintConnected) {
		t.Errorf("Watch = %v, heard %v", err, w.heard)
	}
}

func TestWatch_consumerBlocks_neitherQEMUNorNotesWait(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	blocked, release := make(chan struct{}), make(chan struct{})
	var heard []string
	result := make(chan error, 1)
	go func() {
		result <- r.Watch(t.Context(), "web", func(h driver.Hint) {
			if len(heard) == 0 {
				close(blocked)
				<-release
			}
			heard = append(heard, h.Kind)
		})
	}()
	<-blocked
	r.must(r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		for range hintQueue {
			if err := c.DoAll(ctx, qmp.NewCall("stop", nil, nil), qmp.NewCall("cont", nil, nil)); err != nil {
				return err
			}
		}
		return nil
	}))
	r.must(r.Quit(t.Context(), "web"))
	r.waitEnd("web")
	if e := r.observe(vm, driver.DepthBrief, driver.Absent).Ended; e == nil || e.Cause != driver.EndQuit {
		t.Errorf("Ended = %+v while the consumer blocks, want %s", e, driver.EndQuit)
	}
	close(release)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if n := len(heard); heard[n-1] != driver.HintExit || heard[1] != driver.HintConnected || n > 2*hintQueue {
		t.Errorf("heard %v, want a second connected, and exit at the end", heard)
	}
}

func TestWatch_noProcess_exitAtOnce(t *testing.T) {
	r := newRig(t)
	w := r.watch(t)
	w.await(driver.HintExit)
	if err := w.returns(); err != nil {
		t.Fatal(err)
	}
}

func TestWatch_foreignProcess_isRefused(t *testing.T) {
	r := newRig(t)
	vm := r.vm("db", bareBoard)
	r.start(vm, false)
	r.rewriteLaunched("db", func(l *driver.Launched) { l.Argv = append(l.Argv, "-other") })
	err := r.Watch(t.Context(), "db", func(h driver.Hint) { t.Errorf("hint %q", h.Kind) })
	if !errors.Is(err, driver.ErrForeign) || !strings.Contains(err.Error(), strconv.Itoa(findPID(t, r))) {
		t.Errorf("Watch = %v, want ErrForeign with the pid", err)
	}
}

// findPID is the pid of the only process that this rig has started.
func findPID(t *testing.T, r *rig) int {
	t.Helper()
	r.children.mu.Lock()
	defer r.children.mu.Unlock()
	for _, k := range r.children.byUID {
		return k.pid
	}
	t.Fatal("no child")
	return 0
}

func TestWatch_notesOfAnotherStart_areVoid(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", bareBoard)
	r.start(vm, false)
	record, err := r.readLaunched("web")
	r.must(err)
	old := r.newNotes("web", &driver.Launched{UID: record.UID, At: record.At.Add(-time.Hour)})
	r.must(old.event(qmp.Event{Name: eventShutdown, Data: []byte(`{"guest":false,"reason":"host-signal"}`)}))
	r.must(r.Quit(t.Context(), "web"))
	r.waitEnd("web")
	if e := r.observe(vm, driver.DepthBrief, driver.Absent).Ended; e == nil || e.Cause != driver.EndGuest || e.Reason != "" {
		t.Errorf("Ended = %+v, want what an end without a listener looks like", e)
	}
}
