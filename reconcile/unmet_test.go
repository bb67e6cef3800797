package reconcile

import (
	"context"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// stubborn is a host whose QEMU has more memory than it was started for, as
// when an extra argument overrides the manifest's.
type stubborn struct{ *simHost }

func (h stubborn) Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error) {
	first, err := h.simHost.Start(ctx, req)
	h.touch(req.VM.Metadata.Name, func(m *simMachine) {
		if m.obs.Guest != nil {
			m.obs.Guest.Memory = 3 << 30
		}
	})
	return first, err
}

func TestApply_restartThatChangesNothing_isNotRepeated(t *testing.T) {
	inWorld(t, func(w *world) {
		ports := w.host.ports()
		ports.Power = stubborn{w.host}
		w.engine = NewEngine(Config{Ports: ports, Store: w.store, Timing: timing.Default(), Who: "test", BootID: "boot-1"})
		vm := newVM("web", func(s *manifest.VirtualMachineSpec) { s.Memory.Size = 1 << 30 })
		starts := func() (n int) {
			for _, call := range w.host.called() {
				if call == "web start" {
					n++
				}
			}
			return n
		}
		for range 3 {
			report := w.apply(ApplyOptions{Options: Options{AllowRestart: true}}, vm)
			problems := report.Results[0].Plan.Problems
			if !report.Failed || len(problems) != 1 || problems[0].Reason != ReasonNotAsStarted || !strings.Contains(problems[0].Message, "spec.memory.size") {
				t.Errorf("report: %+v", report)
			}
			if report.Results[0].Status.Phase != PhaseRunning {
				t.Errorf("phase %s", report.Results[0].Status.Phase)
			}
		}
		if n := starts(); n != 1 {
			t.Fatalf("started %d times: %v", n, w.host.called())
		}
		// Another spec is worth another try, and drift of what was met is corrected.
		vm.Spec.CPU = &manifest.CPU{Count: 2}
		w.apply(ApplyOptions{Options: Options{AllowRestart: true}}, vm)
		if n := starts(); n != 2 {
			t.Errorf("after a change of the spec: %d starts, want 2", n)
		}
		w.host.touch("web", func(m *simMachine) { m.obs.Guest.CPUs = 4 })
		w.apply(ApplyOptions{Options: Options{AllowRestart: true}}, vm)
		if n := starts(); n != 3 {
			t.Errorf("after drift: %d starts, want 3", n)
		}
	})
}
