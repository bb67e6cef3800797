package qemu

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func disksOf(machine string, names ...string) manifest.VirtualMachineSpec {
	s := manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: machine}}
	for _, name := range names {
		s.Disks = append(s.Disks, sized(name))
	}
	return s
}

func TestAllocate_newMachine_getsEverything(t *testing.T) {
	vm := testVM("web", manifest.VirtualMachineSpec{
		Machine: q35(),
		Disks:   []manifest.Disk{sized("root"), {Name: "cd", File: "/x.iso", Media: manifest.MediaCDROM}},
		NICs:    []manifest.NIC{userNIC("lan"), {Name: "dmz", MAC: "52:54:00:aa:bb:cc", User: &manifest.UserNet{}}},
		Devices: []manifest.Device{{Name: "rng", Driver: "virtio-rng-pci"}, {Name: "panic", Driver: "pvpanic"}},
	})
	id, changed, err := Allocate(driver.Identity{}, vm, testHost(), testRandom(), argvNow)
	if err != nil || !changed {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id.UID) {
		t.Errorf("%q is no version 4 uuid", id.UID)
	}
	if mac := id.MACs["lan"]; !regexp.MustCompile(`^52:54:00(:[0-9a-f]{2}){3}$`).MatchString(mac) {
		t.Errorf("%q is no MAC of ours", mac)
	}
	if _, named := id.MACs["dmz"]; named {
		t.Error("a nic whose manifest names an address has an entry")
	}
	want := driver.Identity{
		Version: driver.IdentityVersion, UID: id.UID, Created: argvNow, MACs: id.MACs,
		Machine: driver.ResolvedMachine{Wanted: "q35", Binary: "qemu-system-x86_64", Type: "pc-q35-7.2"},
		Slots: map[string]driver.Slot{
			"root": {Kind: driver.SlotPort, Index: 0}, "cd": {Kind: driver.SlotSATA, Index: 0},
			"lan": {Kind: driver.SlotPort, Index: 1}, "dmz": {Kind: driver.SlotPort, Index: 2}, "rng": {Kind: driver.SlotPort, Index: 3},
		},
	}
	if diff := cmp.Diff(want, id); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	again, changed, err := Allocate(id, vm, testHost(), iotest.ErrReader(errors.New("asked for random numbers")), argvNow.AddDate(1, 0, 0))
	if err != nil || changed || !cmp.Equal(id, again) {
		t.Errorf("a second time: changed %v, error %v, %s", changed, err, cmp.Diff(id, again))
	}
}

func TestAllocate_machineType_isResolvedOnce(t *testing.T) {
	newer := testHost()
	newer.Binary = "/opt/qemu-9/bin/qemu-system-x86_64"
	addMachine(&newer, driver.MachineType{Name: "pc-q35-9.0", Alias: "q35"}, false)
	addMachine(&newer, driver.MachineType{Name: "pc-i440fx-9.0", Alias: "pc"}, true)
	tests := []struct {
		name   string
		before string
		after  string
		binary string
		want   string
	}{
		{name: "upgrade of QEMU", before: "q35", after: "q35", want: "pc-q35-7.2"},
		{name: "upgrade with the default board", before: "", after: "", want: "pc-i440fx-7.2"},
		{name: "default named", before: "", after: "pc", want: "pc-i440fx-9.0"},
		{name: "other board", before: "q35", after: "pc", want: "pc-i440fx-9.0"},
		{name: "other version", before: "q35", after: "pc-q35-7.1", want: "pc-q35-7.1"},
		{name: "same name elsewhere", before: "q35", after: "q35", binary: "/opt/qemu-9/bin/qemu-system-x86_64", want: "pc-q35-7.2"},
		{name: "other emulator", before: "q35", after: "q35", binary: "qemu-kvm", want: "pc-q35-9.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := mustAllocate(t, driver.Identity{}, testVM("web", disksOf(tt.before)), testHost(), testRandom())
			spec := disksOf(tt.after)
			spec.Emulator = &manifest.Emulator{Binary: tt.binary}
			next := mustAllocate(t, id, testVM("web", spec), newer, testRandom())
			if next.Machine.Type != tt.want {
				t.Errorf("type is %q, want %q", next.Machine.Type, tt.want)
			}
		})
	}
}

func TestAllocate_unknownBoard_suggestsOne(t *testing.T) {
	_, _, err := Allocate(driver.Identity{}, testVM("web", disksOf("q36")), testHost(), testRandom(), argvNow)
	var refused *SpecError
	if !errors.As(err, &refused) || refused.Path != "spec.machine.type" || refused.Hint != `did you mean "q35"?` {
		t.Errorf("error is %v", err)
	}
	_, _, err = Allocate(driver.Identity{}, testVM("arm", manifest.VirtualMachineSpec{}), armHost(), testRandom(), argvNow)
	if !errors.As(err, &refused) || !strings.Contains(refused.Msg, "no default machine type") {
		t.Errorf("error is %v", err)
	}
}

func TestAllocate_noRandomNumbers_isAnErrorAndChangesNothing(t *testing.T) {
	broken := errors.New("broken")
	vm := testVM("web", manifest.VirtualMachineSpec{NICs: []manifest.NIC{userNIC("lan")}})
	for _, rnd := range []*bytes.Reader{bytes.NewReader(nil), bytes.NewReader(make([]byte, 17))} {
		id, changed, err := Allocate(driver.Identity{}, vm, testHost(), rnd, argvNow)
		if err == nil || changed || id.UID != "" {
			t.Errorf("identity %+v, changed %v, error %v", id, changed, err)
		}
	}
	_, _, err := Allocate(driver.Identity{}, vm, testHost(), iotest.ErrReader(broken), argvNow)
	if !errors.Is(err, broken) {
		t.Errorf("error %v does not wrap its cause", err)
	}
}

func TestAllocate_constantRandomNumbers_giveNoAddressTwice(t *testing.T) {
	vm := testVM("web", manifest.VirtualMachineSpec{NICs: []manifest.NIC{userNIC("a"), userNIC("b")}})
	_, _, err := Allocate(driver.Identity{}, vm, testHost(), bytes.NewReader(make([]byte, 4096)), argvNow)
	if err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("error is %v", err)
	}
}

func TestAllocate_generatedAddressGivenToAnotherNIC_isReplaced(t *testing.T) {
	rnd := testRandom()
	id := mustAllocate(t, driver.Identity{}, testVM("web", manifest.VirtualMachineSpec{NICs: []manifest.NIC{userNIC("old")}}), testHost(), rnd)
	mac := id.MACs["old"]
	spec := manifest.VirtualMachineSpec{NICs: []manifest.NIC{userNIC("old"), {Name: "new", MAC: mac, User: &manifest.UserNet{}}}}
	next := mustAllocate(t, id, testVM("web", spec), testHost(), rnd)
	if next.MACs["old"] == mac || next.MACs["old"] == "" {
		t.Errorf("the address is %q, as before", next.MACs["old"])
	}
	if id.MACs["old"] != mac {
		t.Error("the identity that was given was changed")
	}
}
