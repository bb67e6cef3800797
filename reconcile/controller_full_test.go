package reconcile

import (
	"errors"
	"testing"
	"time"
)

// TestController_onlyManifestsCannotBeWritten_saysSoUntilThatIsOver fills the disk
// while nothing happens to any machine: then nothing is kept in memory, and a retry
// that has nothing to write proves nothing.
func TestController_onlyManifestsCannotBeWritten_saysSoUntilThatIsOver(t *testing.T) {
	for name, c := range map[string]struct {
		over func(w *simWorld)
		runs []string
	}{
		"there is room again":      {func(w *simWorld) { w.disk.setFail(nil) }, []string{"a", "b"}},
		"the manifest is reverted": {func(w *simWorld) { w.change(func() { delete(w.files, "b.yaml") }) }, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			controlled(t, []string{"a"}, ApplyOptions{}, func(w *simWorld) {
				w.disk.setFail(errors.New("no space left on device"))
				w.put("b.yaml", newVM("b"))
				for range 60 {
					w.passes(time.Second)
					if !w.has(ConditionStateNotWritten) {
						t.Fatalf("the disk is full, and it says: %+v", w.told().Conditions)
					}
				}
				c.over(w)
				w.passes(2 * time.Minute)
				w.expectRuns(c.runs...)
				if w.has(ConditionStateNotWritten) {
					t.Errorf("it is over, and it says: %+v", w.told().Conditions)
				}
			})
		})
	}
}
