package e2e

import (
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestWatch_qemuEnds_isStartedAgainByPolicy ends QEMU in every way a host does,
// the kernel's way of a host without memory (SIGKILL) included.
func TestWatch_qemuEnds_isStartedAgainByPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal syscall.Signal
		cause  string
	}{
		"kill":      {syscall.SIGKILL, "Crash"},
		"abort":     {syscall.SIGABRT, "Crash"},
		"segfault":  {syscall.SIGSEGV, "Crash"},
		"terminate": {syscall.SIGTERM, "Signal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, 2)
			w.write("vm0", "  restartPolicy: OnFailure\n")
			w.write("vm1", "  restartPolicy: Never\n")
			w.begin()
			before := w.running(2)
			w.signal("vm0", c.signal)
			w.signal("vm1", c.signal)
			w.NewPID(t, "vm0", before["vm0"])
			s := w.Becomes(t, "vm0", "restarted", func(s host.Status) bool { return s.Phase == "Running" && s.Restarts == 1 })
			if s.Cause() != c.cause || s.Failures != 1 {
				t.Errorf("vm0 is %+v; want one failure by %s", s, c.cause)
			}
			never := w.Phase(t, "vm1", "Failed")
			if never.Cause() != c.cause || never.Restarts != 0 || len(w.QEMUs()["vm1"]) != 0 {
				t.Errorf("vm1, never to be restarted, is %+v", never)
			}
			// It stays so for another watch, too.
			w.watch.Kill()
			w.begin()
			w.converges("vm2")
			if never = w.Status(t, "vm1"); never.Phase != "Failed" || len(w.QEMUs()["vm1"]) != 0 {
				t.Errorf("vm1 under the next watch is %+v", never)
			}
		})
	}
}

func TestWatch_qemuEndsAgainAndAgain_waitsLongerEachTime(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.watch = w.Watch(t, w.dir, "--timeouts", "backoff=500ms,backoff-max=1h")
	w.running(1)
	var waits []time.Duration
	for failures := 1; failures <= 3; failures++ {
		pid := w.signal("vm0", syscall.SIGKILL)
		killed := time.Now()
		w.NewPID(t, "vm0", pid)
		waits = append(waits, time.Since(killed))
		w.Becomes(t, "vm0", "started again", func(s host.Status) bool { return s.Phase == "Running" && s.Failures == failures })
		if least := 500 * time.Millisecond << (failures - 1); waits[failures-1] < least {
			t.Errorf("failure %d: started after %s, want at least %s", failures, waits[failures-1], least)
		}
	}
	w.signal("vm0", syscall.SIGKILL)
	s := w.Phase(t, "vm0", "CrashLoopBackOff")
	if s.Failures != 4 || s.Cause() != "Crash" {
		t.Errorf("in the back-off: %+v", s)
	}
	// The count survives the watch; a changed spec is a new beginning.
	w.watch.Kill()
	w.watch = w.Watch(t, w.dir, "--timeouts", "backoff=1h,backoff-max=2h")
	if s = w.Phase(t, "vm0", "CrashLoopBackOff"); s.Failures != 4 {
		t.Errorf("under the next watch: %+v", s)
	}
	w.write("vm0", "  cpu: {count: 2}\n")
	if s = w.Phase(t, "vm0", "Running"); s.Failures != 0 {
		t.Errorf("with another spec: %+v", s)
	}
}

// TestWatch_qemuFrozen_isShownAndLeftAlone freezes QEMU, which then answers
// nobody and takes no other machine's time.
func TestWatch_qemuFrozen_isShownAndLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 3)
	w.begin("--allow-restart", "--prune")
	before := w.running(3)
	frozen := w.signal("vm0", syscall.SIGSTOP)
	// Something concerns the frozen one: a changed file, which would restart it.
	w.write("vm0", "  cpu: {count: 2}\n")
	pid := w.signal("vm1", syscall.SIGKILL)
	begin := time.Now()
	w.NewPID(t, "vm1", pid)
	if took := time.Since(begin); took > host.Settle/4 {
		t.Errorf("another machine's restart took %s beside a frozen one", took)
	}
	w.shows("vm0", "Unresponsive")
	if s := w.Status(t, "vm0"); s.Phase != "Unresponsive" {
		t.Errorf("the frozen machine is %+v", s)
	}
	w.converges("vm3")
	if pids := w.QEMUs(); len(pids["vm0"]) != 1 || pids["vm0"][0] != frozen || pids["vm2"][0] != before["vm2"] {
		t.Fatalf("processes beside a frozen one: %v, before: %v", pids, before)
	}
	if err := syscall.Kill(frozen, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// Thawed, it is as any other: its change is made.
	w.NewPID(t, "vm0", frozen)
	w.clear("vm0", "Unresponsive")
	w.Phase(t, "vm0", "Running")
	w.empty()
}

// TestWatch_somebodyAtTheMonitor_isCorrectedAtOnce does by QMP what no file says.
func TestWatch_somebodyAtTheMonitor_isCorrectedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 3)
	w.write("vm1", "  powerState: Paused\n")
	w.begin()
	w.Phase(t, "vm0", "Running")
	w.Phase(t, "vm1", "Paused")
	w.Phase(t, "vm2", "Running")
	before := w.pids()
	for name := range before {
		w.listened(name)
	}

	w.Must(t, 0, "qmp", "vm0", "stop")
	w.Must(t, 0, "qmp", "vm1", "cont")
	w.says("vm=vm0 action=resume message=resumed")
	w.says("vm=vm1 action=pause message=paused")
	w.Phase(t, "vm0", "Running")
	w.Phase(t, "vm1", "Paused")
	w.same(before, "after stop and cont")

	w.Must(t, 0, "qmp", "vm2", "quit", "--allow-dangerous")
	w.NewPID(t, "vm2", before["vm2"])
	s := w.Phase(t, "vm2", "Running")
	if s.Cause() != "MonitorQuit" || s.Failures != 0 {
		t.Errorf("after quit: %+v; want it told, and no failure", s)
	}
	for _, want := range []string{"vm0 .*watch .*resumed", "vm1 .*watch .*paused", "vm2 .*somebody told QEMU to quit", "vm2 .*started, pid .*\n(.*\n)*.*vm2 .*started, pid"} {
		w.Becomes(t, "vm2", "told of as "+want, func(host.Status) bool {
			return regexp.MustCompile(want).MatchString(w.Must(t, 0, "events"))
		})
	}
	w.empty()
}
