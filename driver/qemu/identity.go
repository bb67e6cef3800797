package qemu

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Allocate returns id with everything vm needs and id does not have yet: the
// uuid, the versioned machine type, a MAC for each nic that names none, a slot
// for each disk, nic and device that sits in one. Changed tells whether next
// differs from id, and must be stored before it is used.
//
// What id has already is never changed. Names that are no longer in the spec
// keep their entries, so that a device that comes back is found where it was;
// only when no other place is free does a new device take over the place of a
// name that is gone. Two things make an exception: the machine type is resolved
// anew when the manifest names another type or emulator, and a generated MAC is
// replaced when the manifest has given that address to another nic.
func Allocate(id driver.Identity, vm *manifest.VirtualMachine, host driver.Host, rnd io.Reader, now time.Time) (next driver.Identity, changed bool, err error) {
	next = id
	next.MACs, next.Slots = maps.Clone(id.MACs), maps.Clone(id.Slots)
	if next.MACs == nil {
		next.MACs = map[string]string{}
	}
	if next.Slots == nil {
		next.Slots = map[string]driver.Slot{}
	}
	if next.Version == 0 {
		next.Version = driver.IdentityVersion
	}
	if next.UID == "" {
		if err := allocateUID(&next, vm, rnd, now); err != nil {
			return id, false, err
		}
	}
	if next.Machine, err = resolveMachine(id.Machine, vm, host); err != nil {
		return id, false, err
	}
	if err := allocateMACs(next.MACs, vm, rnd); err != nil {
		return id, false, err
	}
	if err := allocateSlots(next.Slots, vm, placements(vm, driver.BusFamilyOf(next.Machine.Type), host)); err != nil {
		return id, false, err
	}
	changed = next.Version != id.Version || next.UID != id.UID || next.Machine != id.Machine ||
		!sameEntries(next.MACs, id.MACs) || !sameEntries(next.Slots, id.Slots)
	return next, changed, nil
}

// sameEntries compares maps; no map is an empty one.
func sameEntries[V comparable](a, b map[string]V) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

func allocateUID(id *driver.Identity, vm *manifest.VirtualMachine, rnd io.Reader, now time.Time) error {
	uid, err := uuid.NewRandomFromReader(rnd)
	if err != nil {
		return randomError(vm, err)
	}
	id.UID, id.Created = uid.String(), now.UTC()
	return nil
}

func randomError(vm *manifest.VirtualMachine, err error) error {
	return &SpecError{VM: vm.Metadata.Name, Msg: "no random numbers for a new identity", Err: err, Hint: "try again"}
}

// emulatorName is what the manifest calls the emulator, without its folder. It
// is not the name of the file that a link leads to, which a package upgrade may change.
func emulatorName(vm *manifest.VirtualMachine, host driver.Host) string {
	if e := vm.Spec.Emulator; e != nil && e.Binary != "" {
		return filepath.Base(e.Binary)
	}
	return emulatorPrefix + host.Arch
}

// resolveMachine keeps the versioned type for as long as the manifest names the
// same board of the same emulator.
func resolveMachine(old driver.ResolvedMachine, vm *manifest.VirtualMachine, host driver.Host) (driver.ResolvedMachine, error) {
	next := driver.ResolvedMachine{Binary: emulatorName(vm, host)}
	if m := vm.Spec.Machine; m != nil {
		next.Wanted = m.Type
	}
	if old.Type != "" && old.Wanted == next.Wanted && old.Binary == next.Binary {
		return old, nil
	}
	wanted := next.Wanted
	if wanted == "" {
		wanted = host.DefaultMachine
	}
	if wanted == "" {
		return old, &SpecError{
			VM: vm.Metadata.Name, Path: "spec.machine.type",
			Msg:  fmt.Sprintf("%s has no default machine type", next.Binary),
			Hint: "name one, such as virt",
		}
	}
	board, ok := host.Machines[wanted]
	if !ok {
		return old, &SpecError{
			VM: vm.Metadata.Name, Path: "spec.machine.type",
			Msg:  fmt.Sprintf("%s %s has no machine type %q", next.Binary, host.Version, wanted),
			Hint: suggest(wanted, slices.Sorted(maps.Keys(host.Machines)), fmt.Sprintf("%s -machine help lists them", next.Binary)),
		}
	}
	next.Type = board.Name
	return next, nil
}

// macPrefix is the block of locally used addresses that QEMU's own defaults come
// from; network tools know it.
var macPrefix = [3]byte{0x52, 0x54, 0x00}

// allocateMACs adds an address for each nic that names none.
func allocateMACs(macs map[string]string, vm *manifest.VirtualMachine, rnd io.Reader) error {
	named := map[string]bool{}
	for _, nic := range vm.Spec.NICs {
		if nic.MAC != "" {
			named[nic.MAC] = true
		}
	}
	taken := maps.Clone(named)
	for _, mac := range macs {
		taken[mac] = true
	}
	for _, nic := range vm.Spec.NICs {
		if nic.MAC != "" || macs[nic.Name] != "" && !named[macs[nic.Name]] {
			continue
		}
		mac, err := freeMAC(taken, rnd)
		if err != nil {
			return randomError(vm, err)
		}
		macs[nic.Name], taken[mac] = mac, true
	}
	return nil
}

// freeMAC draws addresses until one is not taken.
func freeMAC(taken map[string]bool, rnd io.Reader) (string, error) {
	// A working source of random numbers hits one of a machine's few addresses
	// once in millions of draws; a constant one must not be asked for ever.
	const draws = 16
	for range draws {
		var b [3]byte
		if _, err := io.ReadFull(rnd, b[:]); err != nil {
			return "", err
		}
		mac := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", macPrefix[0], macPrefix[1], macPrefix[2], b[0], b[1], b[2])
		if !taken[mac] {
			return mac, nil
		}
	}
	return "", fmt.Errorf("%d draws gave only addresses that are taken", draws)
}
