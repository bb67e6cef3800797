package reconcile

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/maqet/maqet/manifest"
)

// TestLaws_reordered_needsNoRestart shuffles what has no order.
func TestLaws_reordered_needsNoRestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newScene(rich, func(s *manifest.VirtualMachineSpec) {
			for i := range rapid.IntRange(0, 4).Draw(t, "disks") {
				s.Disks = append(s.Disks, manifest.Disk{Name: fmt.Sprintf("d%d", i), Size: 1 << 20})
			}
		}).up()
		s.edit(func(spec *manifest.VirtualMachineSpec) {
			spec.Disks = rapid.Permutation(spec.Disks).Draw(t, "disks")
			spec.NICs = rapid.Permutation(spec.NICs).Draw(t, "nics")
			for i := range spec.NICs {
				if u := spec.NICs[i].User; u != nil {
					u.Forward = rapid.Permutation(u.Forward).Draw(t, "forwards")
				}
			}
		})
		s.want.Machine.Object.Metadata.Labels = rapid.MapOf(rapid.StringMatching("[a-z]+"), rapid.StringMatching("[a-z]*")).Draw(t, "labels")
		s.opt.AllowRestart = true
		if p := s.plan(); !p.Empty() {
			t.Fatalf("only the order and labels changed, yet: %s %v", summary(p), p.Changes)
		}
	})
}

// TestLaws_forecast_isBoundedAndTouchesNothing holds forecasts of machines in
// any state to ending settled and to leaving what they were given as it was.
func TestLaws_forecast_isBoundedAndTouchesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &walker{scene: newScene(), t: t}
		events := w.events()
		names := []string{"crash", "hold", "memory", "pass 00", "pass 01", "pass 02", "power off", "power state", "snapshot", "unresponsive"}
		for range rapid.IntRange(0, 20).Draw(t, "events") {
			if w.want.Machine == nil {
				return
			}
			events[rapid.SampledFrom(names).Draw(t, "event")]()
		}
		if w.want.Machine == nil {
			return
		}
		before := summary(w.plan())
		plans := Forecast(w.want, w.obs, w.opt, w.now)
		if last := plans[len(plans)-1]; !last.Settled() && len(plans) >= maxForecast {
			t.Fatalf("the forecast does not end: %s", summary(last))
		}
		if after := summary(w.plan()); after != before {
			t.Fatalf("forecasting changed the machine: %s, before: %s", after, before)
		}
	})
}
