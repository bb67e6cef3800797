package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
)

// A restore takes what was first, and comes to what was then.
func TestRestoreSnapshot_running_takesWhatIsFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "then"}); err != nil {
			w.Fatal(err)
		}
		result, err := w.engine.RestoreSnapshot(w.Context(), RestoreRequest{VM: "web", Name: "then", Safety: "now"})
		if err != nil || result.Status.Phase != PhaseRunning || w.record("web").Restore != nil {
			w.Errorf("restored: %+v, %v", result, err)
		}
		w.expectCalls("web create root", "web start", "web take then Full", "web finish then",
			"web take now Full", "web finish now", "web load then", "web finish-load then", "web paused false")
	})
}

// What cannot be restored is refused before anything is done, and leaves no wish.
func TestRestoreSnapshot_refused_leavesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "disks", Method: manifest.SnapshotDisk}); err != nil {
			w.Fatal(err)
		}
		before := len(w.host.called())
		for name, want := range map[string]string{"none": "no such", "disks": "--stop"} {
			_, err := w.engine.RestoreSnapshot(w.Context(), RestoreRequest{VM: "web", Name: name, Safety: "now"})
			if err == nil || !strings.Contains(err.Error(), want) {
				w.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		if calls := w.host.called()[before:]; len(calls) > 0 || w.record("web").Restore != nil {
			w.Errorf("done: %v, wish %+v", calls, w.record("web").Restore)
		}
	})
}

// A load that fails ends that QEMU, and the machine is started cold.
func TestRestoreSnapshot_loadFails_startsCold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web"))
		if _, err := w.engine.CreateSnapshot(w.Context(), SnapshotRequest{VM: "web", Name: "then"}); err != nil {
			w.Fatal(err)
		}
		before := len(w.host.called())
		time.AfterFunc(time.Second, func() {
			w.host.touch("web", func(m *simMachine) {
				for i := range m.obs.Guest.Jobs {
					m.obs.Guest.Jobs[i].Status, m.obs.Guest.Jobs[i].Error = "concluded", "no luck"
				}
			})
		})
		result, err := w.engine.RestoreSnapshot(w.Context(), RestoreRequest{VM: "web", Name: "then"})
		if err == nil || !strings.Contains(err.Error(), "no luck") || result.Status.Phase != PhaseRunning {
			w.Errorf("restored: %s, %v", result.Status.Phase, err)
		}
		if diff := cmp.Diff([]string{"web load then", "web quit", "web start"}, w.host.called()[before:]); diff != "" {
			w.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}
