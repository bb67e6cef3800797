package reconcile

import (
	"testing"
	"time"

	"github.com/maqet/maqet/state"
)

// TestController_deleteLeftByAnother_isSeenThroughAndTheFileTaken has a watch killed
// right before it forgets a machine whose file is there again.
func TestController_deleteLeftByAnother_isSeenThroughAndTheFileTaken(t *testing.T) {
	controlled(t, []string{"a", "b"}, ApplyOptions{Prune: true}, func(w *simWorld) {
		w.end()
		if _, err := w.cli().change(w.t.Context(), "delete", "b", func(m *state.Machine) error {
			m.Deleting = &state.Deletion{Since: time.Now(), Who: "the last watch", Prune: true}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		w.host.touch("b", func(m *simMachine) { m.end("") })
		w.begin()
		w.passes(10 * time.Second)
		w.expectRuns("a", "b")
		if n := w.count("b forget false"); n != 1 {
			t.Errorf("forgotten %d times, want once", n)
		}
	})
}
