package reconcile

import (
	"slices"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func sharing(s *manifest.VirtualMachineSpec) {
	s.Memory = &manifest.Memory{Size: 64 << 20}
	s.Filesystems = []manifest.Filesystem{{Name: "src", Path: "/src"}, {Name: "docs", Path: "/docs", Driver: manifest.Filesystem9P}}
}

// TestFilesystems_changes_needARestart changes each part of a filesystem.
func TestFilesystems_changes_needARestart(t *testing.T) {
	type spec = manifest.VirtualMachineSpec
	for _, c := range []struct {
		name string
		edit func(*spec)
		want []string
	}{
		{"nothing", func(*spec) {}, nil},
		{"in another order", func(s *spec) { slices.Reverse(s.Filesystems) }, nil},
		{"the driver said", func(s *spec) { s.Filesystems[0].Driver = manifest.FilesystemVirtioFS }, nil},
		{"another folder", func(s *spec) { s.Filesystems[0].Path = "/other" }, []string{"spec.filesystems[src].path"}},
		{"another driver", func(s *spec) { s.Filesystems[0].Driver = manifest.Filesystem9P }, []string{"spec.filesystems[src].driver"}},
		{"read-only", func(s *spec) { s.Filesystems[1].ReadOnly = true }, []string{"spec.filesystems[docs].readOnly"}},
		{"one removed", func(s *spec) { s.Filesystems = s.Filesystems[:1] }, []string{"spec.filesystems[docs]"}},
		{"one more", func(s *spec) { s.Filesystems = append(s.Filesystems, manifest.Filesystem{Name: "new", Path: "/new"}) }, []string{"spec.filesystems[new]"}},
		{"none", func(s *spec) { s.Filesystems = nil }, []string{"spec.filesystems[docs]", "spec.filesystems[src]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := newScene(sharing).up().edit(c.edit).plan()
			var got []string
			for _, ch := range plan.Changes {
				got = append(got, ch.Path)
				if ch.Class != ClassRestart || !ch.Pending {
					t.Errorf("change %+v, want one that waits for a restart", ch)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) || len(plan.Steps) != 0 {
				t.Errorf("changes %v, want %v; steps %s", got, c.want, summary(plan))
			}
		})
	}
}

func TestFilesystems_pluggedByHand_isDrift(t *testing.T) {
	s := newScene(sharing).up()
	s.obs.Guest.Filesystems = append(s.obs.Guest.Filesystems, driver.GFilesystem{Name: "x", Driver: "9p"})
	s.obs.Guest.Filesystems[0].Driver = "9p"
	plan := s.plan()
	if len(plan.Changes) != 2 || !plan.Changes[0].Drift || !plan.Changes[1].Drift {
		t.Errorf("changes %+v", plan.Changes)
	}
}

func TestFilesystems_lost_isAProblemAndTheGuestRunsOn(t *testing.T) {
	s := newScene(sharing).up()
	s.obs.FilesystemsLost = []string{"src"}
	if got := summary(s.plan()); got != "!"+ReasonFilesystemLost {
		t.Errorf("without its folder the plan is %s", got)
	}
}

func TestCreateSnapshot_besideFilesystems_isOfDisksUnlessSaid(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web", sharing))
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "a"}); err != nil {
			t.Error(err)
		}
		w.expectCalls("web create root", "web start", "web take a Disk")
	})
}
