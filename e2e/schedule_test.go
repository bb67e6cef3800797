package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/e2e/internal/host"
)

// A minute is the shortest that a schedule can name, so that this test takes up to one;
// others run meanwhile.
func TestSchedule_everyMinute_watchTakesSnapshotsAndBackups(t *testing.T) {
	t.Parallel()
	h, dir := host.New(t, binary), t.TempDir()
	text := `apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: 32Mi}
  disks: [{name: data, size: 1Mi}]
  snapshots: {schedule: "* * * * *", keep: {last: 1}}
`
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "db.yaml"), []byte(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: db}
spec:
  machine: {type: q35}
  memory: {size: 32Mi}
  disks: [{name: data, size: 1Mi}]
  backup: {schedule: "* * * * *", target: `+target+`, keep: {last: 1}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Must(t, 0, "apply", "-f", dir)
	if out := h.Must(t, 0, "describe", "db"); !strings.Contains(out, "Last backup:   none yet") || !strings.Contains(out, "Next backup:") {
		t.Errorf("describe tells nothing of backups:\n%s", out)
	}
	if out := h.Must(t, 0, "describe", "web"); !strings.Contains(out, "Next snapshot:") {
		t.Errorf("describe tells of no next snapshot:\n%s", out)
	}
	watch := h.Command("watch", dir)
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := watch.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = watch.Wait() // it was killed
	}()
	if !host.Eventually(host.Settle, func() bool {
		return strings.Contains(h.Must(t, 0, "snapshot", "list", "web"), "auto-")
	}) {
		t.Fatalf("no snapshot was taken:\n%s", h.Must(t, 0, "events", "web"))
	}
	// The watch tells of a step when it is done, which is after the object is there.
	if !host.Eventually(host.Settle, func() bool { return strings.Contains(h.Must(t, 0, "events", "web"), "SnapshotDue") }) {
		t.Errorf("no event tells that it was due:\n%s", h.Must(t, 0, "events", "web"))
	}
	if !host.Eventually(host.Settle, func() bool { return strings.Contains(h.Must(t, 0, "backup", "list", "db"), "schedule") }) {
		t.Errorf("no backup was made:\n%s", h.Must(t, 0, "events", "db"))
	}
	// It is remembered once it is there.
	if !host.Eventually(host.Settle, func() bool {
		return strings.Contains(h.Must(t, 0, "events", "db"), "BackupMade") && !strings.Contains(h.Must(t, 0, "describe", "db"), "none yet")
	}) {
		t.Errorf("the backup is not told of:\n%s", h.Must(t, 0, "describe", "db"))
	}
}
