package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestWatch_brokenFile_keepsItsLastGoodObjects breaks one file of two, under a watch
// that may restart and prune.
func TestWatch_brokenFile_keepsItsLastGoodObjects(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 2)
	w.begin("--prune", "--prune-all", "--allow-restart")
	before := w.running(2)
	for _, text := range []string{"kind: [", small("vm0", "  memroy: {size: 1Gi}\n"), small("renamed", "  powerState: Off\n")} {
		w.put("vm0.yaml", text)
		if why := w.shows("vm0", "ManifestInvalid"); !strings.Contains(why, "vm0.yaml:") {
			t.Errorf("where is not told: %q", why)
		}
		// Others are taken all the same.
		w.put("vm1.yaml", small("vm1", "  powerState: Paused\n"))
		w.Phase(t, "vm1", "Paused")
		w.same(before, "a broken file")
		if get := w.Must(t, 0, "get"); !strings.Contains(get, "ManifestInvalid") {
			t.Errorf("get does not show it:\n%s", get)
		}
		// A process that ends is one that is started again: by what was good.
		w.listened("vm0")
		pid := w.PID(t, "vm0")
		w.Must(t, 0, "qmp", "vm0", "quit", "--allow-dangerous")
		before["vm0"] = w.NewPID(t, "vm0", pid)

		w.write("vm0", "")
		w.write("vm1", "")
		w.clear("vm0", "ManifestInvalid")
		w.Phase(t, "vm1", "Running")
	}
	w.same(before, "mended")
	w.empty()
}

func TestWatch_conflict_holdsOnlyItsObjects(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 3)
	w.begin("--allow-restart")
	before := w.running(3)
	nic := "  nics: [{name: lan, mac: \"52:54:00:00:00:07\", user: {}}]\n"
	w.write("vm0", nic)
	after := w.NewPID(t, "vm0", before["vm0"])
	w.write("vm1", nic)
	if why := w.shows("vm1", "ManifestInvalid"); !strings.Contains(why, "52:54:00:00:00:07") {
		t.Errorf("the conflict is not told: %q", why)
	}
	w.write("vm2", "  powerState: Paused\n")
	w.Phase(t, "vm2", "Paused")
	if got := w.pids(); got["vm0"] != after || got["vm1"] != before["vm1"] || got["vm2"] != before["vm2"] {
		t.Errorf("processes %v, were %v", got, before)
	}
	w.write("vm1", strings.ReplaceAll(nic, ":07", ":08"))
	w.NewPID(t, "vm1", before["vm1"])
	w.clear("vm1", "ManifestInvalid")
	w.clear("vm0", "ManifestInvalid")
}

// TestWatch_prune_needsProofOfAbsence removes files beside a broken one, which may
// hold anything.
func TestWatch_prune_needsProofOfAbsence(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 3)
	w.begin("--prune")
	before := w.running(3)
	w.put("broken.yaml", "kind: [")
	w.remove("vm1.yaml")
	w.says("manifests are at fault")
	w.converges("vm3")
	w.same(map[string]int{"vm0": before["vm0"], "vm1": before["vm1"], "vm2": before["vm2"], "vm3": w.PID(t, "vm3")}, "an incomplete listing")
	w.remove("broken.yaml")
	deadline(t, "vm1 is pruned once all was read", func() bool { return len(w.QEMUs()["vm1"]) == 0 })
	deadline(t, "vm1 is forgotten", func() bool { return w.Status(t, "vm1").Phase == "" })

	// All at once is a mistake until somebody says otherwise.
	for _, name := range []string{"vm0", "vm2", "vm3"} {
		w.remove(name + ".yaml")
	}
	w.says("nothing is pruned")
	if n := len(w.QEMUs()); n != 3 {
		t.Fatalf("%d machines run after all files went", n)
	}
	w.watch.Kill()
	w.begin("--prune", "--prune-all")
	deadline(t, "all are pruned with --prune-all", func() bool { return len(w.QEMUs()) == 0 })
}

// TestWatch_withoutPrune_namesWhatIsLeft deletes nothing, and supervises it.
func TestWatch_withoutPrune_leavesAndSupervises(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 2)
	w.begin()
	w.running(2)
	w.remove("vm1.yaml")
	w.converges("vm2")
	w.listened("vm1")
	pid := w.PID(t, "vm1")
	w.Must(t, 0, "qmp", "vm1", "quit", "--allow-dangerous")
	w.NewPID(t, "vm1", pid)
	// Now that no file has it, a person may delete it.
	w.Must(t, 0, "delete", "vm1", "--force")
	if s := w.Status(t, "vm1"); s.Phase != "" {
		t.Errorf("after its delete vm1 is %+v", s)
	}
}

// TestWatch_fileNobodyMayRead_isIncomplete runs as an ordinary user, since root may
// read everything.
func TestWatch_fileNobodyMayRead_isIncomplete(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("vm0", "")
	u.write("vm1", "")
	u.begin("--prune", "--prune-all")
	before := u.running(2)
	for _, path := range []string{filepath.Join(u.dir, "vm0.yaml"), u.dir} {
		mode := os.FileMode(0o755)
		u.must(os.Chmod(path, 0))
		why := u.shows("vm0", "ManifestInvalid")
		if !strings.Contains(why, "permission denied") {
			t.Errorf("%s: why is not told: %q", path, why)
		}
		u.same(before, "nobody may read "+path)
		u.must(os.Chmod(path, mode))
		u.clear("vm0", "ManifestInvalid")
	}
	u.write("vm2", "")
	u.Phase(t, "vm2", "Running")
}

// TestUser_applyAndWatch_needNoRoot has the folders of an ordinary user, and user
// networking.
func TestUser_applyAndWatch_needNoRoot(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("vm0", "  nics: [{name: lan, user: {}}]\n  disks: [{name: data, size: 16Mi}]\n")
	u.Must(t, 0, "apply", "-f", u.dir)
	before := u.running(1)
	u.begin()
	u.write("vm1", "  nics: [{name: lan, user: {}}]\n")
	u.Phase(t, "vm1", "Running")
	u.listened("vm1")
	pid := u.PID(t, "vm1")
	u.Must(t, 0, "qmp", "vm1", "quit", "--allow-dangerous")
	u.NewPID(t, "vm1", pid)
	if got := u.PID(t, "vm0"); got != before["vm0"] {
		t.Errorf("the watch started vm0 anew: pid %d, was %d", got, before["vm0"])
	}
	u.Must(t, 0, "describe", "vm0", "vm1")
	u.Must(t, 0, "stop", "--all", "--force")
	// All of it lies where XDG says, and is nobody else's business.
	for _, dir := range []string{u.State, u.Host.Run} {
		info, err := os.Stat(dir)
		u.must(err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %s, want 0700", dir, info.Mode())
		}
	}
	if !host.Eventually(host.Settle, func() bool { return len(u.QEMUs()) == 0 }) {
		t.Errorf("left running: %v", u.QEMUs())
	}
}
