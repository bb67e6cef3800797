package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// remembering is a guest with a word on its disk and one in its memory.
type remembering struct {
	*host.Host
	t   *testing.T
	dir string
}

func newRemembering(t *testing.T) *remembering {
	t.Helper()
	r := &remembering{Host: host.New(t, binary), t: t, dir: t.TempDir()}
	r.write("96Mi")
	r.Must(t, 0, "apply", "-f", r.dir, "--wait")
	return r
}

// write writes the manifest.
func (r *remembering) write(memory string) {
	r.t.Helper()
	tiny := guest.Path(r.t)
	text := fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: %s}
  boot: {kernel: {image: %q, initrd: %q, cmdline: "console=ttyS0 quiet maqet.name=web"}}
  disks: [{name: data, size: 64Mi}]
  serial: {log: true}
  readiness: {serial: {match: "maqet-guest ready"}}
`, memory, tiny.Kernel, tiny.Initrd)
	if err := os.WriteFile(filepath.Join(r.dir, "web.yaml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// ask runs a command in the guest.
func (r *remembering) ask(command string) string {
	r.t.Helper()
	shell := r.Shell(r.t, "web")
	defer shell.Close()
	return shell.Run(command)
}

// learn makes the guest remember a word.
func (r *remembering) learn(word string) {
	r.t.Helper()
	r.ask("echo " + word + " >/word; dd if=/word of=/dev/vda conv=fsync 2>/dev/null")
}

// onDisk and inMemory are what the guest remembers.
func (r *remembering) onDisk() string {
	r.t.Helper()
	return r.ask("dd if=/dev/vda bs=2 count=1 2>/dev/null")
}

func (r *remembering) inMemory() string {
	r.t.Helper()
	return r.ask("cat /word 2>/dev/null || echo nothing")
}

func (r *remembering) remembers(disk, memory string) {
	r.t.Helper()
	if d, m := r.onDisk(), r.inMemory(); d != disk || m != memory {
		r.t.Fatalf("the guest has %q on disk and %q in memory, want %s and %s", d, m, disk, memory)
	}
}

func TestRestore_everyWay_bringsBackWhatWas(t *testing.T) {
	r := newRemembering(t)
	r.learn("v1")
	r.Must(t, 0, "snapshot", "create", "web", "full")
	r.Must(t, 0, "snapshot", "create", "web", "disks", "--method", "Disk")
	r.learn("v2")

	// With its memory, under the QEMU that runs; what it was is saved first.
	pid := r.PID(t, "web")
	r.markDirty()
	out := r.Must(t, 0, "snapshot", "restore", "web", "full")
	if !strings.Contains(out, "snapshot full is restored, with memory") || !strings.Contains(out, "loading snapshot full; "+bitmapGone) {
		t.Errorf("restore said:\n%s", out)
	}
	r.remembers("v1", "v1")
	safety := r.safety()
	r.Must(t, 0, "snapshot", "restore", "web", safety, "--no-safety")
	r.remembers("v2", "v2")
	if r.PID(t, "web") != pid {
		t.Error("QEMU was restarted for it")
	}

	// Disks alone, which a running QEMU has open.
	_, stderr, code := r.Maqet(t, "snapshot", "restore", "web", "disks", "--no-safety")
	if code != 1 || !strings.Contains(stderr, "--stop") {
		t.Errorf("restore of disks under a running guest: exit code %d, said %s", code, stderr)
	}
	r.remembers("v2", "v2")
	r.markDirty()
	out = r.Must(t, 0, "snapshot", "restore", "web", "disks", "--no-safety", "--stop")
	if !strings.Contains(out, "disks set back to snapshot disks; "+bitmapGone) {
		t.Errorf("restore said:\n%s", out)
	}
	r.Must(t, 0, "wait", "web", "--for=condition=Ready")
	r.remembers("v1", "nothing")
	if events := r.Must(t, 0, "events", "web"); strings.Count(events, bitmapGone) != 2 {
		t.Errorf("the events do not tell of both bitmaps:\n%s", events)
	}

	// With other devices, and stopped: in a QEMU that is as it was then. What the
	// manifest says otherwise is pending.
	r.learn("v3")
	r.write("128Mi")
	r.Must(t, 0, "apply", "-f", r.dir, "--allow-restart", "--wait")
	pid = r.PID(t, "web")
	r.Must(t, 0, "snapshot", "restore", "web", "full", "--no-safety")
	r.remembers("v1", "v1")
	if r.PID(t, "web") == pid {
		t.Error("memory was loaded into a QEMU of another size")
	}
	r.Must(t, 2, "plan", "-f", r.dir)
	r.Must(t, 0, "stop", "web", "--force")
	r.Must(t, 0, "snapshot", "restore", "web", "full", "--no-safety")
	r.remembers("v1", "v1")
	if ready := r.Must(t, 0, "get", "web", "-o", `jsonpath={.status.phase}`); strings.TrimSpace(ready) != "Running" {
		t.Errorf("the machine is %s", ready)
	}
}

// bitmapGone is what is said of the bitmap that markDirty makes.
const bitmapGone = "dirty bitmaps removed: b0 of data; the next backup of that is a full one"

// markDirty gives the disk a dirty bitmap, as a backup does. There is none before.
func (r *remembering) markDirty() {
	r.t.Helper()
	r.Must(r.t, 0, "qmp", "web", "block-dirty-bitmap-add", "--json", `{"node": "data", "name": "b0", "persistent": true}`)
}

// safety is the only safety snapshot.
func (r *remembering) safety() string {
	r.t.Helper()
	var all []struct{ Name string }
	if err := json.Unmarshal([]byte(r.Must(r.t, 0, "snapshot", "list", "web", "-o", "json")), &all); err != nil {
		r.t.Fatal(err)
	}
	for _, s := range all {
		if strings.HasPrefix(s.Name, "safety-") {
			return s.Name
		}
	}
	r.t.Fatalf("no safety snapshot among %v", all)
	return ""
}

// A record that lies about the memory's size lets the load begin, set the disks
// back, and fail.
func TestRestore_loadFailsHalfway_startsColdAsThen(t *testing.T) {
	r := newRemembering(t)
	r.learn("v1")
	r.Must(t, 0, "snapshot", "create", "web", "full")
	r.write("128Mi")
	r.Must(t, 0, "apply", "-f", r.dir, "--allow-restart", "--wait")
	r.learn("v2")
	path := filepath.Join(r.State, "disks", "web", "snapshots", "full.json")
	record, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lie := bytes.Replace(record, []byte(`"memory": 100663296`), []byte(`"memory": 134217728`), 1)
	if bytes.Equal(lie, record) {
		t.Fatalf("the record has no memory of 96 MiB:\n%s", record)
	}
	if err := os.WriteFile(path, lie, 0o600); err != nil { //nolint:gosec // G703: a file of the test's own host
		t.Fatal(err)
	}
	pid := r.PID(t, "web")
	_, stderr, code := r.Maqet(t, "snapshot", "restore", "web", "full", "--no-safety")
	if code != 1 || !strings.Contains(stderr, "could not be loaded") {
		t.Errorf("exit code %d, said:\n%s", code, stderr)
	}
	if r.PID(t, "web") == pid {
		t.Error("the guest ran on over disks of another time")
	}
	r.Must(t, 0, "wait", "web", "--for=condition=Ready")
	r.remembers("v1", "nothing")
	if events := r.Must(t, 0, "events", "web"); !strings.Contains(events, "RestoreFailed") {
		t.Errorf("no event tells of it:\n%s", events)
	}
}
