package qemu

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// onBridge is a nic on a bridge.
func onBridge(bridge string) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) {
		s.NICs = []manifest.NIC{{Name: "dmz", Bridge: &manifest.BridgeNet{Name: bridge}}}
	}
}

func TestOpenTap_helperRefuses_saysWhyAndWhatToDo(t *testing.T) {
	cases := map[string]struct {
		body, err, hint string
	}{
		"notAllowed":   {"echo 'access denied by acl file' >&2; exit 1", "access denied by acl file", `"allow br9"`},
		"noList":       {"echo \"failed to parse default acl file\" >&2; exit 1", "acl file", "/etc/qemu/bridge.conf"},
		"noBridge":     {"echo \"failed to get mtu of bridge: No such device\" >&2; exit 1", "No such device", "ip link add br9 type bridge"},
		"noRights":     {"echo \"failed to create tun device: Operation not permitted\" >&2; exit 1", "not permitted", "chmod u+s"},
		"silent":       {"exit 3", "exit status 3", "try it by hand"},
		"noDescriptor": {"exit 0", "gave no tap", "QEMU's helper"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.helpers = []string{program(t, c.body)}
			err := r.tryStart(r.vm("web", onBridge("br9")), true)
			var bridge *BridgeError
			if !errors.As(err, &bridge) || bridge.Bridge != "br9" {
				t.Fatalf("Start = %v, want a BridgeError", err)
			}
			if !strings.Contains(bridge.Err.Error(), c.err) || !strings.Contains(bridge.Hint, c.hint) {
				t.Errorf("error = %v\nwant %q and the hint %q", bridge, c.err, c.hint)
			}
			if files := r.runFiles(); len(files) > 0 {
				t.Errorf("the run dir still holds %v", files)
			}
		})
	}
}

func TestOpenTap_noHelper_namesThePackage(t *testing.T) {
	r := newRig(t)
	r.helpers = []string{"/no/such/helper"}
	var bridge *BridgeError
	if _, err := r.openTap(t.Context(), "br0"); !errors.As(err, &bridge) || !strings.Contains(bridge.Hint, "qemu-system-common") {
		t.Errorf("openTap = %v, want the remedy", err)
	}
}

func TestOpenTap_helperHangs_isEnded(t *testing.T) {
	r := newRig(t)
	r.timing.Probe = 200 * time.Millisecond
	r.helpers = []string{program(t, "exec sleep 60")}
	begun := time.Now()
	if _, err := r.openTap(t.Context(), "br0"); err == nil || !strings.Contains(err.Error(), "did not end in time") {
		t.Errorf("openTap = %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// realBridge makes a bridge that QEMU's own helper is allowed to use, where this
// test may do so.
func realBridge(t *testing.T) string {
	t.Helper()
	const name, list = "maqtest0", "/etc/qemu/bridge.conf"
	if _, err := os.Stat(bridgeHelpers()[0]); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and " + bridgeHelpers()[0])
	}
	if _, err := os.Stat(list); err == nil {
		t.Skip(list + " is this host's own and is left alone")
	}
	if out, err := exec.Command("ip", "link", "add", name, "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("no bridge can be made here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
			t.Errorf("remove the bridge: %s", out)
		}
	})
	if err := os.MkdirAll("/etc/qemu", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, []byte("allow "+name+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(list); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestStart_bridge_tapIsOnItAndGoesWithQEMU(t *testing.T) {
	r := newRig(t)
	bridge := realBridge(t)
	vm := r.vm("web", onBridge(bridge))
	r.start(vm, true)
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	if len(o.Guest.NICs) != 1 || o.Guest.NICs[0].MAC != o.Identity.MACs["dmz"] {
		t.Errorf("nics = %+v, identity has %v", o.Guest.NICs, o.Identity.MACs)
	}
	ports := func() int {
		entries, err := os.ReadDir("/sys/class/net/" + bridge + "/brif")
		r.must(err)
		return len(entries)
	}
	if n := ports(); n != 1 {
		t.Errorf("the bridge has %d ports, want the tap", n)
	}
	if _, err := net.InterfaceByName(bridge); err != nil {
		t.Error(err)
	}
	r.signal("web", unix.SIGKILL)
	r.waitEnd("web")
	if n := ports(); n != 0 {
		t.Errorf("the bridge still has %d ports", n)
	}
}
