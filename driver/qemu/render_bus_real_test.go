package qemu

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
)

// drivePlace is where QEMU says a drive sits, in the words of its bus.
func drivePlace(t testing.TB, run *realRun, name string, bus manifest.Bus) string {
	t.Helper()
	path := peripherals + "/" + name
	switch bus {
	case manifest.BusVirtio, manifest.BusNVMe:
		return fmt.Sprint(run.property(t, path, "parent_bus"), " ", run.property(t, path, "addr"))
	case manifest.BusVirtioSCSI:
		return fmt.Sprint(run.property(t, path, "parent_bus"), " ", run.property(t, path, "scsi-id"))
	case manifest.BusUSB:
		bridge := peripherals + "/" + bridgeID(name)
		return fmt.Sprint(run.property(t, bridge, "parent_bus"), " ", run.property(t, bridge, "port"))
	case manifest.BusSATA:
		place := fmt.Sprint(run.property(t, path, "parent_bus"))
		return place[strings.LastIndex(place, "/")+1:]
	}
	t.Fatalf("no bus %s", bus)
	return ""
}

// controllerPlaces are where the controllers of the machine sit.
func controllerPlaces(t testing.TB, run *realRun, vm *manifest.VirtualMachine) map[string]string {
	t.Helper()
	places := map[string]string{}
	for _, c := range controllers(vm) {
		places[c.id] = drivePlace(t, run, c.id, manifest.BusVirtio)
	}
	return places
}

// TestRender_realQEMU_everyBus_aMiddleDiskRemovedMovesNothing runs each machine of
// busCases as it was, and as it became.
func TestRender_realQEMU_everyBus_aMiddleDiskRemovedMovesNothing(t *testing.T) {
	for bus, boards := range allBuses {
		for _, board := range boards {
			c := busCase(bus, board)
			t.Run(c.name, func(t *testing.T) {
				binary := "qemu-system-x86_64"
				if board.arm {
					binary = "qemu-system-aarch64"
				}
				host := realHostOf(t, binary)
				places := func(c argvCase) map[string]string {
					c.paused = true
					in := realInput(t, c, host)
					run := startReal(t, in)
					defer run.stop()
					all := controllerPlaces(t, run, in.VM)
					for _, d := range in.VM.Spec.Disks {
						all[d.Name] = drivePlace(t, run, d.Name, bus)
					}
					return all
				}
				before := places(argvCase{name: c.name, spec: c.earlier})
				after := places(c)
				if before["swap"] == "" || after["later"] == "" || after["later"] == before["swap"] {
					t.Errorf("swap was at %q, and later is at %q", before["swap"], after["later"])
				}
				delete(before, "swap")
				delete(after, "later")
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("removing a disk moved others (-before +after):\n%s", diff)
				}
				seen := map[string]bool{}
				for _, place := range slices.Collect(maps.Values(after)) {
					if seen[place] {
						t.Errorf("two drives are at %s", place)
					}
					seen[place] = true
				}
			})
		}
	}
}
