package qemu

import (
	"context"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
)

// guestTimeout is many times what the tiny guest takes for anything.
const guestTimeout = 2 * time.Minute

// guestShell is the shell of the tiny guest on the serial line of the machine web.
type guestShell struct {
	t    testing.TB
	conn net.Conn
}

// shell waits until the guest has booted, and connects to its shell.
func (r *rig) shell() *guestShell {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), guestTimeout)
	defer cancel()
	r.awaitSerial("maqet-guest ready") // behind what firmware may have written on that line
	conn, err := new(net.Dialer).DialContext(ctx, "unix", r.layout.SerialSocket("web"))
	r.must(err)
	r.t.Cleanup(func() { _ = conn.Close() })
	g := &guestShell{t: r.t, conn: conn}
	// Whether its first prompt comes before or after the connection is not known; the
	// one after an empty line does come.
	g.run("")
	return g
}

// answered is what the guest prints behind an answer: how it ended, and the prompt.
var answered = regexp.MustCompile(`\[exit ([0-9]+)\]\r?\n[^\n]*# $`)

// run runs a command in the guest. It gives its output, and whether it succeeded. What
// is typed only after the prompt is echoed behind it.
func (g *guestShell) run(command string) (out string, ok bool) {
	g.t.Helper()
	if err := g.conn.SetDeadline(time.Now().Add(guestTimeout)); err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.conn.Write([]byte(command + "\n")); err != nil {
		g.t.Fatal(err)
	}
	var all []byte
	chunk := make([]byte, 4096)
	for {
		n, err := g.conn.Read(chunk)
		all = append(all, chunk[:n]...)
		if m := answered.FindSubmatchIndex(all); m != nil {
			text := strings.ReplaceAll(string(all[:m[0]]), "\r\n", "\n")
			_, out, _ = strings.Cut(text, command+"\n")
			return out, string(all[m[2]:m[3]]) == "0"
		}
		if err != nil {
			g.t.Fatalf("the guest's line ended within %q: %v; it said %q", command, err, all)
		}
	}
}

// must is the output of a command that succeeds.
func (g *guestShell) must(command string) string {
	g.t.Helper()
	out, ok := g.run(command)
	if !ok {
		g.t.Fatalf("%s failed in the guest:\n%s", command, out)
	}
	return out
}

// await runs a command until it succeeds.
func (g *guestShell) await(command string) string {
	g.t.Helper()
	deadline := time.Now().Add(guestTimeout)
	for {
		out, ok := g.run(command)
		switch {
		case ok:
			return out
		case time.Now().After(deadline):
			g.t.Fatalf("%s never succeeded in the guest:\n%s", command, out)
		}
	}
}

// TestSeed_guest_readsCloudInitsOwnNames mounts the seed in a guest, as cloud-init does.
func TestSeed_guest_readsCloudInitsOwnNames(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	vm := r.vm("web", tinyGuest(t, ""), seeded("#cloud-config\nhostname: one\n"), networked)
	r.start(vm, false)
	g := r.shell()
	g.await("test -b /dev/sr0")
	// The label lies at byte 40 of sector 16.
	if label := g.must("dd if=/dev/sr0 bs=1 skip=32808 count=6 2>/dev/null; echo"); label != "cidata\n" {
		t.Errorf("the volume's label is %q", label)
	}
	g.await("mount -t iso9660 -o ro /dev/sr0 /mnt")
	if names := g.must("ls -1 /mnt"); names != "meta-data\nnetwork-config\nuser-data\n" {
		t.Errorf("the names are %q", names)
	}
	for name, want := range r.readSeedImage() {
		// The last line's end is that of the text.
		if got := g.must("cat /mnt/" + name); got != want || got == "" {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if out, ok := g.run("dd if=/dev/zero of=/dev/sr0 bs=2048 count=1"); ok {
		t.Errorf("the guest can write to its seed: %s", out)
	}
	if o := r.observe(vm, driver.DepthFull, driver.Alive); !o.Seed.Provisioned() {
		t.Errorf("the seed is %+v", o.Seed)
	}
}
