package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// serial waits until the guest's serial log has a text so many times.
func (w *watching) serial(name, text string, times int) {
	w.Helper()
	var log string
	if !host.Eventually(host.Settle, func() bool {
		stdout, _, code := w.Maqet(w.T, "logs", name)
		log = stdout
		return code == 0 && strings.Count(log, text) >= times
	}) {
		w.Fatalf("%s never wrote %q %d times:\n%s", name, text, times, log)
	}
}

// marker is the beginning of what the tiny guest says once it is up.
const marker = guest.Marker

func TestWatch_guestPowersOff_isCompletedForGood(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	w.put("vm0.yaml", booting(t, "vm0", "maqet.poweroff", ""))
	w.begin()
	s := w.Phase(t, "vm0", "Completed")
	if s.Cause() != "GuestPowerOff" || s.Restarts != 0 {
		t.Errorf("%+v; want an end by the guest", s)
	}
	// Nobody starts it: not this watch, told to look, not the next, not an apply.
	w.converges("vm1")
	w.watch.Kill()
	w.begin()
	w.converges("vm2")
	w.Must(t, 0, "apply", "-f", w.dir)
	if s = w.Status(t, "vm0"); s.Phase != "Completed" || len(w.QEMUs()["vm0"]) != 0 {
		t.Errorf("later: %+v, %v", s, w.QEMUs())
	}
	// A person does.
	w.Must(t, 0, "start", "vm0")
	w.serial("vm0", marker, 2)
	w.Phase(t, "vm0", "Completed")
}

func TestWatch_guestPowersOffUnderAlways_isStartedAgain(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	w.put("vm0.yaml", booting(t, "vm0", "maqet.poweroff", "  restartPolicy: Always\n"))
	w.begin()
	w.Becomes(t, "vm0", "started again", func(s host.Status) bool { return s.Restarts >= 1 && s.Cause() == "GuestPowerOff" })
	w.serial("vm0", marker, 2)
}

func TestWatch_guestReboots_isTheSameProcessAndNoRestart(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	w.put("vm0.yaml", booting(t, "vm0", "maqet.reboot", ""))
	w.begin()
	w.Phase(t, "vm0", "Running")
	before := w.pids()
	// Each boot has a deadline of its own.
	for boots := 1; boots <= 2; boots++ {
		w.serial("vm0", marker, boots)
	}
	w.same(before, "after a reboot")
	if s := w.Status(t, "vm0"); s.Phase != "Running" || s.Restarts != 0 || s.Cause() != "" {
		t.Errorf("%+v; want a machine that runs on", s)
	}
}

// TestWatch_guestPanics_isTold lets QEMU do what it does with a panicked guest: it
// ends, which is a failure as any other.
func TestWatch_guestPanics_isTold(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	for name, policy := range map[string]string{"vm0": "OnFailure", "vm1": "Never"} {
		w.put(name+".yaml", booting(t, name, "maqet.panic", "  restartPolicy: "+policy+"\n  devices: [{name: panic, driver: pvpanic}]\n"))
	}
	w.begin()
	w.Becomes(t, "vm0", "started again", func(s host.Status) bool { return s.Restarts >= 1 && s.Failures >= 1 && s.Cause() == "GuestPanicked" })
	if s := w.Phase(t, "vm1", "Failed"); s.Cause() != "GuestPanicked" || s.Restarts != 0 {
		t.Errorf("never to be restarted: %+v", s)
	}
}

// TestWatch_guestPanickedAndKept_isNeverContinued has QEMU keep the panicked guest
// for somebody to look at.
func TestWatch_guestPanickedAndKept_isNeverContinued(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	w.put("vm0.yaml", booting(t, "vm0", "maqet.panic=3", "  devices: [{name: panic, driver: pvpanic}]\n"))
	w.begin()
	w.Phase(t, "vm0", "Running")
	w.Must(t, 0, "qmp", "vm0", "set-action", "--arg", "panic=pause", "--allow-dangerous")
	before := w.pids()
	s := w.Becomes(t, "vm0", "panicked", func(s host.Status) bool { return s.Phase == "Failed" && s.Reason == "guest-panicked" })
	if c := s.Condition("Stalled"); c == nil || !strings.Contains(c.Message, "maqet restart vm0") {
		t.Errorf("the way out is not told: %+v", s)
	}
	// Neither a look at everything nor another watch continues it.
	w.watch.Signal(t, syscall.SIGHUP)
	w.converges("vm1")
	w.watch.Kill()
	w.begin()
	w.converges("vm2")
	if s = w.Status(t, "vm0"); s.Reason != "guest-panicked" || w.PID(t, "vm0") != before["vm0"] {
		t.Errorf("later it is %+v", s)
	}
	w.Must(t, 0, "restart", "vm0", "--force")
	w.NewPID(t, "vm0", before["vm0"])
}
