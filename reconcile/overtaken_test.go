package reconcile

import (
	"errors"
	"testing"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func TestSetPower_somebodysNewerWord_isNoSuccess(t *testing.T) {
	words := map[string]func(w *world){
		"released": func(w *world) {
			_, err := w.engine.change(w.Context(), "release", "web", func(m *state.Machine) error { m.Hold = nil; return nil })
			if err != nil {
				w.Error(err)
			}
		},
		"deleted": func(w *world) {
			if _, err := w.newEngine().Delete(w.Context(), "web", DeleteOptions{}); err != nil {
				w.Error(err)
			}
		},
	}
	for name, say := range words {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.apply(ApplyOptions{}, newVM("web"))
				said := false
				w.host.observed = func(string) {
					if !said {
						said = true
						say(w)
					}
				}
				result, err := w.engine.SetPower(w.Context(), "web", PowerRequest{PowerState: manifest.PowerStopped}, Options{})
				if !errors.Is(err, ErrOvertaken) || !errors.Is(result.Err, ErrOvertaken) {
					t.Errorf("stop = %v, with the machine %s", err, result.Status.Phase)
				}
			})
		})
	}
}
