package reconcile

import (
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
)

// TestController_processesOfShortLife_areAllListenedTo has each process end soon.
// The next one is another, and what it says of its end must not go unheard: an
// unheard end reads as a guest that powered itself off.
func TestController_processesOfShortLife_areAllListenedTo(t *testing.T) {
	controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
		for i := range 5 {
			w.crash("a", driver.EndQuit)
			w.passes(200 * time.Millisecond)
			w.expectRuns("a")
			c := w.process.controller
			c.mu.Lock()
			listening := c.machines["a"].listening
			c.mu.Unlock()
			if !listening {
				t.Errorf("process %d is not listened to", i+2)
			}
		}
	})
}
