package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// spared is a q35 board with two spare ports.
func spared(s *manifest.VirtualMachineSpec) { s.Machine.HotplugPorts = 2 }

// withNIC is vm with one more nic.
func withNIC(vm *manifest.VirtualMachine, n manifest.NIC) *manifest.VirtualMachine {
	next := vm.DeepCopy()
	next.Spec.NICs = append(next.Spec.NICs, n)
	return manifest.Resolve(next, "/")
}

// netdev tells whether QEMU has the network of a nic, which only removing it shows.
func (r *rig) netdev(nic string) bool {
	r.t.Helper()
	err := r.Visit(r.t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		return c.Do(ctx, "netdev_del", map[string]any{"id": NetdevID(nic)}, nil)
	})
	if err != nil && !qmp.IsDeviceNotFound(err) {
		r.t.Fatal(err)
	}
	return err == nil
}

func TestPlug_refusedDevice_leavesNothingBehind(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", spared)
	r.start(vm, true)
	before := r.observe(vm, driver.DepthGuest, driver.Alive)
	// Somebody else is where it should go.
	r.ask(vm.Metadata.Name, "device_add", map[string]any{"driver": "virtio-rng-pci", "id": "mine", "bus": PortID(0)}, nil)
	err := r.Plug(t.Context(), withNIC(vm, manifest.NIC{Name: "lan", User: &manifest.UserNet{}}), nicPart("lan"))
	var refused *qmp.Error
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "plug nic lan into") {
		t.Errorf("Plug = %v, want QEMU's refusal", err)
	}
	if r.netdev("lan") {
		t.Error("the network of the refused card is there")
	}
	o := r.observe(vm, driver.DepthGuest, driver.Alive)
	if diff := cmp.Diff(before.Launched.Spec, o.Launched.Spec); diff != "" {
		t.Errorf("the launch record has changed:\n%s", diff)
	}
}

func TestPlug_afterOneThatWasCutOff_isDoneAgain(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", spared)
	r.start(vm, true)
	next := withNIC(vm, manifest.NIC{Name: "lan", User: &manifest.UserNet{}})
	r.must(r.Plug(t.Context(), next, nicPart("lan")))
	at := r.observe(next, driver.DepthGuest, driver.Alive).Identity.Slots["lan"]
	r.must(r.Quit(t.Context(), "web"))
	r.waitEnd("web")
	r.start(vm, true)
	// Its place is known and the network added, and then maqet was killed.
	r.ask(vm.Metadata.Name, "netdev_add", map[string]any{"type": "user", "id": NetdevID("lan")}, nil)
	r.must(r.Plug(t.Context(), next, nicPart("lan")))
	o := r.observe(next, driver.DepthGuest, driver.Alive)
	if len(o.Guest.NICs) != 1 || o.Identity.Slots["lan"] != at || o.Launched.Identity.Slots["lan"] != at {
		t.Errorf("nics %+v at %v, before at %v", o.Guest.NICs, o.Identity.Slots, at)
	}
}

func TestPlug_noPlaceLeft_isRefusedAndThenTakenFromThoseThatAreGone(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", spared)
	r.start(vm, true)
	nic := func(name string) manifest.NIC { return manifest.NIC{Name: name, User: &manifest.UserNet{}} }
	three := withNIC(withNIC(withNIC(vm, nic("a")), nic("b")), nic("c"))
	r.must(r.Plug(t.Context(), three, nicPart("a")))
	r.must(r.Plug(t.Context(), three, nicPart("b")))
	err := r.Plug(t.Context(), three, nicPart("c"))
	if err == nil || !strings.Contains(err.Error(), "hotplugPorts") {
		t.Fatalf("Plug without a free port = %v", err)
	}
	o := r.observe(three, driver.DepthGuest, driver.Alive)
	if n := o.Launched.FreePlaces(o.Identity.Slots, &three.Spec); n != 0 {
		t.Errorf("%d places are free", n)
	}
	// Without a guest nobody lets go of it: it goes with its record, as if it had.
	two := three.DeepCopy()
	two.Spec.NICs = two.Spec.NICs[1:]
	r.must(r.updateLaunched("web", o.Launched, func(l *driver.Launched) { l.Spec.NICs = l.Spec.NICs[1:] }))
	if n := o.Launched.FreePlaces(o.Identity.Slots, &two.Spec); n != 1 {
		t.Errorf("%d places are free, want that of the one that is gone", n)
	}
}

func TestUnplug_pausedGuest_isAskedAndStaysWhole(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", spared, func(s *manifest.VirtualMachineSpec) {
		s.NICs = []manifest.NIC{{Name: "lan", User: &manifest.UserNet{}}}
	})
	r.start(vm, true)
	now := time.Now()
	u := driver.Unplug{Since: now, Asked: now, Deadline: now.Add(time.Minute)}
	r.must(r.Unplug(t.Context(), "web", nicPart("lan"), u))
	r.must(r.Unplug(t.Context(), "web", nicPart("lan"), u))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.Await(ctx, "web", vm, driver.Awaited{Unplug: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Await = %v, want its deadline", err)
	}
	o := r.observe(vm, driver.DepthGuest, driver.Alive)
	if len(o.Guest.NICs) != 1 || !o.Launched.Unplugs["lan"].Deadline.Equal(u.Deadline) {
		t.Errorf("nics %+v, asked %+v", o.Guest.NICs, o.Launched.Unplugs)
	}
	if err := r.Drop(t.Context(), "web", nicPart("lan")); err == nil || !strings.Contains(err.Error(), "is there again") {
		t.Errorf("Drop of what is there = %v", err)
	}
}

func TestPlug_bridge_tapIsHandedOver(t *testing.T) {
	r := newRig(t)
	bridge := realBridge(t)
	vm := r.vm("web", spared)
	r.start(vm, true)
	next := withNIC(vm, manifest.NIC{Name: "dmz", Bridge: &manifest.BridgeNet{Name: bridge}})
	ports := func() int {
		entries, err := os.ReadDir("/sys/class/net/" + bridge + "/brif")
		r.must(err)
		return len(entries)
	}
	r.must(r.Plug(t.Context(), next, nicPart("dmz")))
	if o := r.observe(next, driver.DepthGuest, driver.Alive); len(o.Guest.NICs) != 1 || o.Guest.NICs[0].MAC != o.Identity.MACs["dmz"] {
		t.Errorf("nics = %+v", o.Guest.NICs)
	}
	if n := ports(); n != 1 {
		t.Errorf("the bridge has %d ports, want the tap", n)
	}
	// One whose card is refused is closed again.
	r.ask(vm.Metadata.Name, "device_add", map[string]any{"driver": "virtio-rng-pci", "id": "mine", "bus": PortID(1)}, nil)
	if err := r.Plug(t.Context(), withNIC(next, manifest.NIC{Name: "two", Bridge: &manifest.BridgeNet{Name: bridge}}), nicPart("two")); err == nil {
		t.Error("a card was plugged into a taken port")
	}
	if n := ports(); n != 1 {
		t.Errorf("the bridge has %d ports, want one", n)
	}
}

func TestParseForwards_answer_isReadByNetdev(t *testing.T) {
	text := "Hub -1 (lan.net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[ESTABLISHED]   21       127.0.0.1 22022       10.0.2.15    22     0     0\r\n" +
		"  TCP[HOST_FORWARD]  20               * 22022       10.0.2.15    22     0     0\r\n" +
		"Hub -1 (dmz.net):\r\n  UDP[HOST_FORWARD]  19       127.0.0.1 22023       10.0.2.15    53     0     0\r\n"
	want := map[string][]manifest.Forward{
		"lan.net": {{Proto: "tcp", HostAddr: "0.0.0.0", HostPort: 22022, GuestPort: 22}},
		"dmz.net": {{Proto: "udp", HostAddr: "127.0.0.1", HostPort: 22023, GuestPort: 53}},
	}
	if diff := cmp.Diff(want, parseForwards(text)); diff != "" {
		t.Errorf("forwards (-want +got):\n%s", diff)
	}
}

func TestForward_portInUse_saysSoAndKeepsTheOldOnes(t *testing.T) {
	r := newRig(t)
	old, taken := freePort(t), freePort(t)
	rule := func(port int) string {
		return manifest.Forward{Proto: "tcp", HostAddr: "127.0.0.1", HostPort: port, GuestPort: 22}.String()
	}
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.NICs = []manifest.NIC{{Name: "lan", User: &manifest.UserNet{Forward: []string{rule(old)}}}}
	})
	r.start(vm, true)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", taken))
	r.must(err)
	defer func() { _ = listener.Close() }()
	next := vm.DeepCopy()
	next.Spec.NICs[0].User.Forward = []string{rule(taken)}
	err = r.Forward(t.Context(), next)
	var refused *qmp.Error
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "in use on this host") {
		t.Errorf("Forward = %v", err)
	}
	var text string
	r.ask(vm.Metadata.Name, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &text)
	got := parseForwards(text)[NetdevID("lan")]
	if !slices.Equal(got, []manifest.Forward{{Proto: "tcp", HostAddr: "127.0.0.1", HostPort: old, GuestPort: 22}}) {
		t.Errorf("forwards = %+v, want the old one", got)
	}
	if o := r.observe(vm, driver.DepthGuest, driver.Alive); !slices.Equal(o.Launched.Spec.NICs[0].User.Forward, []string{rule(old)}) {
		t.Errorf("recorded are %v", o.Launched.Spec.NICs[0].User.Forward)
	}
}
