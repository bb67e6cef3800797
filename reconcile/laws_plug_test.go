package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// plugLaws are what holds for the steps that plug something in or take it out.
func (w *walker) plugLaws(s Step) {
	if s.Part == nil && s.Kind != StepForward && s.Kind != StepAddCPUs {
		return
	}
	g := w.obs.Guest
	if g == nil {
		w.t.Fatalf("%s of a machine that does not run", s)
	}
	if s.Kind == StepAddCPUs && (s.CPUs <= g.CPUs || s.CPUs > maxCPUs(w.obs.Launched.Spec.CPU)) {
		w.t.Fatalf("%s to %d of a guest that has %d and was started as %+v", s, s.CPUs, g.CPUs, w.obs.Launched.Spec.CPU)
	}
	if s.Kind == StepForward || s.Kind == StepAddCPUs {
		return
	}
	_, there := guestItems(g)[s.Part.Name]
	wanted := hasPart(&w.want.Machine.Object.Spec, *s.Part)
	switch s.Kind { //nolint:exhaustive // the others have no part
	case StepPlug:
		if there || !wanted {
			w.t.Fatalf("%s, which is there: %v, wanted: %v", s, there, wanted)
		}
	case StepUnplug:
		if !there || g.RunState != runRunning {
			w.t.Fatalf("%s, which is there: %v, of a guest that is %s", s, there, g.RunState)
		}
		if wanted && !w.differs(*s.Part) {
			w.t.Fatalf("%s, which is as it should be", s)
		}
	case StepDrop:
		if there || wanted {
			w.t.Fatalf("%s, which is there: %v, wanted: %v", s, there, wanted)
		}
	}
}

// differs tells whether an item is other than it should be.
func (w *walker) differs(part driver.Part) bool {
	for _, c := range guestChanges(&w.want.Machine.Object.Spec, &w.obs) {
		if p, ok := partOf(c.Path); ok && p == part {
			return true
		}
	}
	return false
}

// liveIsCold holds a running machine that nothing is owed of to what a start would make
// of it: the same devices, each in a place of its own that the next start knows.
func (w *walker) liveIsCold(p Plan) {
	if w.obs.Presence != driver.Alive || w.obs.Identity == nil {
		return
	}
	places := map[driver.Slot]string{}
	for name, s := range w.obs.Identity.Slots {
		if other, taken := places[s]; taken {
			w.t.Fatalf("%s and %s are at the same place %v", name, other, s)
		}
		places[s] = name
	}
	spec := &w.want.Machine.Object.Spec
	if len(p.Changes) > 0 || len(guestChanges(spec, &w.obs)) > 0 {
		return
	}
	cold := w.guest(spec, *w.obs.Identity)
	cold.AddedCPUs = w.obs.Guest.AddedCPUs
	if d := driver.DeviceDifferences(cold, w.obs.Guest); len(d) > 0 {
		w.t.Fatalf("a start would make another machine of it: %v", d)
	}
	if l := w.obs.Launched; l != nil {
		if has, want := specItems(&l.Spec), specItems(spec); !maps.Equal(has, want) {
			w.t.Fatalf("the launch record has %v, and wanted are %v", has, want)
		}
		for _, n := range spec.NICs {
			if at, ok := l.Identity.Slots[n.Name]; !ok || at != w.obs.Identity.Slots[n.Name] {
				w.t.Fatalf("nic %s was plugged in at %v, and the next start puts it at %v", n.Name, at, w.obs.Identity.Slots[n.Name])
			}
		}
	}
}

// addNIC adds a card with an address of its own.
func (w *walker) addNIC() {
	w.change(func(s *manifest.VirtualMachineSpec) {
		if n := int(w.want.Machine.Generation); len(s.NICs) < 4 {
			s.NICs = append(s.NICs, manifest.NIC{
				Name: fmt.Sprintf("nic%d", n), User: &manifest.UserNet{}, MAC: fmt.Sprintf("52:54:00:11:%02x:%02x", n>>8&0xff, n&0xff),
			})
		}
	})
}

// changeNIC changes something of a card.
func (w *walker) changeNIC() {
	w.change(func(s *manifest.VirtualMachineSpec) {
		if len(s.NICs) == 0 {
			return
		}
		n := &s.NICs[rapid.IntRange(0, len(s.NICs)-1).Draw(w.t, "nic")]
		switch rapid.IntRange(0, 3).Draw(w.t, "what") {
		case 0:
			g := w.want.Machine.Generation
			n.MAC = fmt.Sprintf("52:54:00:22:%02x:%02x", g>>8&0xff, g&0xff)
		case 1:
			n.Model = rapid.SampledFrom([]string{"e1000", "virtio-net-pci", "usb-net"}).Draw(w.t, "model")
		case 2:
			n.Bridge, n.User = nil, &manifest.UserNet{Forward: []string{fmt.Sprintf("tcp:127.0.0.1:%d:22", 2000+w.want.Machine.Generation)}}
		case 3:
			n.Bridge, n.User = &manifest.BridgeNet{Name: "br0"}, nil
		}
	})
}

// changeMedium adds a cdrom, or puts something else into it, or takes it out.
func (w *walker) changeMedium() {
	file := rapid.SampledFrom([]string{"", "/srv/a.iso", "/srv/b.iso"}).Draw(w.t, "medium")
	if file != "" && w.coin("is there") {
		w.obs.Files["iso"] = driver.DiskFile{Path: file, Exists: true}
	}
	w.change(func(s *manifest.VirtualMachineSpec) {
		i := slices.IndexFunc(s.Disks, func(d manifest.Disk) bool { return d.Name == "iso" })
		iso := manifest.Disk{Name: "iso", Media: manifest.MediaCDROM, File: file, Bus: rapid.SampledFrom([]manifest.Bus{manifest.BusSATA, manifest.BusVirtioSCSI}).Draw(w.t, "bus")}
		switch {
		case i < 0:
			s.Disks = append(s.Disks, iso)
		case w.coin("removed"):
			s.Disks = slices.Delete(s.Disks, i, i+1)
		default:
			iso.Bus = s.Disks[i].Bus
			s.Disks[i] = iso
		}
	})
}

// changeDevice adds a device, changes or removes it.
func (w *walker) changeDevice() {
	w.change(func(s *manifest.VirtualMachineSpec) {
		if len(s.Devices) > 0 && w.coin("removed") {
			s.Devices = nil
			return
		}
		s.Devices = []manifest.Device{{
			Name: "rng0", Driver: rapid.SampledFrom([]string{"virtio-rng-pci", "virtio-balloon-pci", "isa-debugcon"}).Draw(w.t, "driver"),
			Properties: map[string]manifest.Scalar{"max-bytes": manifest.ScalarOf(rapid.IntRange(1, 2).Draw(w.t, "bytes"))},
		}}
	})
}

// changeCPUs changes how many vCPUs there are, or can be.
func (w *walker) changeCPUs() {
	w.change(func(s *manifest.VirtualMachineSpec) {
		s.CPU = &manifest.CPU{Count: rapid.IntRange(1, 4).Draw(w.t, "count")}
		if w.coin("more later") {
			s.CPU.MaxCount = 4
		}
	})
}

// unplugged is a card that the guest lets go of late, or that somebody takes out.
func (w *walker) unplugged() {
	if w.obs.Presence != driver.Alive {
		return
	}
	if g := w.obs.Guest; len(g.NICs) > 0 && w.coin("by hand") {
		g.NICs = g.NICs[:len(g.NICs)-1]
	} else {
		w.letGo()
	}
}

// TestLaws_randomPlugs_holdAtEachStep changes what is plugged into a machine to which
// little else happens.
func TestLaws_randomPlugs_holdAtEachStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &walker{scene: newScene(func(s *manifest.VirtualMachineSpec) { s.Machine.HotplugPorts = 2 }).up(), t: t}
		names := []string{"add nic", "remove nic", "nic", "unplugged", "ports", "add nic", "nic", "allow restart", "add disk", "remove disk", "medium", "device", "cpus", "cpus", "power state", "crash", "time", "deaf", "run state"}
		for range len(names) {
			names = append(names, "pass 00")
		}
		w.walk(names)
	})
}
