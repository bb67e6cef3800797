package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestWatch_databaseLost_disturbsNoGuest takes the database away, or damages it,
// under a watch and between two.
func TestWatch_databaseLost_disturbsNoGuest(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *watching, db string){
		"deleted":   func(w *watching, db string) { w.must(os.Remove(db)) },
		"truncated": func(w *watching, db string) { w.must(os.Truncate(db, 5000)) },
		"zeroed":    func(w *watching, db string) { w.must(os.WriteFile(db, make([]byte, 32768), 0o600)) },
		"garbage": func(w *watching, db string) {
			w.must(os.WriteFile(db, bytes.Repeat([]byte("not a database "), 999), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, 2)
			w.begin("--prune", "--prune-all")
			before := w.running(2)
			db := filepath.Join(w.State, "state.db")
			spoil(w, db)
			w.watch.Signal(t, syscall.SIGHUP)
			w.converges("vm2")
			before["vm2"] = w.PID(t, "vm2")
			w.same(before, "under the watch")
			w.watch.Kill()

			spoil(w, db)
			w.begin("--prune", "--prune-all")
			w.running(3)
			w.same(before, "under the next")
			w.empty()
			// It supervises them as before.
			w.signal("vm0", syscall.SIGKILL)
			w.NewPID(t, "vm0", before["vm0"])
		})
	}
}

// TestWatch_lookAlike_isLeftAlone runs a QEMU beside that has a machine's name and
// another uuid, and is nobody's business.
func TestWatch_lookAlike_isLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 2)
	alike := exec.Command("qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-machine", "none",
		"-name", "vm0", "-uuid", "11111111-2222-4333-8444-555555555555")
	if err := alike.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- alike.Wait() }()
	t.Cleanup(func() {
		_ = alike.Process.Kill()
		_ = <-ended // killed on purpose
	})
	w.begin("--prune", "--prune-all")
	before := w.running(2)
	if before["vm0"] == alike.Process.Pid {
		t.Fatal("the look-alike was adopted")
	}
	w.remove("vm0.yaml")
	deadline(t, "vm0 is pruned", func() bool { return len(w.QEMUs()["vm0"]) == 0 })
	deadline(t, "vm0 is forgotten", func() bool { return w.Status(t, "vm0").Phase == "" })
	w.write("vm0", "")
	w.Phase(t, "vm0", "Running")
	select {
	case err := <-ended:
		ended <- err
		t.Errorf("the look-alike ended: %v", err)
	default:
	}
}

// TestWatch_runDirLost_startsNoSecondQEMU removes what a logout removes.
func TestWatch_runDirLost_startsNoSecondQEMU(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.begin()
	before := w.running(1)
	w.watch.Kill()
	w.must(os.RemoveAll(w.Host.Run))
	w.begin()
	s := w.Becomes(t, "vm0", "found without its sockets", func(s host.Status) bool { return s.Reason == "SocketsLost" })
	if s.Phase != "Unresponsive" {
		t.Errorf("it is %+v", s)
	}
	w.converges("vm1")
	after := w.pids()
	if len(after) != 2 || after["vm0"] != before["vm0"] {
		t.Errorf("processes %v, were %v", after, before)
	}
}
