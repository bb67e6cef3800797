package reconcile

import (
	"testing"

	"github.com/maqet/maqet/manifest"
)

// TestApply_diskOfTheLastStartGone_isNotMadeAnew loses a disk while the machine is
// stopped and its manifest changes, so that this spec was never started.
func TestApply_diskOfTheLastStartGone_isNotMadeAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		stopped := power(manifest.PowerStopped)
		w.apply(ApplyOptions{}, newVM("web"))
		w.apply(ApplyOptions{}, newVM("web", stopped))
		w.host.touch("web", func(m *simMachine) { delete(m.obs.Files, "root") })
		larger := func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }
		report := w.apply(ApplyOptions{}, newVM("web", larger))
		if got := summary(report.Results[0].Plan); got != "!"+ReasonDiskLost {
			t.Errorf("plan %q", got)
		}
		w.expectCalls("web create root", "web start", "web powerdown")
	})
}
