package qemu

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func TestBusFamilyOf_namesAndAliases(t *testing.T) {
	for board, want := range map[string]driver.BusFamily{
		"q35": driver.FamilyPCIe, "pc-q35-7.2": driver.FamilyPCIe, "virt": driver.FamilyPCIe, "virt-7.2": driver.FamilyPCIe,
		"pc": driver.FamilyPCI, "pc-i440fx-7.2": driver.FamilyPCI,
		"isapc": driver.FamilyNone, "microvm": driver.FamilyNone, "none": driver.FamilyNone, "": driver.FamilyNone,
	} {
		if got := driver.BusFamilyOf(board); got != want {
			t.Errorf("BusFamilyOf(%q) = %s, want %s", board, got, want)
		}
	}
}

func TestAllocate_nameComesBack_toItsPlace(t *testing.T) {
	rnd := testRandom()
	var id driver.Identity
	for _, disks := range [][]string{{"a", "b", "c"}, {"c"}, {"d", "c"}, {"d", "c", "b", "a"}} {
		id = mustAllocate(t, id, testVM("web", disksOf("q35", disks...)), testHost(), rnd)
	}
	want := map[string]driver.Slot{}
	for i, name := range []string{"a", "b", "c", "d"} {
		want[name] = driver.Slot{Kind: driver.SlotPort, Index: i}
	}
	if diff := cmp.Diff(want, id.Slots); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAllocate_anotherBoardAndBack_movesNothing(t *testing.T) {
	rnd := testRandom()
	first := mustAllocate(t, driver.Identity{}, testVM("web", disksOf("q35", "a", "b", "c")), testHost(), rnd)
	other := mustAllocate(t, first, testVM("web", disksOf("pc", "c", "a")), testHost(), rnd)
	for i, name := range []string{"c", "a"} {
		if s, ok := driver.SlotOf(other.Slots, name, driver.SlotPCI); !ok || s.Index != driver.FirstPCIDevice+i {
			t.Errorf("on pc %s is at %+v", name, s)
		}
	}
	back := mustAllocate(t, other, testVM("web", disksOf("q35", "c", "b", "a")), testHost(), rnd)
	for i, name := range []string{"a", "b", "c"} {
		if s, ok := driver.SlotOf(back.Slots, name, driver.SlotPort); !ok || s.Index != i {
			t.Errorf("back on q35 %s is at %+v, was at port %d", name, s, i)
		}
	}
}

func TestAllocate_fullBoard_takesPlacesOfNamesThatAreGone(t *testing.T) {
	rnd := testRandom()
	var first []string
	for i := range driver.LastPCIDevice - driver.FirstPCIDevice + 1 {
		first = append(first, fmt.Sprintf("d%d", i))
	}
	id := mustAllocate(t, driver.Identity{}, testVM("web", disksOf("pc", first...)), testHost(), rnd)
	_, _, err := Allocate(id, testVM("web", disksOf("pc", append(first, "more")...)), testHost(), rnd, argvNow)
	var refused *SpecError
	if !errors.As(err, &refused) || refused.Path != fmt.Sprintf("spec.disks[%d]", len(first)) || !strings.Contains(refused.Hint, "q35") {
		t.Errorf("error is %v", err)
	}
	// d3 and d7 leave; the newcomers take their places, lowest first.
	now := slices.DeleteFunc(slices.Clone(first), func(s string) bool { return s == "d3" || s == "d7" })
	next := mustAllocate(t, id, testVM("web", disksOf("pc", append(now, "x", "y")...)), testHost(), rnd)
	if next.Slots["x"] != id.Slots["d3"] || next.Slots["y"] != id.Slots["d7"] {
		t.Errorf("x at %+v and y at %+v", next.Slots["x"], next.Slots["y"])
	}
	if _, ok := next.Slots["d3"]; ok {
		t.Error("two names hold one place")
	}
}

func TestAllocate_sataFull_isAnErrorWithTheNumberOfPorts(t *testing.T) {
	s := manifest.VirtualMachineSpec{Machine: q35()}
	for i := range driver.SATAPorts + 1 {
		s.Disks = append(s.Disks, manifest.Disk{Name: fmt.Sprintf("cd%d", i), File: "/x.iso", Media: manifest.MediaCDROM})
	}
	_, _, err := Allocate(driver.Identity{}, testVM("web", s), testHost(), testRandom(), argvNow)
	if err == nil || !strings.Contains(err.Error(), "spec.disks[6]") || !strings.Contains(err.Error(), "6 ports") {
		t.Errorf("error is %v", err)
	}
}

// TestAllocate_placeTakenOver checks that taking over a place on one controller
// does not touch what the same name has on another.
func TestAllocate_placeTakenOver_leavesTheNamesOtherPlaces(t *testing.T) {
	rnd := testRandom()
	cd := func(name string) manifest.Disk {
		return manifest.Disk{Name: name, File: "/x.iso", Media: manifest.MediaCDROM}
	}
	s := manifest.VirtualMachineSpec{Machine: q35(), Disks: []manifest.Disk{cd("moved")}}
	id := mustAllocate(t, driver.Identity{}, testVM("web", s), testHost(), rnd)
	s.Disks = []manifest.Disk{sized("moved")}
	id = mustAllocate(t, id, testVM("web", s), testHost(), rnd)
	place, _ := driver.SlotOf(id.Slots, "moved", driver.SlotPort)
	for i := range driver.SATAPorts {
		s.Disks = append(s.Disks, cd(fmt.Sprintf("cd%d", i)))
	}
	id = mustAllocate(t, id, testVM("web", s), testHost(), rnd)
	if now, ok := driver.SlotOf(id.Slots, "moved", driver.SlotPort); !ok || now != place {
		t.Errorf("moved was at %+v and is at %+v", place, now)
	}
}

func TestReserved_addressesInTheManifest_areReadAsQEMUDoes(t *testing.T) {
	for addr, want := range map[any]int{"0x6": 6, "6": 6, "1f": 31, "0x1f.3": 31, "06.0": 6, 48: 6, 49: 6} {
		if got, ok := driver.DeviceNumber(manifest.ScalarOf(addr)); !ok || got != want {
			t.Errorf("deviceNumber(%v) = %d, %v, want %d", addr, got, ok, want)
		}
	}
	for _, addr := range []any{"20", "x", "", 256, -1, true} {
		if got, ok := driver.DeviceNumber(manifest.ScalarOf(addr)); ok {
			t.Errorf("deviceNumber(%v) = %d, want none", addr, got)
		}
	}
	vm := testVM("web", manifest.VirtualMachineSpec{Devices: []manifest.Device{
		{Name: "a", Driver: "e1000", Properties: props("addr", "0x5")},
		{Name: "b", Driver: "e1000", Properties: props("addr", "0x6", "bus", "pci.0")},
		{Name: "c", Driver: "e1000", Properties: props("addr", "0x7", "bus", "other")},
	}})
	if diff := cmp.Diff(map[int]bool{5: true, 6: true}, driver.ReservedSlots(&vm.Spec, driver.SlotPCI)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// drawSpec is a machine with any few disks, cdroms, nics and devices, in any order.
func drawSpec(t *rapid.T, board string) manifest.VirtualMachineSpec {
	s := manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: board}}
	if rapid.Bool().Draw(t, "cloudInit") {
		s.CloudInit = &manifest.CloudInit{}
	}
	cdroms := 0
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}), 0, 10, rapid.ID).Draw(t, "names")
	for _, name := range names {
		switch rapid.SampledFrom([]string{"disk", "cdrom", "nic", "device", "other"}).Draw(t, "kind") {
		case "disk":
			s.Disks = append(s.Disks, sized(name))
		case "cdrom":
			if cdroms++; board == "q35" && cdroms <= driver.SATAPorts {
				s.Disks = append(s.Disks, manifest.Disk{Name: name, File: "/x.iso", Media: manifest.MediaCDROM})
			}
		case "nic":
			s.NICs = append(s.NICs, userNIC(name))
		case "device":
			s.Devices = append(s.Devices, manifest.Device{Name: name, Driver: "virtio-rng-pci"})
		case "other":
			s.Devices = append(s.Devices, manifest.Device{Name: name, Driver: "pvpanic"})
		}
	}
	if rapid.Bool().Draw(t, "agent") {
		s.GuestAgent = &manifest.GuestAgent{}
	}
	return s
}

// TestAllocate_anyEdits_neverMoveAnything is the law of places: whatever is
// edited, no name that stays moves, no two share a place or an address, and
// doing it again changes nothing.
func TestAllocate_anyEdits_neverMoveAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var id driver.Identity
		rnd, host := testRandom(), testHost()
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			board := rapid.SampledFrom([]string{"q35", "pc"}).Draw(t, "board")
			vm := testVM("web", drawSpec(t, board))
			next, changed, err := Allocate(id, vm, host, rnd, argvNow)
			if err != nil {
				t.Fatal(err)
			}
			if changed == cmp.Equal(id, next) && len(id.Slots)+len(next.Slots) > 0 {
				t.Fatalf("changed is %v for %+v and %+v", changed, id, next)
			}
			checkPlaces(t, id, next, placements(vm, driver.BusFamilyOf(next.Machine.Type), host))
			if _, again, err := Allocate(next, vm, host, rnd, argvNow); err != nil || again {
				t.Fatalf("allocating again changed something: %v", err)
			}
			id = next
		}
	})
}

func checkPlaces(t *rapid.T, before, after driver.Identity, want []placement) {
	held := map[driver.Slot]string{}
	for _, p := range want {
		now, ok := driver.SlotOf(after.Slots, p.name, p.kind)
		if !ok {
			t.Fatalf("%s has no place", p.name)
		}
		if was, ok := driver.SlotOf(before.Slots, p.name, p.kind); ok && was != now {
			t.Fatalf("%s moved from %+v to %+v", p.name, was, now)
		}
		if other, ok := held[now]; ok {
			t.Fatalf("%s and %s share %+v", p.name, other, now)
		}
		held[now] = p.name
	}
	macs := map[string]string{}
	for nic, mac := range after.MACs {
		if was, ok := before.MACs[nic]; ok && was != mac {
			t.Fatalf("the address of %s changed", nic)
		}
		if other, ok := macs[mac]; ok {
			t.Fatalf("%s and %s share %s", nic, other, mac)
		}
		macs[mac] = nic
	}
}

// deviceLines are the options that make a machine's hardware, by the name they
// belong to.
func deviceLines(t *rapid.T, in RenderInput) map[string]string {
	cmd, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for i, word := range cmd.Argv {
		if word == "-device" || word == "-blockdev" || word == "-netdev" {
			lines[cmd.Argv[i+1]] = word
		}
	}
	return lines
}

// TestRender_anyDeviceRemoved checks the same law where it counts: on the
// command line, root ports included.
func TestRender_anyDeviceRemoved_leavesEveryOtherLineIdentical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		host := testHost()
		board := rapid.SampledFrom([]string{"q35", "pc"}).Draw(t, "board")
		vm := testVM("web", drawSpec(t, board))
		rnd := testRandom()
		id, _, err := Allocate(driver.Identity{}, vm, host, rnd, argvNow)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range vm.Spec.Disks {
			names = append(names, d.Name)
		}
		for _, n := range vm.Spec.NICs {
			names = append(names, n.Name)
		}
		for _, d := range vm.Spec.Devices {
			names = append(names, d.Name)
		}
		if len(names) == 0 {
			return
		}
		gone := rapid.SampledFrom(names).Draw(t, "gone")
		less := vm.DeepCopy()
		less.Spec.Disks = slices.DeleteFunc(less.Spec.Disks, func(d manifest.Disk) bool { return d.Name == gone })
		less.Spec.NICs = slices.DeleteFunc(less.Spec.NICs, func(n manifest.NIC) bool { return n.Name == gone })
		less.Spec.Devices = slices.DeleteFunc(less.Spec.Devices, func(d manifest.Device) bool { return d.Name == gone })
		next, _, err := Allocate(id, less, host, rnd, argvNow)
		if err != nil {
			t.Fatal(err)
		}
		before := deviceLines(t, RenderInput{VM: vm, Identity: id, Host: host, Layout: testLayout(), Kinds: testKinds()})
		after := deviceLines(t, RenderInput{VM: less, Identity: next, Host: host, Layout: testLayout(), Kinds: testKinds()})
		for line := range after {
			if before[line] == "" {
				t.Fatalf("without %s there is a new line: %s", gone, line)
			}
			delete(before, line)
		}
		for line := range before {
			if !strings.Contains(line, `"`+gone+`"`) && !strings.Contains(line, `"`+gone+`.`) {
				t.Fatalf("without %s this line is gone: %s", gone, line)
			}
		}
	})
}
