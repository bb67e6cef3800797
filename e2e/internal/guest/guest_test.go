package guest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/qemurun"
)

// bootTimeout is many times what a boot takes, for machines busy with other tests.
const bootTimeout = 60 * time.Second

// boot starts the guest with switches added to its command line and waits for the marker.
func boot(t *testing.T, machine, switches string, args ...string) *qemurun.Machine {
	t.Helper()
	g := guest.Path(t)
	m := qemurun.Start(t, append([]string{
		"-machine", machine, "-accel", "tcg", "-m", "128",
		"-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Cmdline + " " + switches,
	}, args...)...)
	m.WaitSerial(g.Marker, 1, bootTimeout)
	return m
}

func TestGuest_powerButton_powersOff(t *testing.T) {
	t.Parallel()
	for _, machine := range []string{"q35", "pc"} {
		t.Run(machine, func(t *testing.T) {
			t.Parallel()
			m := boot(t, machine, "")
			m.Execute("system_powerdown", nil)
			shutdown := m.WaitEvent("SHUTDOWN", bootTimeout)
			if diff := cmp.Diff(map[string]any{"guest": true, "reason": "guest-shutdown"}, shutdown.Data); diff != "" {
				t.Errorf("SHUTDOWN (-want +got):\n%s", diff)
			}
			if code := m.WaitExit(bootTimeout); code != 0 {
				t.Errorf("QEMU ended with %d, want 0", code)
			}
		})
	}
}

func TestGuest_noacpi_ignoresThePowerButton(t *testing.T) {
	t.Parallel()
	m := boot(t, "q35", "maqet.noacpi")
	m.Execute("system_powerdown", nil)
	m.WaitEvent("POWERDOWN", bootTimeout)
	// The kernel has seen the button by the time a later command is answered several
	// times over; the acpid of a guest that listens would have ended it at the first.
	for range 10 {
		m.Run("cat /proc/uptime", bootTimeout)
	}
	if got := m.Status(); got != "running" {
		t.Errorf("run state %q, want running", got)
	}
}

func TestGuest_switches_endTheGuestAsTheySay(t *testing.T) {
	t.Parallel()
	t.Run("poweroff", func(t *testing.T) {
		t.Parallel()
		m := boot(t, "q35", "maqet.poweroff")
		if code := m.WaitExit(bootTimeout); code != 0 {
			t.Errorf("QEMU ended with %d, want 0", code)
		}
	})
	t.Run("reboot", func(t *testing.T) {
		t.Parallel()
		m := boot(t, "q35", "maqet.reboot")
		reset := m.WaitEvent("RESET", bootTimeout)
		if reset.Data["reason"] != "guest-reset" {
			t.Errorf("RESET for reason %v, want guest-reset", reset.Data["reason"])
		}
		m.WaitSerial(guest.Marker, 2, bootTimeout)
	})
	t.Run("panic is told to a pvpanic device", func(t *testing.T) {
		t.Parallel()
		m := boot(t, "q35", "maqet.panic", "-device", "pvpanic", "-action", "panic=pause")
		m.WaitEvent("GUEST_PANICKED", bootTimeout)
		if got := m.Status(); got != "guest-panicked" {
			t.Errorf("run state %q, want guest-panicked", got)
		}
	})
}

func TestGuest_delay_postponesTheMarkerOnly(t *testing.T) {
	t.Parallel()
	g := guest.Path(t)
	m := qemurun.Start(t, "-machine", "q35", "-accel", "tcg", "-m", "128",
		"-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Cmdline+" maqet.delay=100000")
	// The button works long before the marker, so this ends only by acpid.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.WaitExit(bootTimeout)
	}()
	press := time.NewTicker(200 * time.Millisecond)
	defer press.Stop()
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case <-press.C:
			m.TryExecute("system_powerdown")
		}
	}
	if strings.Contains(m.Serial(), g.Marker) {
		t.Errorf("the marker came before its delay was over:\n%s", m.Serial())
	}
}

func TestGuest_shell_showsWhatTheGuestSees(t *testing.T) {
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m := boot(t, "q35", "maqet.name=web", "-smp", "2", "-device", "virtio-scsi-pci",
		"-blockdev", "driver=file,filename="+disk+",node-name=d0", "-device", "virtio-blk-pci,drive=d0",
		"-blockdev", "driver=file,filename="+disk+",node-name=d1,read-only=on,locking=off", "-device", "scsi-cd,drive=d1",
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56")
	for command, want := range map[string]string{
		"hostname":                        "web",
		"nproc":                           "2",
		"cat /sys/block/vda/size":         "2048",
		"cat /sys/block/sr0/removable":    "1",
		"cat /sys/class/net/eth0/address": "52:54:00:12:34:56",
		"ping -c 1 -W 5 10.0.2.2 >/dev/null && echo ok": "ok",
	} {
		if got := m.Run(command, bootTimeout); got != want {
			t.Errorf("%s printed %q, want %q", command, got, want)
		}
	}
	if got := m.Run("exit 7; echo unreached", bootTimeout); got != "" {
		t.Errorf("exit printed %q, want nothing", got)
	}
	m.WaitSerial("[exit 7]", 1, bootTimeout)
}

func TestGuest_forwardedPort_servesAPage(t *testing.T) {
	t.Parallel()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	m := boot(t, "pc", "maqet.name=web", "-device", "virtio-net-pci,netdev=n0", "-netdev", "user,id=n0,hostfwd=tcp:"+address+"-:80")
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("%v\n%s", err, m.Serial())
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(body), "hello from web\n"; got != want {
		t.Errorf("page %q, want %q", got, want)
	}
}

func TestBootsUnder_workingAndImpossibleAccelerator_tellsThemApart(t *testing.T) {
	t.Parallel()
	g := guest.Path(t)
	if err := g.BootsUnder(t.Context(), "tcg", bootTimeout); err != nil {
		t.Errorf("tcg: %v", err)
	}
	err := g.BootsUnder(t.Context(), "no-such-accelerator", bootTimeout)
	if !errors.Is(err, guest.ErrNotReady) || !strings.Contains(err.Error(), "no-such-accelerator") {
		t.Errorf("error %v, want ErrNotReady with QEMU's own words", err)
	}
	err = g.BootsUnder(t.Context(), "tcg", time.Millisecond)
	if !errors.Is(err, guest.ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want ErrNotReady and DeadlineExceeded", err)
	}
}

func TestBuild_again_keepsAWholeGuestAndMendsADamagedOne(t *testing.T) {
	t.Parallel()
	first := guest.Path(t)
	dir := t.TempDir()
	// The packages of the shared guest spare a second download.
	packages := filepath.Join(filepath.Dir(first.Kernel), "packages")
	if err := os.Symlink(packages, filepath.Join(dir, "packages")); err != nil {
		t.Fatal(err)
	}
	var builders sync.WaitGroup
	for range 3 {
		builders.Go(func() {
			if _, err := guest.Build(t.Context(), dir, guest.Cloud()); err != nil {
				t.Error(err)
			}
		})
	}
	builders.Wait()
	built := modTime(t, filepath.Join(dir, "initrd.img"))

	g, err := guest.Build(t.Context(), dir, guest.Cloud())
	if err != nil {
		t.Fatal(err)
	}
	if got := modTime(t, g.Initrd); !got.Equal(built) {
		t.Errorf("a whole guest was built again at %s, was of %s", got, built)
	}
	if diff := cmp.Diff(first.Packages, g.Packages); diff != "" {
		t.Errorf("packages (-shared +here):\n%s", diff)
	}

	if err := os.Truncate(g.Initrd, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Build(t.Context(), dir, guest.Cloud()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(first.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	mended, err := os.ReadFile(g.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	if string(whole) != string(mended) {
		t.Errorf("the mended initrd has %d bytes and differs from the shared one of %d", len(mended), len(whole))
	}
}

func modTime(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("listening on %v, want a TCP address", listener.Addr())
	}
	return address.Port
}
