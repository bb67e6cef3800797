package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// byHand writes a machine outside of the watched folder, and returns its file.
func (w *watching) byHand(name, spec string) string {
	w.Helper()
	path := filepath.Join(filepath.Dir(w.dir), name+".yaml")
	put(w.T, path, small(name, spec))
	return path
}

// TestWatch_startedByAnother_isListenedToAtOnce has other processes start machines
// beside the watch, which must not learn of them by its resync only.
func TestWatch_startedByAnother_isListenedToAtOnce(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.begin()
	before := w.running(1)
	w.Must(t, 0, "stop", "vm0", "--force")
	w.Must(t, 0, "start", "vm0")
	w.listened("vm0")
	pid := w.signal("vm0", syscall.SIGKILL)
	if pid == before["vm0"] {
		t.Fatalf("pid %d was not stopped", pid)
	}
	w.NewPID(t, "vm0", pid)

	hand := w.byHand("hand", "")
	w.Must(t, 0, "apply", "-f", hand)
	w.listened("hand")
	pid = w.signal("hand", syscall.SIGKILL)
	w.NewPID(t, "hand", pid)
	w.Becomes(t, "hand", "restarted after a crash", func(s host.Status) bool {
		return s.Phase == "Running" && s.Restarts == 1 && s.Cause() == "Crash"
	})
}

// TestWatch_othersBeside_areRefusedWhatItOwns asks for what the watch would undo.
func TestWatch_othersBeside_areRefusedWhatItOwns(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 2)
	w.begin()
	before := w.running(2)
	other := w.byHand("vm0", "  powerState: Paused\n")
	for _, args := range [][]string{
		{"apply", "-f", other},
		{"apply", "-f", other, "--take-over"},
		{"apply", "-f", other, "--owner", w.dir},
	} {
		stdout, stderr, code := w.Maqet(t, args...)
		if code != 3 || !strings.Contains(stderr, "vm/vm0") || !strings.Contains(stderr, itoa(w.watch.PID())) {
			t.Errorf("maqet %s: exit code %d, want 3 and the watch's pid\n%s%s", strings.Join(args, " "), code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"delete", "vm0"}, {"delete", "-f", w.dir}, {"delete", "vm0", "--delete-disks"}} {
		if _, stderr, code := w.Maqet(t, args...); code != 3 || !strings.Contains(stderr, "vm0.yaml") {
			t.Errorf("maqet %s: exit code %d, want 3 and the file to remove\n%s", strings.Join(args, " "), code, stderr)
		}
	}
	// What the watch would say itself is no contradiction.
	w.Must(t, 0, "apply", "-f", w.dir)
	w.same(before, "after refused commands")
	// Held, it is a person's.
	w.Must(t, 0, "hold", "vm0", "--why", "mine for now")
	w.Must(t, 0, "qmp", "vm0", "stop")
	w.converges("vm2")
	if s := w.Phase(t, "vm0", "Paused"); s.Condition("Held") == nil {
		t.Errorf("the held machine is %+v", s)
	}
	w.Must(t, 0, "release", "vm0")
	w.Phase(t, "vm0", "Running")
	// Without its file it may go.
	w.remove("vm1.yaml")
	w.converges("vm3")
	w.Must(t, 0, "delete", "vm1", "--force")
	if pids := w.QEMUs()["vm1"]; len(pids) != 0 {
		t.Errorf("deleted, vm1 has QEMU processes %v", pids)
	}
}
