package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/e2e/internal/guest"
)

// Settle bounds every wait of the end-to-end tests. It is far more than
// anything needs, so that only a real failure meets it.
const Settle = 2 * time.Minute

// Host is one private maqet: a state dir and a run dir of its own, and the
// built binary.
type Host struct {
	// State and Run are the folders.
	State, Run string
	// Binary is the built maqet.
	Binary string
	// Environment, when set, is all of the commands' environment, which then finds
	// the folders by itself.
	Environment []string
	// Credential is the user that commands run as; nil is the test's own.
	Credential *syscall.Credential
}

// New makes folders for one test and sees to it that no QEMU outlives it.
func New(t testing.TB, binary string) *Host {
	t.Helper()
	// Not t.TempDir: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "mq") //nolint:usetesting // see above
	if err != nil {
		t.Fatalf("make a folder for the test's host: %v", err)
	}
	h := &Host{State: filepath.Join(dir, "s"), Run: filepath.Join(dir, "r"), Binary: binary}
	t.Cleanup(func() {
		h.KillAll()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's host: %v", err)
		}
	})
	return h
}

// Env is the environment of commands on this host.
func (h *Host) Env() []string {
	return []string{
		"MAQET_STATE_DIR=" + h.State, "MAQET_RUN_DIR=" + h.Run,
		"NO_COLOR=1", "TERM=dumb",
	}
}

// Command is a maqet command on this host, not started yet.
func (h *Host) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.Binary, args...)
	cmd.Env = append(os.Environ(), h.Env()...)
	if h.Environment != nil {
		cmd.Env = slices.Clone(h.Environment)
	}
	if h.Credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.Credential}
	}
	return cmd
}

// Maqet runs a command and returns its output and exit code.
func (h *Host) Maqet(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := h.Command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run maqet %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Must runs a command that has to end with the given code, and returns its stdout.
func (h *Host) Must(t testing.TB, code int, args ...string) string {
	t.Helper()
	stdout, stderr, got := h.Maqet(t, args...)
	if got != code {
		t.Fatalf("maqet %s: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout
}

// QEMUs are the pids of all live QEMU processes of this host, by machine name.
// They are found by their command lines, not by anything maqet wrote.
func (h *Host) QEMUs() map[string][]int {
	found := map[string][]int{}
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return found
	}
	for _, dir := range pids {
		name, ok := h.machineOf(dir)
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil {
			found[name] = append(found[name], pid)
		}
	}
	return found
}

// machineOf is the machine whose QEMU a /proc folder shows. A zombie has no
// command line any more and so is none.
func (h *Host) machineOf(dir string) (string, bool) {
	raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(raw) == 0 {
		return "", false
	}
	args := strings.Split(string(raw), "\x00")
	for i, arg := range args[:len(args)-1] {
		if rest, ok := strings.CutPrefix(args[i+1], h.Run+"/"); arg == "-pidfile" && ok {
			return filepath.Dir(rest), true
		}
	}
	return "", false
}

// PID is the pid of a machine's only QEMU.
func (h *Host) PID(t testing.TB, name string) int {
	t.Helper()
	pids := h.QEMUs()[name]
	if len(pids) != 1 {
		t.Fatalf("machine %s has QEMU processes %v, want exactly one", name, pids)
	}
	return pids[0]
}

// KillAll kills every QEMU of this host and waits until they are gone.
func (h *Host) KillAll() {
	Eventually(Settle, func() bool {
		left := h.QEMUs()
		for _, pids := range left {
			for _, pid := range pids {
				// A process that is gone meanwhile is what is wanted.
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return len(left) == 0
	})
}

// Eventually looks until the condition holds or the time is over, and tells
// which. It is for what sends no event: files, processes, other programs.
func Eventually(timeout time.Duration, condition func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; <-tick.C {
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// Build builds maqet into dir and returns the binary's path. With race the
// binary itself has the race detector.
func Build(dir string, race bool) (string, error) {
	root, err := guest.Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "maqet")
	args := []string{"build", "-o", binary}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/maqet")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build maqet: %w\n%s", err, out)
	}
	return binary, nil
}
