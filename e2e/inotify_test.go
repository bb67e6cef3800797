package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// withoutInotify is a maqet command in a user namespace that gives it no inotify, as
// it is for a user whose other programs have used up the limits.
func withoutInotify(h *host.Host, args ...string) *exec.Cmd {
	cmd := h.Command(args...)
	cmd.Args = append([]string{"sh", "-c", `echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"`, "sh", cmd.Path}, args...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}

// needsUserNamespaces skips the test where no user namespace can be made.
func needsUserNamespaces(t *testing.T, h *host.Host) {
	t.Helper()
	cmd := withoutInotify(h, "version")
	var exit *exec.ExitError
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.As(err, &exit) && exit.ExitCode() == 1 && strings.Contains(string(out), "maqet") {
			t.Fatalf("maqet version: %v\n%s", err, out)
		}
		t.Skipf("inotify cannot be limited here, for want of user namespaces: %v %s", err, out)
	}
}

// manifestOf is a machine with further lines of its spec.
func manifestOf(name, spec string) []byte {
	return []byte("apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: " + name + "}\nspec:\n" + spec)
}

const bareSpec = "  machine: {type: q35}\n  memory: {size: 32Mi}\n"

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInotify_limitsUsedUp_allIsLookedAtByTheClock(t *testing.T) {
	t.Parallel()
	h, tiny, dir := host.New(t, binary), guest.Path(t), t.TempDir()
	needsUserNamespaces(t, h)
	vms := filepath.Join(dir, "vms")
	writeFile(t, filepath.Join(vms, "web.yaml"), manifestOf("web", bareSpec))
	begin := func(args ...string) *host.Watch { return host.Launch(t, withoutInotify(h, args...)) }

	// A watch says so, and sees edits and what other processes write all the same.
	watch := begin("watch", vms, "--timeouts", "look=200ms,resync=1h")
	h.Phase(t, "web", "Running")
	for _, what := range []string{"inotify cannot be used", "fs.inotify.max_user_instances", `of="the records"`} {
		if !strings.Contains(watch.Log(), what) {
			t.Errorf("the watch does not say %q:\n%s", what, watch.Log())
		}
	}
	writeFile(t, filepath.Join(vms, "db.yaml"), manifestOf("db", bareSpec))
	h.Phase(t, "db", "Running")
	writeFile(t, filepath.Join(dir, "hand.yaml"), manifestOf("hand", bareSpec))
	h.Must(t, 0, "apply", "-f", filepath.Join(dir, "hand.yaml"))
	first := h.PID(t, "hand")
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.NewPID(t, "hand", first)

	// Whoever waits or follows goes on by the clock.
	rows, journal := begin("get", "-w"), begin("events", "-f")
	waiting := begin("wait", "web", "--for=phase=Stopped")
	shows := func(w *host.Watch, what string) {
		t.Helper()
		if !host.Eventually(host.Settle, func() bool { return strings.Contains(w.Log(), what) }) {
			t.Errorf("never shown: %q, but:\n%s", what, w.Log())
		}
	}
	shows(rows, "web")
	shows(journal, "Started")
	h.Must(t, 0, "stop", "web", "--force")
	if code := waiting.Wait(t); code != 0 {
		t.Errorf("wait: exit code %d\n%s", code, waiting.Log())
	}
	shows(rows, "Stopped")
	shows(journal, "stopped as asked")

	// So does whoever waits for a word on the serial line, and whoever reads along.
	writeFile(t, filepath.Join(dir, "talker.yaml"), manifestOf("talker", fmt.Sprintf(`  machine: {type: q35}
  memory: {size: 128Mi}
  boot: {kernel: {image: %s, initrd: %s, cmdline: "console=ttyS0 quiet"}}
  serial: {log: true}
  readiness: {serial: {match: "maqet-guest ready"}, timeout: 100s}
`, tiny.Kernel, tiny.Initrd)))
	apply := withoutInotify(h, "apply", "-f", filepath.Join(dir, "talker.yaml"), "--wait", "--timeouts", "look=200ms")
	if out, err := apply.CombinedOutput(); err != nil {
		t.Errorf("apply --wait: %v\n%s", err, out)
	}
	shows(begin("logs", "-f", "talker"), "maqet-guest ready")
}
