package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// portly is a machine with two spare ports.
func portly(s *manifest.VirtualMachineSpec) { s.Machine.HotplugPorts = 2 }

func anotherNIC(s *manifest.VirtualMachineSpec) {
	s.NICs = append(s.NICs, manifest.NIC{Name: "dmz", User: &manifest.UserNet{}})
}

func TestPlanMachine_nics_changeLiveWhereTheyCan(t *testing.T) {
	cases := []struct {
		name string
		make func() *scene
		plan string
		// class and why are those of the first change; empty for no change.
		class Class
		why   string
	}{
		{"added", func() *scene { return newScene(portly).up().edit(anotherNIC) }, "plug nic dmz;", ClassLive, "at port 2"},
		{"added without a port", func() *scene { return newScene().up().edit(anotherNIC) }, "", ClassRestart, "no root port is left"},
		{"added without a port, restart allowed", func() *scene {
			return newScene().up().edit(anotherNIC).with(func(s *scene) { s.opt.AllowRestart = true })
		}, "powerdown(Restart,1m0s);", ClassRestart, "no root port is left"},
		{"of a kind that cannot", func() *scene {
			return newScene(portly).up().edit(func(s *manifest.VirtualMachineSpec) {
				s.NICs = append(s.NICs, manifest.NIC{Name: "usb", Model: "usb-net", User: &manifest.UserNet{}})
			})
		}, "", ClassRestart, "QEMU cannot plug in or take out the card usb-net while the guest runs"},
		{"added to a paused guest", func() *scene {
			return newScene(portly, power(manifest.PowerPaused)).up().edit(anotherNIC)
		}, "plug nic dmz;", ClassLive, "netdev_add"},
		{"removed", func() *scene { return newScene().up().edit(noNICs) }, "unplug nic lan;", ClassLive, "by device_del"},
		{"removed from a paused guest", func() *scene {
			return newScene(power(manifest.PowerPaused)).up().edit(noNICs)
		}, "", ClassLive, "only a guest that runs can let go of it"},
		{"removed and asked", func() *scene { return newScene().up().edit(noNICs).asked(time.Second) }, "wait,exit,unplug,5s", ClassLive, "by device_del"},
		{"removed and asked a while ago", func() *scene { return newScene().up().edit(noNICs).asked(6 * time.Second) }, "unplug nic lan;", ClassLive, "by device_del"},
		{"removed and refused", func() *scene { return newScene().up().edit(noNICs).asked(30 * time.Second) }, "", ClassRestart, "the guest was asked at 03:04:05 and has not let go of it"},
		{"removed and refused long ago", func() *scene { return newScene().up().edit(noNICs).asked(6 * time.Minute) }, "unplug nic lan;", ClassLive, "by device_del"},
		{"removed and gone", func() *scene {
			return newScene().up().edit(noNICs).asked(time.Second).with(func(s *scene) { s.letGo() })
		}, "drop nic lan;", "", ""},
		{"another address", func() *scene {
			return newScene().up().edit(func(s *manifest.VirtualMachineSpec) { s.NICs[0].MAC = "52:54:00:00:00:09" })
		}, "unplug nic lan;", ClassLive, "the guest's network is cut meanwhile"},
		{"another address, taken out", func() *scene {
			return newScene().up().edit(func(s *manifest.VirtualMachineSpec) { s.NICs[0].MAC = "52:54:00:00:00:09" }).
				asked(time.Second).with(func(s *scene) { s.letGo() })
		}, "plug nic lan;", ClassLive, "netdev_add"},
		{"forwards", func() *scene {
			return newScene().up().edit(func(s *manifest.VirtualMachineSpec) { s.NICs[0].User.Forward = nil })
		}, "forward;", ClassLive, "hostfwd_add"},
		{"one removed, one added: the port may be the same", func() *scene {
			return newScene(portly).up().edit(noNICs).edit(anotherNIC)
		}, "unplug nic lan;", ClassLive, ""},
		{"somebody took it out", func() *scene {
			return newScene().up().with(func(s *scene) { s.obs.Guest.NICs = nil })
		}, "plug nic lan;", ClassLive, "netdev_add"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := c.make()
			p := s.plan()
			if got := summary(p); got != c.plan {
				t.Errorf("plan %q, want %q", got, c.plan)
			}
			if c.class == "" {
				if len(p.Changes) > 0 {
					t.Errorf("changes %+v, want none", p.Changes)
				}
				return
			}
			if len(p.Changes) == 0 || p.Changes[0].Class != c.class || !strings.Contains(p.Changes[0].Why, c.why) {
				t.Errorf("changes %+v, want %s since %q", p.Changes, c.class, c.why)
			}
		})
	}
}

func noNICs(s *manifest.VirtualMachineSpec) { s.NICs = nil }

// asked has the guest asked some time ago to let go of its first nic.
func (s *scene) asked(ago time.Duration) *scene {
	part := driver.Part{List: driver.ListNICs, Name: "lan"}
	u := driver.Unplug{Since: s.now, Asked: s.now, Deadline: s.now.Add(30 * time.Second)}
	s.plugStep(Step{Kind: StepUnplug, Part: &part, Unplug: &u})
	s.now = s.now.Add(ago)
	return s
}

func TestPlanMachine_ownUnplug_isNoDriftAndSomebodyElsesIs(t *testing.T) {
	changed := func(s *manifest.VirtualMachineSpec) { s.NICs[0].MAC = "52:54:00:00:00:09" }
	own := newScene().up().edit(changed).asked(time.Second).with(func(s *scene) { s.letGo() }).plan()
	if len(own.Changes) != 1 || own.Changes[0].Drift {
		t.Errorf("what maqet has taken out itself is drift: %+v", own.Changes)
	}
	other := newScene().up().with(func(s *scene) { s.obs.Guest.NICs = nil }).plan()
	if len(other.Changes) != 1 || !other.Changes[0].Drift {
		t.Errorf("what somebody has taken out is no drift: %+v", other.Changes)
	}
}

func TestPlanMachine_vCPUs_areAddedAndNeverTakenAway(t *testing.T) {
	started := func(s *manifest.VirtualMachineSpec) { s.CPU = &manifest.CPU{Count: 2, MaxCount: 4} }
	for _, c := range []struct {
		name  string
		count int
		plan  string
		class Class
		why   string
	}{
		{"more", 4, "add-cpus;", ClassLive, "by device_add"},
		{"more than there are places", 5, "", ClassRestart, "started with places for 4"},
		{"fewer", 1, "", ClassRestart, "not taken away while the guest runs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newScene(started).up().edit(func(s *manifest.VirtualMachineSpec) { s.CPU.Count = c.count }).plan()
			if got := summary(p); got != c.plan {
				t.Errorf("plan %q, want %q", got, c.plan)
			}
			if len(p.Changes) != 1 || p.Changes[0].Class != c.class || !strings.Contains(p.Changes[0].Why, c.why) {
				t.Errorf("changes %+v, want %s since %q", p.Changes, c.class, c.why)
			}
		})
	}
}
