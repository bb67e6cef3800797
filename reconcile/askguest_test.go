package reconcile

import (
	"errors"
	"slices"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// TestViews_guestAgent_isAskedOnlyWhereOneListens checks who is asked, and that nobody
// is who cannot answer.
func TestViews_guestAgent_isAskedOnlyWhereOneListens(t *testing.T) {
	withPort := func(s *manifest.VirtualMachineSpec) { s.GuestAgent = &manifest.GuestAgent{} }
	for _, c := range []struct {
		name  string
		depth driver.Depth
		touch func(m *simMachine)
		asked bool
	}{
		{"it listens", driver.DepthFull, func(m *simMachine) { m.obs.Guest.Agent.Open = true }, true},
		{"only little is looked at", driver.DepthBrief, func(m *simMachine) { m.obs.Guest.Agent.Open = true }, false},
		{"no agent", driver.DepthFull, func(m *simMachine) { m.hears(false) }, false},
		{"paused", driver.DepthFull, func(m *simMachine) { m.obs.Guest.Agent.Open, m.obs.Guest.RunState = true, runPaused }, false},
		{"frozen", driver.DepthFull, func(m *simMachine) {
			m.obs.Guest.Agent.Open, m.obs.Freeze = true, &driver.Freeze{Held: true}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.apply(ApplyOptions{}, newVM("web", withPort))
				w.host.touch("web", c.touch)
				views, err := w.engine.Views(w.Context(), nil, c.depth)
				if err != nil || len(views) != 1 {
					t.Fatal(views, err)
				}
				if asked := slices.Contains(w.host.called(), "web ask-guest"); asked != c.asked {
					t.Errorf("asked: %v, want %v", asked, c.asked)
				}
				if g := views[0].Status.Guest; (g != nil) != c.asked {
					t.Errorf("guest: %+v", g)
				}
			})
		})
	}
}

// TestViews_silentAgent_failsNoLook has an agent that does not answer.
func TestViews_silentAgent_failsNoLook(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web", func(s *manifest.VirtualMachineSpec) { s.GuestAgent = &manifest.GuestAgent{} }))
		w.host.touch("web", func(m *simMachine) { m.obs.Guest.Agent.Open = true })
		w.host.fail["web ask-guest"] = errors.New("silent")
		views, err := w.engine.Views(w.Context(), nil, driver.DepthFull)
		if err != nil || views[0].Status.Guest != nil || views[0].Status.Phase != PhaseRunning {
			t.Errorf("views %+v, error %v", views[0].Status, err)
		}
	})
}
