package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/host"
)

// writeMachines writes n small machines with a disk each and returns the folder.
func writeMachines(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		text := fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: vm%d}
spec:
  machine: {type: q35}
  memory: {size: 32Mi}
  disks: [{name: data, size: 16Mi}]
`, i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("vm%d.yaml", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mustRunOnce insists on exactly one QEMU for each of n machines.
func mustRunOnce(t *testing.T, h *host.Host, n int) {
	t.Helper()
	found := h.QEMUs()
	for i := range n {
		if pids := found[fmt.Sprintf("vm%d", i)]; len(pids) != 1 {
			t.Errorf("vm%d has QEMU processes %v, want exactly one", i, pids)
		}
	}
}

func TestApply_eightAtOnce_eachMachineStartsOnce(t *testing.T) {
	const machines, processes = 4, 8
	h, dir := host.New(t, binary), writeMachines(t, machines)
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			if stdout, stderr, code := h.Maqet(t, "apply", "-f", dir); code != 0 {
				t.Errorf("apply: exit code %d\nstdout:\n%s\nstderr:\n%s", code, stdout, stderr)
			}
		})
	}
	wg.Wait()
	mustRunOnce(t, h, machines)
	for i := range machines {
		starts := h.Must(t, 0, "get", fmt.Sprintf("vm%d", i), "-o", "jsonpath={.status.restarts}")
		if starts != "0\n" {
			t.Errorf("vm%d was restarted: %s", i, starts)
		}
	}
}

// TestApply_killedAtRandomMoments_nextApplyRepairs kills apply 20 times (100 in
// soak) at moments spread over its whole run.
func TestApply_killedAtRandomMoments_nextApplyRepairs(t *testing.T) {
	const machines = 2
	rounds := 20
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 100
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // moments, not secrets; a seed makes a failure repeatable
	dir := writeMachines(t, machines)
	h := host.New(t, binary)
	whole := timeOf(t, h, dir)
	for round := range rounds {
		h := host.New(t, binary)
		moment := time.Duration(random.Int64N(int64(whole)))
		killApply(t, h, dir, moment)
		h.Must(t, 0, "apply", "-f", dir)
		mustRunOnce(t, h, machines)
		checkDisks(t, h, machines)
		before := h.QEMUs()
		h.Must(t, 0, "apply", "-f", dir)
		if diff := cmp.Diff(before, h.QEMUs()); diff != "" {
			t.Errorf("round %d, killed after %s: the second apply changed processes (-before +after):\n%s", round, moment, diff)
		}
		h.KillAll()
		if t.Failed() {
			t.Fatalf("round %d, killed after %s", round, moment)
		}
	}
}

// timeOf measures one whole apply, so that kills fall inside of one.
func timeOf(t *testing.T, h *host.Host, dir string) time.Duration {
	t.Helper()
	begin := time.Now()
	h.Must(t, 0, "apply", "-f", dir)
	whole := time.Since(begin)
	h.KillAll()
	return whole
}

func killApply(t *testing.T, h *host.Host, dir string, after time.Duration) {
	t.Helper()
	cmd := h.Command("apply", "-f", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() {
		// It may have ended before; then there is nothing to kill.
		_ = cmd.Process.Kill()
	})
	defer timer.Stop()
	_ = cmd.Wait() // killed on purpose
}

// checkDisks insists on whole images and on no leftover of a half-made one.
func checkDisks(t *testing.T, h *host.Host, machines int) {
	t.Helper()
	for i := range machines {
		folder := filepath.Join(h.State, "disks", fmt.Sprintf("vm%d", i))
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			// The lock of the folder stays by design; anything else is a leftover.
			if e.Name() != ".create.lock" {
				names = append(names, e.Name())
			}
		}
		slices.Sort(names)
		if diff := cmp.Diff([]string{"data.qcow2", "identity.json"}, names); diff != "" {
			t.Errorf("%s (-want +got):\n%s", folder, diff)
		}
	}
}
