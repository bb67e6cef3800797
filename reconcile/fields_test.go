package reconcile

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// patternsOf are the paths of all values that a type can hold.
func patternsOf(t reflect.Type, path string, out map[string]bool) {
	switch t {
	case reflect.TypeFor[manifest.Scalar](), reflect.TypeFor[manifest.Quantity](), reflect.TypeFor[manifest.Duration](), reflect.TypeFor[manifest.Free]():
		out[path] = true
		return
	}
	switch t.Kind() { //nolint:exhaustive // Manifests hold no other kinds, and the default says so.
	case reflect.Pointer:
		patternsOf(t.Elem(), path, out)
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			patternsOf(f.Type, path+"."+name, out)
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			patternsOf(t.Elem(), path+"[]", out)
			return
		}
		out[path] = true
	case reflect.Map:
		out[path+"[]"] = true
	default:
		out[path] = true
	}
}

func TestFields_everyManifestField_isInTheTable(t *testing.T) {
	patterns := map[string]bool{}
	patternsOf(reflect.TypeFor[manifest.Metadata](), "metadata", patterns)
	patternsOf(reflect.TypeFor[manifest.VirtualMachineSpec](), "spec", patterns)
	table := map[string]bool{}
	for _, f := range Fields() {
		if table[f.Path] {
			t.Errorf("%s is twice in the table", f.Path)
		}
		table[f.Path] = true
	}
	for p := range patterns {
		if !table[p] {
			t.Errorf("%s is not in the table of fields: say what changing it costs", p)
		}
	}
	// These objects mean something by being there, even when they are empty.
	presence := map[string]bool{"spec.serial": true, "spec.cloudInit": true, "spec.tpm": true, "spec.nics[].user": true, "spec.guestAgent": true, "spec.readiness.guestAgent": true}
	for p := range table {
		if !patterns[p] && !presence[p] {
			t.Errorf("%s is in the table, but no field of a manifest", p)
		}
	}
}

func TestFields_classes_areAsPromised(t *testing.T) {
	for _, f := range Fields() {
		want := ClassRestart
		switch {
		case f.Path == "metadata.name":
			want = ClassRecreate
		case strings.HasPrefix(f.Path, "metadata."), strings.HasPrefix(f.Path, "spec.cloudInit."):
			want = ClassMetadata
		case f.Path == "spec.powerState":
			want = ClassLive
		case f.Path == "spec.disks[].image":
			want = ClassDataLoss
		case f.Path == "spec.disks[].size", strings.HasPrefix(f.Path, "spec.disks[].throttle."), f.Path == "spec.cpu.count", strings.HasPrefix(f.Path, "spec.nics[]."), strings.HasPrefix(f.Path, "spec.devices[]."),
			f.Path == "spec.disks[].name", isSource(f.Path):
			want = ClassLive
		case strings.HasPrefix(f.Path, "spec.shutdown."), strings.HasPrefix(f.Path, "spec.readiness."), strings.HasPrefix(f.Path, "spec.onDelete."),
			strings.HasPrefix(f.Path, "spec.snapshots."), strings.HasPrefix(f.Path, "spec.backup."), f.Path == "spec.restartPolicy":
			want = ClassNone
		}
		if f.Class != want {
			t.Errorf("%s has the class %s, want %s", f.Path, f.Class, want)
		}
	}
}

// rich has every list filled.
func rich(s *manifest.VirtualMachineSpec) {
	s.CPU = &manifest.CPU{Model: "max", Topology: &manifest.Topology{Cores: 2}}
	s.Serial = &manifest.Serial{}
	s.GuestAgent = &manifest.GuestAgent{}
	s.Disks = append(s.Disks, manifest.Disk{Name: "iso", File: "/srv/x.iso", Media: manifest.MediaCDROM})
	s.NICs = append(s.NICs, manifest.NIC{Name: "dmz", MAC: "52:54:00:aa:bb:cc", Bridge: &manifest.BridgeNet{Name: "br0"}})
	s.Devices = []manifest.Device{{Name: "rng0", Driver: "virtio-rng-pci", Properties: map[string]manifest.Scalar{"max-bytes": manifest.ScalarOf(1024)}}}
	s.Emulator = &manifest.Emulator{Binary: "qemu-system-x86_64", Accelerators: []string{"kvm", "tcg"}}
	s.Machine.Properties = map[string]manifest.Scalar{"hpet": manifest.ScalarOf(false)}
	s.Boot = &manifest.Boot{Order: []string{"root", "lan"}, Kernel: &manifest.Kernel{Image: "/srv/vmlinuz"}}
	s.Readiness = &manifest.Readiness{TCP: &manifest.TCPReadiness{Port: 22}}
}

func TestGuestChanges_changedManifest_needsRestart(t *testing.T) {
	type spec = manifest.VirtualMachineSpec
	cases := []struct {
		name string
		edit func(*spec)
		want []string
	}{
		{"nothing", func(*spec) {}, nil},
		{"memory", func(s *spec) { s.Memory.Size = 1 << 30 }, []string{"spec.memory.size 512Mi -> 1Gi"}},
		{"memory removed", func(s *spec) { s.Memory = nil }, []string{"spec.memory.size 512Mi -> "}},
		{"cpu count", func(s *spec) { s.CPU = &manifest.CPU{Model: "max", Count: 4} }, []string{
			"spec.cpu.count 2 -> 4", "spec.cpu.topology.sockets 1 -> ", "spec.cpu.topology.cores 2 -> ", "spec.cpu.topology.threads 1 -> ",
		}},
		{"cpu model", func(s *spec) { s.CPU.Model = "qemu64" }, []string{"spec.cpu.model max -> qemu64"}},
		{"machine alias for the same type", func(s *spec) { s.Machine.Type = "pc-q35-7.2" }, nil},
		{"machine type", func(s *spec) { s.Machine.Type = "pc-q35-8.0" }, []string{"spec.machine.type pc-q35-7.2 -> pc-q35-8.0"}},
		{"machine property", func(s *spec) { s.Machine.Properties["hpet"] = manifest.ScalarOf(true) }, []string{"spec.machine.properties[hpet] false -> true"}},
		{"hotplug ports", func(s *spec) { s.Machine.HotplugPorts = 2 }, []string{"spec.machine.hotplugPorts  -> 2"}},
		{"firmware added", func(s *spec) { s.Firmware = &manifest.Firmware{UEFI: true} }, []string{"spec.firmware.uefi false -> true"}},
		{"watchdog added", func(s *spec) { s.Watchdog = &manifest.Watchdog{Model: "i6300esb", Action: "reset"} }, []string{
			"spec.watchdog.model  -> i6300esb", "spec.watchdog.action  -> reset",
		}},
		{"disk added", func(s *spec) { s.Disks = append(s.Disks, manifest.Disk{Name: "data", Size: 1 << 20}) }, []string{"spec.disks[data]  -> 1Mi qcow2 disk"}},
		{"disk removed", func(s *spec) { s.Disks = s.Disks[:1] }, []string{"spec.disks[iso] /srv/x.iso raw cdrom -> "}},
		{"disk made read-only", func(s *spec) { s.Disks[0].ReadOnly = true }, []string{"spec.disks[root].readOnly false -> true"}},
		{"disk file", func(s *spec) { s.Disks[1].File = "/srv/y.iso" }, []string{"spec.disks[iso].file /srv/x.iso -> /srv/y.iso"}},
		{"disk on a server", func(s *spec) {
			s.Disks[0].Size, s.Disks[0].NBD = 0, &manifest.NBD{Host: "storage", Port: 1, Export: "x"}
		}, []string{
			"spec.disks[root].nbd.host  -> storage", "spec.disks[root].nbd.port  -> 1", "spec.disks[root].nbd.export  -> x",
		}},
		{"serial number", func(s *spec) { s.Disks[0].Serial = "A-1" }, []string{"spec.disks[root].serial  -> A-1"}},
		{"cache", func(s *spec) { s.Disks[0].Cache = manifest.CacheNone }, []string{"spec.disks[root].cache writeback -> none"}},
		{"what absence means", func(s *spec) {
			d := &s.Disks[0]
			d.Cache, d.AIO, d.Discard, d.DetectZeroes = manifest.CacheWriteback, manifest.AIOThreads, manifest.DiscardIgnore, manifest.DetectZeroesOff
		}, nil},
		{"how it is read and written", func(s *spec) {
			d := &s.Disks[0]
			d.AIO, d.Discard, d.DetectZeroes, d.IOThread = manifest.AIOIOUring, manifest.DiscardUnmap, manifest.DetectZeroesOn, true
		}, []string{
			"spec.disks[root].aio threads -> io_uring", "spec.disks[root].discard ignore -> unmap",
			"spec.disks[root].detectZeroes off -> on", "spec.disks[root].ioThread false -> true",
		}},
		{"nic removed", func(s *spec) { s.NICs = s.NICs[:1] }, []string{"spec.nics[dmz] virtio-net-pci -> "}},
		{"address", func(s *spec) { s.NICs[1].MAC = "52:54:00:00:00:09" }, []string{"spec.nics[dmz].mac 52:54:00:aa:bb:cc -> 52:54:00:00:00:09"}},
		{"forward", func(s *spec) { s.NICs[0].User.Forward = nil }, []string{`spec.nics[lan].user.forward ["tcp:127.0.0.1:2222:22","tcp:127.0.0.1:8080:80"] -> `}},
		{"forwards in another order", func(s *spec) {
			s.NICs[0].User.Forward = []string{"tcp:127.0.0.1:8080:80", "tcp:127.0.0.1:2222:22"}
		}, nil},
		{"backend", func(s *spec) { s.NICs[1].Bridge, s.NICs[1].User = nil, &manifest.UserNet{} }, []string{"spec.nics[dmz].user  -> present", "spec.nics[dmz].bridge.name br0 -> "}},
		{"serial removed", func(s *spec) { s.Serial = nil }, []string{"spec.serial present -> "}},
		{"guest agent removed", func(s *spec) { s.GuestAgent = nil }, []string{"spec.guestAgent present -> "}},
		{"device property", func(s *spec) { s.Devices[0].Properties["max-bytes"] = manifest.ScalarOf(2) }, []string{"spec.devices[rng0].properties[max-bytes] 1024 -> 2"}},
		{"accelerators in another order", func(s *spec) { s.Emulator.Accelerators = []string{"tcg", "kvm"} }, []string{`spec.emulator.accelerators ["kvm","tcg"] -> ["tcg","kvm"]`}},
		{"lists in another order", func(s *spec) {
			s.Disks[0], s.Disks[1] = s.Disks[1], s.Disks[0]
			s.NICs[0], s.NICs[1] = s.NICs[1], s.NICs[0]
		}, nil},
		{"controller's own", func(s *spec) {
			s.Shutdown.Timeout, s.Readiness, s.OnDelete.Disks = 1, nil, manifest.DisksDelete
		}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(rich).up().edit(c.edit)
			var got []string
			for _, ch := range guestChanges(&s.want.Machine.Object.Spec, &s.obs) {
				got = append(got, ch.Path+" "+ch.From+" -> "+ch.To)
				if ch.Drift || ch.Class != ClassRestart || ch.Why == "" {
					t.Errorf("%s: class %s, drift %v, why %q", ch.Path, ch.Class, ch.Drift, ch.Why)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGuestChanges_changedGuest_isDrift(t *testing.T) {
	cases := []struct {
		name  string
		touch func(*driver.Observed)
		want  []string
	}{
		{"vcpu added", func(o *driver.Observed) { o.Guest.CPUs = 3 }, []string{"spec.cpu.count 3 -> 2"}},
		{"memory", func(o *driver.Observed) { o.Guest.Memory = 1 << 30 }, []string{"spec.memory.size 1Gi -> 512Mi"}},
		{"disk unplugged", func(o *driver.Observed) { o.Guest.Disks = o.Guest.Disks[1:] }, []string{"spec.disks[root]  -> 1Gi qcow2 disk"}},
		{"medium changed", func(o *driver.Observed) { o.Guest.Disks[1].File = "/tmp/other.iso" }, []string{"spec.disks[iso].file /tmp/other.iso -> /srv/x.iso"}},
		{"file in QEMU's notation", func(o *driver.Observed) { o.Guest.Disks[1].File = "json:{}" }, nil},
		{"became read-only", func(o *driver.Observed) { o.Guest.Disks[0].ReadOnly = true }, []string{"spec.disks[root].readOnly true -> false"}},
		{"medium taken out", func(o *driver.Observed) { o.Guest.Disks[1].File, o.Guest.Disks[1].Empty = "", true }, []string{"spec.disks[iso].file  -> /srv/x.iso"}},
		{"cache", func(o *driver.Observed) { o.Guest.Disks[0].Cache = "unsafe" }, []string{"spec.disks[root].cache unsafe -> writeback"}},
		{"nic added", func(o *driver.Observed) { o.Guest.NICs = append(o.Guest.NICs, driver.GNIC{Name: "extra"}) }, []string{"spec.nics[extra] added to the running machine -> "}},
		{"device removed", func(o *driver.Observed) { o.Guest.Devices = nil }, []string{"spec.devices[rng0]  -> virtio-rng-pci"}},
		{"guest agent's port unplugged", func(o *driver.Observed) { o.Guest.Agent = nil }, []string{"spec.guestAgent  -> present"}},
		{"CPU model in QOM's words", func(o *driver.Observed) { o.Guest.CPUModel = "max-x86_64-cpu" }, nil},
		{"CPU model in other words", func(o *driver.Observed) { o.Guest.CPUModel = "something" }, nil},
		{"machine type in other words", func(o *driver.Observed) { o.Guest.MachineType = "pc-q35-7.2-machine" }, nil},
		{"a further device that is a card", func(o *driver.Observed) {
			o.Guest.NICs = append(o.Guest.NICs, driver.GNIC{Name: "rng0"})
			o.Guest.Devices = nil
		}, nil},
		{"only little was asked", func(o *driver.Observed) { o.Guest.Brief, o.Guest.CPUs = true, 9 }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(rich).up()
			c.touch(&s.obs)
			var got []string
			for _, ch := range guestChanges(&s.want.Machine.Object.Spec, &s.obs) {
				got = append(got, ch.Path+" "+ch.From+" -> "+ch.To)
				if !ch.Drift {
					t.Errorf("%s is no drift", ch.Path)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGuestChanges_onlyLittleAsked_manifestIsComparedWithTheLaunchRecord(t *testing.T) {
	s := newScene(rich).up()
	s.obs.Guest = &driver.Guest{RunState: "running", Brief: true}
	s.want.Machine.Object.Spec.Memory.Size = 2 << 30
	s.want.Machine.Object.Spec.Devices = nil
	var got []string
	for _, ch := range guestChanges(&s.want.Machine.Object.Spec, &s.obs) {
		got = append(got, ch.Path+" "+ch.From+" -> "+ch.To)
	}
	want := []string{"spec.memory.size 512Mi -> 2Gi", "spec.devices[rng0] virtio-rng-pci -> "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestGuestChanges_absentKeys_areNoDifference(t *testing.T) {
	bare := func(s *manifest.VirtualMachineSpec) { s.Memory, s.CPU, s.Machine = nil, nil, nil }
	s := newScene(bare).up()
	s.obs.Guest.Memory, s.obs.Guest.CPUModel, s.obs.Guest.MachineType = 999<<20, "qemu64-x86_64-cpu", "pc-i440fx-9.9"
	if got := guestChanges(&s.want.Machine.Object.Spec, &s.obs); len(got) != 0 {
		t.Errorf("QEMU decides what is absent, yet there are changes: %v", got)
	}
	// What the guest has already is no change either, launch record or not.
	s.edit(func(s *manifest.VirtualMachineSpec) {
		s.Memory, s.CPU = &manifest.Memory{Size: 999 << 20}, &manifest.CPU{Count: 1}
	})
	if got := guestChanges(&s.want.Machine.Object.Spec, &s.obs); len(got) != 0 {
		t.Errorf("the guest is as wanted, yet there are changes: %v", got)
	}
}

func TestGuestChanges_withoutLaunchRecord_goesByQMPAlone(t *testing.T) {
	s := newScene(rich).up()
	s.obs.Launched = nil
	if got := guestChanges(&s.want.Machine.Object.Spec, &s.obs); len(got) != 0 {
		t.Errorf("changes without a cause: %v", got)
	}
	s.edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 })
	got := guestChanges(&s.want.Machine.Object.Spec, &s.obs)
	if len(got) != 1 || got[0].Path != "spec.memory.size" || got[0].Drift {
		t.Errorf("want the memory's change alone, no drift: %v", got)
	}
}

func TestGuestChanges_extraDevicesOfTheUsersOwn_areNoDrift(t *testing.T) {
	s := newScene(rich, func(s *manifest.VirtualMachineSpec) { s.Emulator.ExtraArgs = []string{"-device", "x"} }).up()
	s.obs.Guest.Devices = append(s.obs.Guest.Devices, driver.GDevice{Name: "x"})
	if got := guestChanges(&s.want.Machine.Object.Spec, &s.obs); len(got) != 0 {
		t.Errorf("changes: %v", got)
	}
}

func TestObjectChanges_twoManifests_pricesEachField(t *testing.T) {
	old := newVM("web", rich)
	now := old.DeepCopy()
	now.Metadata.Labels = map[string]string{"tier": "front"}
	now.Spec.Shutdown.Timeout *= 2
	now.Spec.Memory.Size *= 2
	got := map[string]Class{}
	for _, c := range ObjectChanges(old, now) {
		got[c.Path] = c.Class
	}
	want := map[string]Class{"metadata.labels[tier]": ClassMetadata, "spec.shutdown.timeout": ClassNone, "spec.memory.size": ClassRestart}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("classes (-want +got):\n%s", diff)
	}
	if got := ObjectChanges(nil, now); got != nil {
		t.Errorf("a new object has no changes: %v", got)
	}
}
