package qemu

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// freePort is a port of the host that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // it is a TCP listener
}

// withTCPProbe has a forward to a guest's port, and a probe of it.
func withTCPProbe(hostPort, guestPort int) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) {
		s.NICs = []manifest.NIC{{Name: "lan", User: &manifest.UserNet{Forward: []string{
			"tcp:127.0.0.1:" + strconv.Itoa(hostPort) + ":" + strconv.Itoa(guestPort),
		}}}}
		s.Readiness = &manifest.Readiness{TCP: &manifest.TCPReadiness{Port: guestPort}}
	}
}

func TestReady_forwardWithoutGuest_isNotReadyAlthoughItAccepts(t *testing.T) {
	r := newRig(t)
	port := freePort(t)
	vm := r.vm("web", withTCPProbe(port, 80))
	r.start(vm, false)
	for range 8 {
		if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Ready {
			t.Fatal("Ready without any guest")
		}
	}
	err := r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		table, err := usernetTable(ctx, c, manifest.Forward{HostPort: port, GuestPort: 80})
		if table.waiting > maxUnanswered || table.waiting == 0 || table.answered {
			t.Errorf("table = %+v, want at most %d waiting", table, maxUnanswered)
		}
		return err
	})
	r.must(err)
	// The host itself accepts: that alone would have been a wrong answer.
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
	r.must(err)
	r.must(nc.Close())
}

// tinyGuest boots the tiny Linux guest, where it has been built.
func tinyGuest(t testing.TB, cmdline string) func(*manifest.VirtualMachineSpec) {
	t.Helper()
	return guestIn(t, "guest", cmdline)
}

// guestIn is the tiny guest in a folder below build.
func guestIn(t testing.TB, folder, cmdline string) func(*manifest.VirtualMachineSpec) {
	t.Helper()
	dir, err := filepath.Abs("../../build/" + folder)
	if err != nil {
		t.Fatal(err)
	}
	kernel, initrd := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")
	if _, err := os.Stat(kernel); err != nil {
		t.Skip("the tiny guest is not built; make " + folder + " builds it")
	}
	return func(s *manifest.VirtualMachineSpec) {
		s.Memory = &manifest.Memory{Size: 128 << 20}
		s.Serial = &manifest.Serial{Log: true}
		s.Boot = &manifest.Boot{Kernel: &manifest.Kernel{Image: kernel, Initrd: initrd, Cmdline: "console=ttyS0 quiet " + cmdline}}
	}
}

func TestReady_guest_forwardOpensWhenItListensAndPowersOffWhenAsked(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	vm := r.vm("web", tinyGuest(t, "maqet.port=8080"), withTCPProbe(freePort(t), 8080))
	begun := time.Now()
	r.start(vm, false)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r.must(r.Await(ctx, "web", vm, driver.Awaited{Ready: true}))
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	if !o.Ready || o.Launched.ReadyAt.IsZero() {
		t.Fatalf("Ready %v, ReadyAt %s", o.Ready, o.Launched.ReadyAt)
	}
	t.Logf("Ready after %s", time.Since(begun))
	scan, err := newSerialScan(r.layout.SerialLog("web"), o.Launched.SerialOffset, "^maqet-guest ready")
	r.must(err)
	for {
		if found, err := scan.more(); err != nil || found {
			r.must(err)
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the guest did not boot")
		}
		r.must(pause(ctx, firstTry))
	}
	// A port that nobody in the guest listens on is refused by the guest itself.
	closed := manifest.Forward{Proto: "tcp", HostAddr: "127.0.0.1", HostPort: freePort(t), GuestPort: 9}
	r.must(r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		var text string
		add := map[string]any{"command-line": "hostfwd_add lan.net " + ForwardRule(closed)}
		if err := c.Do(ctx, "human-monitor-command", add, &text); err != nil || text != "" {
			t.Errorf("hostfwd_add: %q, %v", text, err)
		}
		open, err := r.forwardOpen(ctx, c, closed)
		if open {
			t.Error("a closed port of the guest counts as open")
		}
		return err
	}))
	k := r.childOf("web")
	r.must(r.Powerdown(t.Context(), "web"))
	select {
	case <-k.done:
	case <-time.After(30 * time.Second):
		t.Fatal("the guest did not power off")
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended.Cause != driver.EndGuest {
		t.Errorf("Ended = %+v", o.Ended)
	}
}
