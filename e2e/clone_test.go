package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// cloning is a guest with a word on its disk, a fixed address and a forward.
type cloning struct {
	*host.Host
	t    *testing.T
	dir  string
	port int
}

func newCloning(t *testing.T) *cloning {
	t.Helper()
	tiny := guest.Path(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // only to find a port
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	c := &cloning{Host: host.New(t, binary), t: t, dir: t.TempDir(), port: addr.Port}
	c.manifest("web", fmt.Sprintf(`apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: web}
spec:
  machine: {type: q35}
  memory: {size: 96Mi}
  boot: {kernel: {image: %q, initrd: %q, cmdline: "console=ttyS0 quiet maqet.name=web"}}
  disks: [{name: data, size: 32Mi}]
  nics: [{name: lan, mac: "52:54:00:12:34:56", user: {forward: ["tcp:127.0.0.1:%d:22"]}}]
  serial: {log: true}
  readiness: {serial: {match: "maqet-guest ready"}}
`, tiny.Kernel, tiny.Initrd, c.port))
	c.apply()
	return c
}

func (c *cloning) manifest(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name+".yaml"), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cloning) apply() {
	c.t.Helper()
	c.Must(c.t, 0, "apply", "-f", c.dir, "--wait")
}

func (c *cloning) ask(vm, command string) string {
	c.t.Helper()
	shell := c.Shell(c.t, vm)
	defer shell.Close()
	return shell.Run(command)
}

// learn writes a word at both ends of a guest's disk.
func (c *cloning) learn(vm, word string) {
	c.t.Helper()
	c.ask(vm, "for at in 0 65535; do echo "+word+" | dd of=/dev/vda bs=512 seek=$at conv=fsync,notrunc 2>/dev/null; done")
}

func (c *cloning) knows(vm, word string) {
	c.t.Helper()
	for _, at := range []string{"0", "65535"} {
		if got := c.ask(vm, "dd if=/dev/vda bs=512 skip="+at+" count=1 2>/dev/null | head -c 2"); got != word {
			c.t.Errorf("the guest of %s has %q on its disk, want %s", vm, got, word)
		}
	}
}

// identity is a part of what a guest recognises itself by.
type identity struct {
	UID  string            `json:"uid"`
	MACs map[string]string `json:"macs"`
}

func (c *cloning) identity(vm string) identity {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.State, "disks", vm, "identity.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	var id identity
	if err := json.Unmarshal(text, &id); err != nil {
		c.t.Fatal(err)
	}
	return id
}

// A clone runs beside the machine that it is made of, with the data of the snapshot and
// nothing in common, and a clone of the clone has the data of its own.
func TestClone_ofARunningMachine_runsBesideIt(t *testing.T) {
	c := newCloning(t)
	c.learn("web", "v1")
	c.Must(t, 0, "snapshot", "create", "web", "one", "--method", "Disk")
	c.learn("web", "v2")
	pid := c.PID(t, "web")

	yaml, said, code := c.Maqet(t, "snapshot", "clone", "web", "one", "web2")
	if code != 0 || !strings.Contains(said, "mac 52:54:00:12:34:56 is removed") || !strings.Contains(said, fmt.Sprintf("tcp:127.0.0.1:%d:22 are removed", c.port)) {
		t.Fatalf("exit code %d, said:\n%s", code, said)
	}
	c.manifest("web2", yaml)
	c.apply()
	c.knows("web2", "v1")
	c.knows("web", "v2")

	c.learn("web2", "v3")
	c.Must(t, 0, "snapshot", "create", "web2", "two", "--method", "Disk")
	c.learn("web2", "v4")
	c.Must(t, 0, "snapshot", "clone", "web2", "two", "web3")
	c.holds(filepath.Join(c.State, "disks", "web3", "data.qcow2"), "v3")
	c.knows("web2", "v4")
	if c.PID(t, "web") != pid {
		t.Error("the first machine was restarted for it")
	}
	var uids, macs []string
	for _, vm := range []string{"web", "web2", "web3"} {
		id := c.identity(vm)
		uids = append(uids, id.UID)
		if vm != "web3" {
			macs = append(macs, c.ask(vm, "cat /sys/class/net/eth0/address"))
		} else if len(id.MACs) > 0 {
			t.Errorf("web3 has the addresses %v before it is applied", id.MACs)
		}
	}
	for _, all := range [][]string{uids, macs} {
		slices.Sort(all)
		if n := len(all); len(slices.Compact(all)) != n {
			t.Errorf("two machines have the same: %q", all)
		}
	}
	c.Must(t, 0, "plan", "-f", c.dir)

	// Files hold what the snapshot does, also of a machine that runs.
	to := t.TempDir()
	c.Must(t, 0, "snapshot", "export", "web", "one", "--to", to)
	c.Must(t, 0, "snapshot", "export", "web2", "two", "--to", filepath.Join(to, "two.raw"), "--format", "raw")
	c.holds(filepath.Join(to, "web.one.data.qcow2"), "v1")
	c.holds(filepath.Join(to, "two.raw"), "v3")
}

// holds reads a word at both ends of a disk that nobody has open.
func (c *cloning) holds(path, word string) {
	c.t.Helper()
	if filepath.Ext(path) == ".qcow2" {
		raw := filepath.Join(c.t.TempDir(), "raw")
		if out, err := exec.CommandContext(c.t.Context(), "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw).CombinedOutput(); err != nil {
			c.t.Fatalf("%v\n%s", err, out)
		}
		path = raw
	}
	text, err := os.ReadFile(path)
	if err != nil || len(text) != 32<<20 || string(text[:2]) != word || string(text[len(text)-512:][:2]) != word {
		c.t.Errorf("%s has %d bytes and does not hold %s, %v", path, len(text), word, err)
	}
}

// slowTool is a folder with a qemu-img that begins to convert, and never ends.
func slowTool(t *testing.T) (dir, begun string) {
	t.Helper()
	actual, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (Debian package qemu-utils)")
	}
	dir = t.TempDir()
	begun = filepath.Join(dir, "begun")
	script := fmt.Sprintf(`#!/bin/sh
case "$1" in
convert) printf 'half' >&3; printf '    (42.00/100%%%%)\r'; echo $$ >%[2]s.new; mv %[2]s.new %[2]s; exec tail -f /dev/null;;
esac
exec %[1]s "$@"
`, actual, begun)
	if err := os.WriteFile(filepath.Join(dir, "qemu-img"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, begun
}

// hidden are the names in a folder that are not complete.
func hidden(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestCopies_cutOff_leaveNothing ends clones and exports in their middle. Meanwhile others
// see them; afterwards nothing has the name that was to be made, and the next one removes
// what a kill has left.
func TestCopies_cutOff_leaveNothing(t *testing.T) {
	h := host.New(t, binary)
	dir, to := t.TempDir(), t.TempDir()
	text := "apiVersion: maqet.io/v1alpha1\nkind: VirtualMachine\nmetadata: {name: web}\nspec: {machine: {type: q35}, disks: [{name: data, size: 8Mi}]}\n"
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Must(t, 0, "apply", "-f", dir)
	h.Must(t, 0, "snapshot", "create", "web", "one", "--method", "Disk")
	disks := filepath.Join(h.State, "disks")
	tool, begun := slowTool(t)
	for _, c := range []struct {
		kind, where string
		args        []string
	}{
		{"clone", disks, []string{"snapshot", "clone", "web", "one", "web2"}},
		{"export", to, []string{"snapshot", "export", "web", "one", "--to", to}},
	} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			_ = os.Remove(begun)
			before := hidden(t, c.where)
			cmd := h.Command(c.args...)
			cmd.Env = append(cmd.Env, "PATH="+tool+":"+os.Getenv("PATH"))
			w := host.Launch(t, cmd)
			if !host.Eventually(host.Settle, func() bool { _, err := os.Stat(begun); return err == nil }) {
				t.Fatalf("%s did not begin:\n%s", c.kind, w.Log())
			}
			jobs := func() string { out, _, _ := h.Maqet(t, "jobs", "web"); return out }
			if !host.Eventually(host.Settle, func() bool { return strings.Contains(jobs(), "42%") }) {
				t.Errorf("jobs does not show the %s:\n%s", c.kind, jobs())
			}
			if _, said, code := h.Maqet(t, "snapshot", "delete", "web", "one"); code != 3 || !strings.Contains(said, "a "+c.kind+" to ") {
				t.Errorf("delete of what is copied: exit code %d, said %s", code, said)
			}
			if c.kind == "clone" {
				if _, said, code := h.Maqet(t, c.args...); code != 1 || !strings.Contains(said, "another clone of that name") {
					t.Errorf("a second clone: exit code %d, said %s", code, said)
				}
			}
			w.Signal(t, signal)
			if code := w.Wait(t); signal == syscall.SIGINT && code != 130 {
				t.Errorf("interrupted %s: exit code %d\n%s", c.kind, code, w.Log())
			}
			pid, err := os.ReadFile(begun)
			if err != nil {
				t.Fatal(err)
			}
			if !host.Eventually(host.Settle, func() bool { return dead(strings.TrimSpace(string(pid))) }) {
				t.Errorf("qemu-img goes on after the %s was ended by %s", c.kind, signal)
			}
			if _, said, _ := h.Maqet(t, "jobs"); !strings.Contains(said, "No jobs") {
				t.Errorf("jobs after the end of the %s: %s", c.kind, said)
			}
			if left := hidden(t, c.where); signal == syscall.SIGINT && !slices.Equal(left, before) {
				t.Errorf("an interrupted %s has left %q", c.kind, left)
			}
			if _, err := os.Stat(filepath.Join(disks, "web2")); err == nil {
				t.Error("a machine was made")
			}
		}
	}
	if len(hidden(t, to)) == 0 || len(hidden(t, disks)) == 0 {
		t.Fatal("a kill has left nothing, so that nothing is proved")
	}
	h.Must(t, 0, "snapshot", "clone", "web", "one", "web3")
	h.Must(t, 0, "snapshot", "export", "web", "one", "--to", to)
	if left := slices.Concat(hidden(t, to), hidden(t, disks), hidden(t, filepath.Join(h.Run, ".work"))); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
	if _, err := os.Stat(filepath.Join(to, "web.one.data.qcow2")); err != nil {
		t.Error(err)
	}
}

// dead tells whether there is no process of that pid, or one that nobody has waited for.
func dead(pid string) bool {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat")) //nolint:gosec // G703: a pid that the test itself wrote
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "Z")
}
