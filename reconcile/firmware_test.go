package reconcile

import (
	"slices"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func withUEFI(s *manifest.VirtualMachineSpec) { s.Firmware = &manifest.Firmware{UEFI: true} }

// noNVRAM is a look that finds nothing where the NVRAM should be.
func (s *scene) noNVRAM() *scene {
	if s.obs.Files == nil {
		s.obs.Files = map[string]driver.DiskFile{}
	}
	node := driver.FirmwareUEFI.NVRAMNode()
	s.obs.Files[node] = driver.DiskFile{Path: "/state/disks/web/uefi.nvram"}
	return s
}

// TestStart_nvramOfTheLastStartGone_isNotMadeAnew holds that what firmware remembers is
// not replaced by an empty one.
func TestStart_nvramOfTheLastStartGone_isNotMadeAnew(t *testing.T) {
	before := func(s *scene) *scene { return s.down(driver.EndSignal).recorded() }
	for _, c := range []struct {
		name  string
		scene *scene
		want  string
	}{
		{"there", before(newScene(withUEFI).noNVRAM().up()), "start;"},
		{"gone", before(newScene(withUEFI).noNVRAM().up()).noNVRAM(), "!" + ReasonDiskLost},
		{"gone, and the spec is another", before(newScene(withUEFI).noNVRAM().up()).noNVRAM().edit(func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }), "!" + ReasonDiskLost},
		{"not looked at", before(newScene(withUEFI).up()), "start;"},
		{"started without it meanwhile", before(newScene().up()).noNVRAM().edit(withUEFI), "identity; start;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.scene.now = c.scene.now.Add(manifest.DefaultShutdownTimeout.Or(0))
			if got := summary(c.scene.plan()); got != c.want {
				t.Errorf("the plan is %s, want %s", got, c.want)
			}
		})
	}
	s := newScene(withUEFI).noNVRAM().up()
	if !slices.Contains(s.want.Machine.StartedDisks, driver.FirmwareUEFI.NVRAMNode()) {
		t.Errorf("the disks of the start are %v", s.want.Machine.StartedDisks)
	}
}

func TestFirmware_change_needsARestart(t *testing.T) {
	for _, s := range []*scene{newScene().up().edit(withUEFI), newScene(withUEFI).up().edit(func(s *manifest.VirtualMachineSpec) { s.Firmware = nil })} {
		plan := s.plan()
		if len(plan.Changes) != 1 || plan.Changes[0].Path != "spec.firmware.uefi" || plan.Changes[0].Class != ClassRestart || len(plan.Steps) != 0 {
			t.Errorf("changes %+v, steps %s", plan.Changes, summary(plan))
		}
	}
}

func TestTPM_lost_isAProblemAndTheGuestRunsOn(t *testing.T) {
	withTPM := func(s *manifest.VirtualMachineSpec) { s.TPM = &manifest.TPM{} }
	s := newScene(withTPM).up()
	if got := summary(s.plan()); got != "" {
		t.Errorf("with its TPM the plan is %s", got)
	}
	s.obs.TPMLost = true
	if got := summary(s.plan()); got != "!"+ReasonTPMLost {
		t.Errorf("without its TPM the plan is %s", got)
	}
	s.obs.TPMLost = false
	plan := s.edit(func(s *manifest.VirtualMachineSpec) { s.TPM = nil }).plan()
	if len(plan.Changes) != 1 || plan.Changes[0].Path != "spec.tpm" || plan.Changes[0].Class != ClassRestart {
		t.Errorf("changes are %+v", plan.Changes)
	}
}
