package e2e_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/manifest"
)

func TestExamples_everyFile_loadsAndBootsTheTinyGuest(t *testing.T) {
	t.Parallel()
	g := guest.Path(t)
	root, err := guest.Root()
	if err != nil {
		t.Fatal(err)
	}
	set, err := manifest.Load(t.Context(), []string{filepath.Join(root, "examples")}, manifest.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range manifest.Admit(set.Objects, nil, manifest.HostFacts{}) {
		t.Error(fault)
	}
	var names []string
	for _, vm := range set.VMs() {
		names = append(names, "vm/"+vm.Metadata.Name)
		if vm.Spec.Emulator != nil && len(vm.Spec.Emulator.Accelerators) > 0 {
			t.Errorf("%s asks for accelerators %v; an example must run on every host", vm.Metadata.Name, vm.Spec.Emulator.Accelerators)
		}
		kernel := vm.Spec.Boot.Kernel
		if diff := cmp.Diff([]string{g.Kernel, g.Initrd}, []string{kernel.Image, kernel.Initrd}); diff != "" {
			t.Errorf("%s boots another kernel (-want +got):\n%s", vm.Metadata.Name, diff)
		}
	}
	for _, image := range set.Images() {
		names = append(names, "image/"+image.Metadata.Name)
		// An example works without a network.
		if image.Spec.IsURL() {
			t.Errorf("%s is fetched from %s", image.Metadata.Name, image.Spec.Source)
		}
	}
	for _, snapshot := range set.Snapshots() {
		names = append(names, "snapshot/"+snapshot.Metadata.Name)
	}
	if diff := cmp.Diff([]string{"vm/app", "vm/db", "vm/greeting", "vm/ledger", "vm/store", "vm/web", "image/greeting", "snapshot/first"}, names); diff != "" {
		t.Errorf("objects of the examples (-want +got):\n%s", diff)
	}
}
