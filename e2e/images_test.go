package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// console is the serial line of a machine that maqet runs.
type console struct {
	t       *testing.T
	conn    net.Conn
	mu      sync.Mutex
	printed bytes.Buffer
}

// openConsole connects to a machine's serial line, which nobody else is connected to.
func openConsole(t *testing.T, h *host.Host, vm string) *console {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(h.Run, vm, "serial.sock"))
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, conn: conn}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(c, conn) // until it is closed
	}()
	t.Cleanup(func() {
		_ = conn.Close() // nothing is lost in it
		<-over
	})
	return c
}

// Write keeps what the guest prints.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.printed.Write(b)
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.printed.String()
}

// run types a command into the guest's shell and returns all that it printed then.
func (c *console) run(command string) string {
	c.t.Helper()
	from := len(c.text())
	if _, err := io.WriteString(c.conn, command+"\n"); err != nil {
		c.t.Fatal(err)
	}
	if !host.Eventually(host.Settle, func() bool { return strings.Contains(c.text()[from:], "[exit ") }) {
		c.t.Fatalf("the guest did not answer %q:\n%s", command, c.text())
	}
	return c.text()[from:]
}

// TestImage_guestReadsAndWrites_theImageStaysAsItWas has two guests of one image,
// which each see it, and only their own writes, also after a restart and a snapshot.
func TestImage_guestReadsAndWrites_theImageStaysAsItWas(t *testing.T) {
	t.Parallel()
	g := guest.Path(t)
	h := host.New(t, binary)
	dir := t.TempDir()
	content := make([]byte, 4<<20)
	copy(content, "maqet-image-content\n")
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	text := fmt.Sprintf("apiVersion: maqet.io/v1alpha1\nkind: Image\nmetadata: {name: hello}\nspec: {source: ../disk.raw, sha256: %q, format: raw}\n", hex.EncodeToString(sum[:]))
	for _, name := range []string{"one", "two"} {
		text += fmt.Sprintf(`---
apiVersion: maqet.io/v1alpha1
kind: VirtualMachine
metadata: {name: %s}
spec:
  machine: {type: q35}
  memory: {size: 96Mi}
  boot: {kernel: {image: %q, initrd: %q, cmdline: "console=ttyS0 quiet"}}
  disks: [{name: root, image: hello, size: 8Mi}]
  serial: {log: true}
  readiness: {serial: {match: "maqet-guest ready"}}
`, name, g.Kernel, g.Initrd)
	}
	vms := filepath.Join(dir, "vms")
	if err := os.MkdirAll(vms, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vms, "vms.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Must(t, 0, "apply", "-f", vms, "--wait", "--timeouts", patientTimeouts)
	const first = "head -c 19 /dev/vda"
	one, two := openConsole(t, h, "one"), openConsole(t, h, "two")
	for _, c := range []*console{one, two} {
		if got := c.run(first); !strings.Contains(got, "maqet-image-content") {
			t.Errorf("the guest reads %q", got)
		}
		if got := c.run("cat /sys/block/vda/size"); !strings.Contains(got, "16384") {
			t.Errorf("the disk has %q sectors", got)
		}
	}
	one.run("echo -n written-by-the-guest | dd of=/dev/vda conv=fsync,notrunc")
	if got := one.run("head -c 20 /dev/vda"); !strings.Contains(got, "written-by-the-guest") {
		t.Errorf("the guest that wrote reads %q", got)
	}
	two.run("echo 3 >/proc/sys/vm/drop_caches")
	if got := two.run(first); !strings.Contains(got, "maqet-image-content") {
		t.Errorf("the other guest reads %q", got)
	}
	h.Must(t, 0, "snapshot", "create", "one", "written", "--method", "Disk", "--timeouts", patientTimeouts)
	_ = one.conn.Close()
	h.Must(t, 0, "restart", "one", "--force", "--timeouts", patientTimeouts)
	h.Must(t, 0, "wait", "one", "--for=condition=Ready", "--timeout", host.Settle.String())
	if got := openConsole(t, h, "one").run("head -c 20 /dev/vda"); !strings.Contains(got, "written-by-the-guest") {
		t.Errorf("after a restart the guest reads %q", got)
	}
	stored := strings.TrimSpace(h.Must(t, 0, "get", "img", "hello", "-o", "jsonpath={.status.path}"))
	now, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(now) != sum {
		t.Error("the image is no more what it was")
	}
	if out := h.Must(t, 0, "image", "prune", "--all"); !strings.Contains(out, "kept image") || strings.Contains(out, "removed image") {
		t.Errorf("prune: %s", out)
	}
}

// gatedServer serves half of a file, and the rest once it is opened. It returns its
// address.
func gatedServer(t *testing.T, content []byte) (address string, open func()) {
	t.Helper()
	gate := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-gate:
			_, _ = w.Write(content[len(content)/2:])
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	return srv.URL, open
}

// TestImage_watch_fetchesBesideOtherMachines has a watch fetch from a slow server
// while another machine comes up and a person asks for the one that waits.
func TestImage_watch_fetchesBesideOtherMachines(t *testing.T) {
	t.Parallel()
	h := host.New(t, binary)
	content := bytes.Repeat([]byte("maqet image\n"), 100_000)
	address, open := gatedServer(t, content)
	sum := sha256.Sum256(content)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("apiVersion: maqet.io/v1alpha1\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("image.yaml", fmt.Sprintf("kind: Image\nmetadata: {name: slow}\nspec: {source: %q, sha256: %q, format: raw}\n", address+"/disk.raw", hex.EncodeToString(sum[:])))
	machine := "kind: VirtualMachine\nmetadata: {name: %s}\nspec: {machine: {type: q35}, memory: {size: 32Mi}, disks: [{name: root, %s}]}\n"
	write("web.yaml", fmt.Sprintf(machine, "web", "image: slow"))
	write("db.yaml", fmt.Sprintf(machine, "db", "size: 1Mi"))
	watch := h.Watch(t, dir)
	until := func(vm, want string) {
		t.Helper()
		is := func() string {
			s := h.Status(t, vm)
			return strings.TrimSpace(s.Phase + " " + s.Reason)
		}
		if !host.Eventually(host.Settle, func() bool { return is() == want }) {
			t.Fatalf("%s is %q, want %q\n%s", vm, is(), want, watch.Log())
		}
	}
	until("db", "Running")
	until("web", "Pending ImagePulling")
	// A person's word needs the lock that a fetch must not hold.
	h.Must(t, 0, "hold", "web")
	h.Must(t, 0, "hold", "db")
	h.Must(t, 0, "release", "db")
	open()
	// Releasing by hand fetches by hand, beside the watch, which wants the same.
	h.Must(t, 0, "release", "web")
	until("web", "Running")
	if code := watch.End(t); code != 0 {
		t.Errorf("the watch ended with code %d", code)
	}
}

// patientTimeouts let a QEMU on a busy host take its time to answer.
const patientTimeouts = "query=1m,greeting=1m,start=2m,ready=5m"
