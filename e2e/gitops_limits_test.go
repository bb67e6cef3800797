package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// setting is the value of a key of the system's unit of maqet.
func setting(t *testing.T, key string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "examples/gitops/systemd/maqet.service"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("maqet.service does not set %s", key)
	}
	return string(found[1])
}

// TestUnits_limitsThatGuestsInherit_letThemBoot starts a real guest under what the
// unit restricts, and sees to it that the guest had to live with just that.
func TestUnits_limitsThatGuestsInherit_letThemBoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give capabilities away, as systemd does for the unit")
	}
	dropped, ok := strings.CutPrefix(setting(t, "CapabilityBoundingSet"), "~")
	if !ok || setting(t, "NoNewPrivileges") != "yes" || setting(t, "LimitCORE") != "0" {
		t.Fatal("maqet.service restricts otherwise than this test")
	}
	without := strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(dropped, "CAP_", "-"), " ", ","))

	h, tiny, dir := host.New(t, binary), guest.Path(t), t.TempDir()
	manifest := fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: 128Mi}
  boot: {kernel: {image: %s, initrd: %s, cmdline: "console=ttyS0 quiet maqet.name=web"}}
  disks: [{name: data, size: 64Mi}]
  nics: [{name: lan, user: {}}]
  serial: {log: true}
  readiness: {serial: {match: "maqet-guest ready"}, timeout: 60s}
  shutdown: {timeout: 20s}
`, tiny.Kernel, tiny.Initrd)
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prlimit", "--core="+setting(t, "LimitCORE"), "--",
		"setpriv", "--no-new-privs", "--bounding-set="+without, "--", binary, "apply", "-f", dir, "--wait")
	cmd.Env = append(os.Environ(), h.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apply under the unit's limits: %v\n%s", err, out)
	}
	pids := h.QEMUs()["web"]
	if len(pids) != 1 {
		t.Fatalf("QEMUs: %v", pids)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	bounds := regexp.MustCompile(`(?m)^CapBnd:.*$`)
	if !strings.Contains(string(status), "NoNewPrivs:\t1") || string(bounds.Find(status)) == string(bounds.Find(own)) {
		t.Errorf("the guest was not restricted:\n%s", status)
	}
	h.Must(t, 0, "stop", "web")
}
