package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/manifest"
)

// agentGuest boots the tiny guest with Debian's guest agent, where it has been built.
func agentGuest(t testing.TB, cmdline string) func(*manifest.VirtualMachineSpec) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	initrd, err := filepath.Abs("../../build/guest/agent/initrd.img")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(initrd); err != nil {
		t.Skip("the guest with the agent is not built; make guest-agent builds it")
	}
	tiny := tinyGuest(t, "rdinit=/init-agent "+cmdline)
	return func(s *manifest.VirtualMachineSpec) {
		tiny(s)
		s.Memory = &manifest.Memory{Size: 160 << 20}
		s.Boot.Kernel.Initrd = initrd
		s.GuestAgent = &manifest.GuestAgent{}
	}
}

// withAgentPort is a machine whose guest never opens its agent's port.
func withAgentPort(s *manifest.VirtualMachineSpec) { s.GuestAgent = &manifest.GuestAgent{} }

func agentProbe(s *manifest.VirtualMachineSpec) {
	s.Readiness = &manifest.Readiness{GuestAgent: &manifest.AgentReadiness{}}
}

// patient is longer than anything here takes on a busy machine.
const patient = 2 * time.Minute

// untilReady waits for the readiness probe.
func (r *rig) untilReady(vm *manifest.VirtualMachine) driver.Observed {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patient)
	defer cancel()
	r.must(r.Await(ctx, vm.Metadata.Name, vm, driver.Awaited{Ready: true}))
	o := r.observe(vm, driver.DepthFull, driver.Alive)
	if !o.Ready {
		r.t.Fatal("not Ready")
	}
	return o
}

func TestAgent_port_isReadBack(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", withAgentPort, agentProbe)
	r.start(vm, false)
	for _, depth := range []driver.Depth{driver.DepthBrief, driver.DepthGuest, driver.DepthFull} {
		o := r.observe(vm, depth, driver.Alive)
		if o.Guest.Agent == nil || o.Guest.Agent.Open || o.Ready {
			t.Errorf("depth %d: Agent = %+v, Ready %v; want a closed port, and not Ready", depth, o.Guest.Agent, o.Ready)
		}
		if len(o.Guest.Devices) > 0 {
			t.Errorf("depth %d: what maqet adds itself is listed: %+v", depth, o.Guest.Devices)
		}
	}
	if slot, ok := r.observe(vm, driver.DepthFull, driver.Alive).Identity.Slots[driver.AgentController]; !ok || slot.Kind != driver.SlotPort {
		t.Errorf("the controller has the slot %+v, %v; want a recorded port", slot, ok)
	}
	info, err := os.Stat(r.layout.AgentSocket("web"))
	r.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has the mode %v, want 0600", info.Mode())
	}
	r.must(r.Quit(t.Context(), "web"))
	r.waitEnd("web")
	r.must(r.ClearRun(t.Context(), "web"))
	if files := r.runFiles(); len(files) > 0 {
		t.Errorf("left in the run dir: %v", files)
	}
}

// TestVisitAgent_nobodyThere_saysWhyAtOnce has the cases in which no agent can answer:
// none of them waits for one.
func TestVisitAgent_nobodyThere_saysWhyAtOnce(t *testing.T) {
	r := newRig(t)
	r.timing.Agent = time.Hour
	visit := func(name string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return r.VisitAgent(ctx, name, func(context.Context, *qga.Conn) error {
			t.Error("an agent was reached")
			return nil
		})
	}
	closed, none, paused := r.vm("closed", withAgentPort), r.vm("none"), r.vm("paused", withAgentPort)
	r.start(closed, false)
	r.start(none, false)
	r.start(paused, true)
	for name, want := range map[string]error{"closed": qga.ErrAbsent, "none": ErrNoAgentPort, "paused": ErrNotResponsive, "off": ErrNotRunning} {
		err := visit(name)
		if e := lifecycle(err); !errors.Is(err, want) || e == nil || e.Hint == "" || e.VM != name || e.Refused {
			t.Errorf("%s: %v, want %v with a remedy", name, err, want)
		}
	}
}

// silentAgent puts a program in the place of the agent's socket that takes clients
// and never answers.
func (r *rig) silentAgent(name string) {
	r.t.Helper()
	path := r.layout.AgentSocket(name)
	r.must(os.Remove(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	r.must(err)
	r.t.Cleanup(func() { _ = l.Close() })
}

func TestAtAgent_silentOrTaken_endsInTime(t *testing.T) {
	r := newRig(t)
	r.start(r.vm("web", withAgentPort), false)
	r.silentAgent("web")
	err := r.atAgent(t.Context(), "web", 50*time.Millisecond, func(context.Context, *qga.Conn) error { return nil })
	if e := lifecycle(err); !errors.Is(err, qga.ErrNotAnswering) || e == nil || e.Hint == "" {
		t.Errorf("a silent agent: %v", err)
	}
	r.timing.AgentLook = 50 * time.Millisecond
	if r.agentAnswers(t.Context(), "web") {
		t.Error("a silent agent answers")
	}
	other := rigAt(t, r.layout)
	leave, err := other.enterAgent(t.Context(), "web")
	r.must(err)
	defer leave()
	r.timing.Lock = 50 * time.Millisecond
	err = r.atAgent(t.Context(), "web", time.Minute, func(context.Context, *qga.Conn) error { return nil })
	if !errors.Is(err, filelock.ErrHeld) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a taken agent: %v, want the holder's name", err)
	}
}

func TestAgentShutdown_guest_powersOffOrSaysWhyNot(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, ""), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	k := r.childOf("web")
	r.must(r.AgentShutdown(t.Context(), "web"))
	select {
	case <-k.done:
	case <-time.After(patient):
		t.Fatal("the guest did not power off")
	}
	if o := r.observe(vm, driver.DepthBrief, driver.Absent); o.Ended.Cause != driver.EndGuest {
		t.Errorf("Ended = %+v", o.Ended)
	}
	vm = r.vm("web", agentGuest(t, "maqet.noshutdown"), agentProbe)
	r.start(vm, false)
	r.untilReady(vm)
	var refused *qga.Error
	err := r.AgentShutdown(t.Context(), "web")
	if e := lifecycle(err); !errors.As(err, &refused) || e == nil || !e.Refused {
		t.Errorf("AgentShutdown of a guest that does not want to: %v", err)
	}
}

func TestReady_guestAgent_whenItAnswers(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", agentGuest(t, "maqet.agentdelay=1"), agentProbe)
	r.start(vm, false)
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); o.Ready {
		t.Error("Ready although no agent can run yet")
	}
	o := r.untilReady(vm)
	if o.Guest.Agent == nil || !o.Guest.Agent.Open || o.Launched.ReadyAt.IsZero() {
		t.Errorf("Agent %+v, ReadyAt %s", o.Guest.Agent, o.Launched.ReadyAt)
	}
	// Once is enough for this run of the guest, also when the guest is paused.
	r.must(r.SetPaused(t.Context(), "web", true))
	if o := r.observe(vm, driver.DepthBrief, driver.Alive); !o.Ready {
		t.Error("the probe did not hold")
	}
	r.must(r.SetPaused(t.Context(), "web", false))
	var name string
	r.must(r.VisitAgent(t.Context(), "web", func(ctx context.Context, c *qga.Conn) (err error) {
		name, err = c.HostName(ctx)
		return err
	}))
	if name != "maqet-guest" {
		t.Errorf("the guest's name is %q", name)
	}
}
