package reconcile

import (
	"testing"
	"time"

	"github.com/maqet/maqet/manifest"
)

// TestController_hungMachineAnswersAgain_isMadeAsItsFileSays has nobody tell that
// QEMU answers again: a frozen process that goes on sends no event.
func TestController_hungMachineAnswersAgain_isMadeAsItsFileSays(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		w.host.set(func() { w.host.hung["a"] = true })
		w.put("a.yaml", newVM("a", func(s *manifest.VirtualMachineSpec) { s.PowerState = manifest.PowerPaused }))
		w.passes(40 * time.Second)
		w.mu.Lock()
		phases := w.status.Phases
		w.mu.Unlock()
		if phases[PhaseUnresponsive] != 1 {
			t.Fatalf("phases: %+v", phases)
		}
		w.host.set(func() { w.host.hung["a"] = false })
		w.passes(20 * time.Second)
		if got := w.runs()["a"]; got != runPaused {
			t.Errorf("once it answers again it is %s, want %s", got, runPaused)
		}
	})
}
