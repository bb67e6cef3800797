package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// TestSnapshots_twentyMachinesAtOnce_allAreTaken has snapshots taken of 20 running
// machines in one apply, with memory, and once more of their disks alone.
func TestSnapshots_twentyMachinesAtOnce_allAreTaken(t *testing.T) {
	t.Parallel()
	const machines = 20
	h, dir := host.New(t, binary), writeMachines(t, machines)
	h.Must(t, 0, "apply", "-f", dir)
	for i, method := range []string{"Full", "Disk"} {
		var text strings.Builder
		for vm := range machines {
			fmt.Fprintf(&text, "---\napiVersion: maqet.io/v1alpha1\nkind: Snapshot\nmetadata: {name: s%d-vm%d}\nspec: {virtualMachine: vm%d, method: %s}\n", i, vm, vm, method)
		}
		if err := os.WriteFile(filepath.Join(dir, method+".yaml"), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Must(t, 0, "apply", "-f", dir)
	}
	for vm := range machines {
		disk := filepath.Join(h.State, "disks", fmt.Sprintf("vm%d", vm), "data.qcow2")
		if got, want := fmt.Sprint(tagsOf(t, disk)), fmt.Sprintf("[s0-vm%d s1-vm%d]", vm, vm); got != want {
			t.Errorf("vm%d: its disk holds %s, want %s", vm, got, want)
		}
		if jobs := strings.TrimSpace(h.Must(t, 0, "qmp", fmt.Sprintf("vm%d", vm), "query-jobs")); jobs != "[]" {
			t.Errorf("vm%d: jobs are left: %s", vm, jobs)
		}
		if state := h.Must(t, 0, "get", fmt.Sprintf("vm%d", vm), "-o", "jsonpath={.status.phase}"); strings.TrimSpace(state) != "Running" {
			t.Errorf("vm%d is %s", vm, state)
		}
	}
}
