package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// quick are timeouts for tests that wait for what a machine does not do.
const quick = "greeting=1s,query=1s,backoff=200ms,absence=300ms"

// watching is a host whose folder is watched.
type watching struct {
	*testing.T
	*host.Host
	// dir is the folder, watch the one that keeps it; nil before it begins.
	dir   string
	watch *host.Watch
}

// newWatching makes a host with a folder of n machines that need no guest.
func newWatching(t *testing.T, n int) *watching {
	t.Helper()
	w := &watching{T: t, Host: host.New(t, binary), dir: filepath.Join(t.TempDir(), "vms")}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		w.write(vmName(i), "")
	}
	return w
}

func vmName(i int) string { return fmt.Sprintf("vm%d", i) }

// small is a machine whose firmware finds nothing to boot. The lines are further
// keys of its spec.
func small(name, spec string) string {
	return fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: %s}
spec:
  machine: {type: q35}
  memory: {size: 32Mi}
  shutdown: {timeout: 1s}
%s`, name, spec)
}

// booting is a machine that boots the tiny guest.
func booting(t *testing.T, name, cmdline, spec string) string {
	t.Helper()
	g := guest.Path(t)
	return fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: %s}
spec:
  machine: {type: q35}
  memory: {size: 128Mi}
  boot: {kernel: {image: %s, initrd: %s, cmdline: "console=ttyS0 quiet %s"}}
  serial: {log: true}
%s`, name, g.Kernel, g.Initrd, cmdline, spec)
}

// write writes a machine's file, as an editor does that renames.
func (w *watching) write(name, spec string) { w.put(name+".yaml", small(name, spec)) }

func (w *watching) put(file, text string) {
	w.Helper()
	put(w.T, filepath.Join(w.dir, file), text)
}

func put(t *testing.T, path, text string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func (w *watching) remove(file string) {
	w.Helper()
	if err := os.Remove(filepath.Join(w.dir, file)); err != nil {
		w.Fatal(err)
	}
}

// begin starts the watch.
func (w *watching) begin(args ...string) {
	w.Helper()
	w.watch = w.Watch(w.T, append([]string{w.dir, "--timeouts", quick}, args...)...)
}

// pids are the machines' processes, each of which has exactly one.
func (w *watching) pids() map[string]int {
	w.Helper()
	found := map[string]int{}
	for name, pids := range w.QEMUs() {
		if len(pids) != 1 {
			w.Fatalf("machine %s has QEMU processes %v", name, pids)
		}
		found[name] = pids[0]
	}
	return found
}

// running waits until n machines run, once each, and returns their pids.
func (w *watching) running(n int) map[string]int {
	w.Helper()
	for i := range n {
		w.Phase(w.T, vmName(i), "Running")
	}
	pids := w.pids()
	if len(pids) != n {
		w.Fatalf("running: %v, want %d machines", pids, n)
	}
	return pids
}

// same insists on the very processes.
func (w *watching) same(before map[string]int, why string) {
	w.Helper()
	if diff := cmp.Diff(before, w.pids()); diff != "" {
		w.Fatalf("%s: other QEMU processes (-before +after):\n%s", why, diff)
	}
}

// shows waits for a condition of a machine and returns its message.
func (w *watching) shows(name, condition string) string {
	w.Helper()
	s := w.Becomes(w.T, name, condition, func(s host.Status) bool { return s.Condition(condition) != nil })
	return s.Condition(condition).Message
}

// clear waits until a machine has no such condition.
func (w *watching) clear(name, condition string) {
	w.Helper()
	w.Becomes(w.T, name, "free of "+condition, func(s host.Status) bool { return s.Condition(condition) == nil })
}

// converges proves that the watch goes on: it has it start a new machine.
func (w *watching) converges(name string) {
	w.Helper()
	w.write(name, "")
	w.Phase(w.T, name, "Running")
}

// says waits until the watch has logged a text.
func (w *watching) says(text string) {
	w.Helper()
	if !host.Eventually(host.Settle, func() bool { return strings.Contains(w.watch.Log(), text) }) {
		w.Fatalf("the watch never said %q:\n%s", text, w.watch.Log())
	}
}

// listened waits until the watch listens to a machine: what ends before that ends
// unheard, and is told by what it left.
func (w *watching) listened(name string) {
	w.Helper()
	socket := filepath.Join(w.Host.Run, name, "qmp.sock")
	if !host.Eventually(host.Settle, func() bool { return connected(socket) }) {
		w.Fatalf("nobody listens to %s", name)
	}
}

// connected tells that a socket that listens has a client as well. Both ends of a
// Unix socket are in the kernel's list, the accepted one under the listener's name.
func connected(socket string) bool {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	return strings.Count(string(text), " "+socket+"\n") > 1
}

// empty insists that there is nothing to do: what every change has to end in.
func (w *watching) empty() {
	w.Helper()
	if !host.Eventually(host.Settle, func() bool {
		_, _, code := w.Maqet(w.T, "plan", "-f", w.dir)
		return code == 0
	}) {
		stdout, stderr, code := w.Maqet(w.T, "plan", "-f", w.dir)
		w.Fatalf("the plan is never empty: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// signal sends a signal to a machine's QEMU and returns its pid.
func (w *watching) signal(name string, s syscall.Signal) int {
	w.Helper()
	pid := w.PID(w.T, name)
	if err := syscall.Kill(pid, s); err != nil {
		w.Fatal(err)
	}
	return pid
}

func TestWatch_endedAndBegunAgain_guestsRunOnAndThePlanIsEmpty(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 2)
	w.begin()
	before := w.running(2)
	if code := w.watch.End(t); code != 0 {
		t.Fatalf("SIGTERM: exit code %d\n%s", code, w.watch.Log())
	}
	w.same(before, "after SIGTERM")
	w.empty()

	// What changed meanwhile is done by the next one.
	w.write("vm2", "")
	w.begin()
	after := w.running(3)
	delete(after, "vm2")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("processes (-before +after):\n%s", diff)
	}
	if code := w.watch.End(t); code != 0 {
		t.Fatalf("second SIGTERM: exit code %d\n%s", code, w.watch.Log())
	}
}

func TestWatch_stopGuests_stopsThemAndTheNextStartsThem(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 2)
	w.begin("--stop-guests")
	before := w.running(2)
	if code := w.watch.End(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, w.watch.Log())
	}
	if left := w.QEMUs(); len(left) > 0 {
		t.Fatalf("left running: %v", left)
	}
	w.begin()
	after := w.running(2)
	for _, name := range []string{"vm0", "vm1"} {
		if s := w.Status(t, name); after[name] == before[name] || s.Condition("Held") != nil {
			t.Errorf("%s after the next watch: pid %d (before %d), %+v", name, after[name], before[name], s)
		}
	}
}

func TestWatch_second_isRefusedWithThePID(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.begin()
	before := w.running(1)
	other := t.TempDir()
	for _, dir := range []string{w.dir, other} {
		_, stderr, code := w.Maqet(t, "watch", dir)
		if want := fmt.Sprintf("(pid %d)", w.watch.PID()); code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("a second watch of %s: exit code %d, %q; want 1 and %q", dir, code, stderr, want)
		}
	}
	w.same(before, "after refused watches")
	// What the first one says of itself is not lost by that.
	w.watch.Kill()
	w.begin()
	w.same(before, "after the first was killed")
}

func TestWatch_hangup_looksAgain(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 1)
	w.begin()
	before := w.running(1)
	w.watch.Signal(t, syscall.SIGHUP)
	w.says("told to look again")
	w.converges("vm1")
	after := maps.Clone(w.pids())
	delete(after, "vm1")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("processes (-before +after):\n%s", diff)
	}
}

// deadline waits for what nothing tells of, and fails the test when it never comes.
func deadline(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !host.Eventually(host.Settle, ok) {
		t.Fatalf("%s: not within %s", what, host.Settle)
	}
}
