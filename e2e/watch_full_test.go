package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestWatch_stateDiskFull_guestsAreSupervisedOn fills the file system that the state
// is on under a watch. What does not fit any more is not written, in part neither,
// and the watch says so; machines whose QEMU is killed are started again all the
// same, and once there is room everything is as the files say.
func TestWatch_stateDiskFull_guestsAreSupervisedOn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	t.Parallel()
	w := newWatching(t, 2)
	w.must(os.MkdirAll(w.State, 0o700))
	if err := syscall.Mount("none", w.State, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skipf("this host lets nobody mount: %v", err)
	}
	t.Cleanup(func() {
		w.KillAll() // Their logs are on it.
		w.must(syscall.Unmount(w.State, syscall.MNT_DETACH))
	})
	w.begin()
	before := w.running(2)
	w.listened("vm0")
	ballast := w.fill(w.State)

	// More machines than there is room for in the database.
	var many strings.Builder
	for i := range 300 {
		many.WriteString("---\n" + small(fmt.Sprintf("more%d", i), "  powerState: Stopped\n"))
	}
	w.put("more.yaml", many.String())
	w.says("the state cannot be written; supervising from memory")
	for _, name := range []string{"vm0", "vm1"} {
		pid := w.signal(name, syscall.SIGKILL)
		before[name] = w.NewPID(t, name, pid)
	}
	w.same(before, "on a full disk")
	// Whoever reads finds the old state whole.
	out := w.Must(t, 0, "get")
	if strings.Contains(out, "more") || !strings.Contains(out, "vm0") || !strings.Contains(out, "vm1") {
		t.Errorf("read from the full disk:\n%s", out)
	}

	w.must(os.Remove(ballast))
	for _, name := range []string{"vm0", "vm1"} {
		w.Becomes(t, name, "written down", func(s host.Status) bool { return s.Restarts == 1 && s.Cause() == "Crash" })
	}
	w.Phase(t, "more299", "Stopped")
	w.same(before, "with room again")
	w.converges("vm2")
}

// fill takes all the space of a folder's file system, and returns the file that
// does.
func (w *watching) fill(dir string) string {
	w.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	w.must(err)
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	w.must(f.Close())
	return path
}
