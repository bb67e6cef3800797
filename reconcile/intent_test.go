package reconcile

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// TestConverge_voidIntent_isReplacedWithoutAWord has a stop begin while an intent
// is there that no longer counts: that one is gone then, which is no failure.
func TestConverge_voidIntent_isReplacedWithoutAWord(t *testing.T) {
	more := func(s *manifest.VirtualMachineSpec) { s.Memory.Size *= 2 }
	for name, c := range map[string]struct {
		uid  string
		vm   *manifest.VirtualMachine
		then []string
	}{
		"of another process, and the machine is stopped": {uid: "another", vm: newVM("web", stopped()), then: []string{"web powerdown"}},
		"over, and the machine is restarted":             {vm: newVM("web", more), then: []string{"web powerdown", "web start"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.apply(ApplyOptions{}, newVM("web"))
				before := len(w.host.called())
				w.host.touch("web", func(m *simMachine) {
					in := &driver.Intent{Kind: driver.IntentStop, Stage: driver.StagePowerdown, Since: time.Now(), Deadline: time.Now(), UID: c.uid}
					if in.UID == "" {
						in.UID = m.obs.Identity.UID
					}
					m.obs.Intent = in
				})
				report := w.apply(ApplyOptions{Options: Options{AllowRestart: true}}, c.vm)
				if report.Failed {
					t.Errorf("%+v", report.Results)
				}
				if diff := cmp.Diff(c.then, w.host.called()[before:]); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
}
