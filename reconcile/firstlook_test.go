package reconcile

import (
	"context"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
)

// telling is a host whose starts look at what they have started.
type telling struct {
	*simHost
	// wrong falsifies what the start tells.
	wrong func(*driver.Observed)
}

func (h telling) Start(ctx context.Context, req driver.StartRequest) (*driver.Observed, error) {
	if _, err := h.simHost.Start(ctx, req); err != nil {
		return nil, err
	}
	o := h.Observe(ctx, req.VM.Metadata.Name, req.VM, driver.DepthFull)
	if h.wrong != nil {
		h.wrong(&o)
	}
	return &o, nil
}

func TestApply_startTellsWhatItSees_isConfirmedByThat(t *testing.T) {
	inWorld(t, func(w *world) {
		looks := 0
		w.host.observed = func(string) { looks++ }
		w.engine.cfg.Ports.Power = telling{simHost: w.host}
		report := w.apply(ApplyOptions{}, newVM("web"))
		if r := report.Results[0]; r.Err != nil || r.Status.Phase != PhaseRunning || !strings.Contains(r.Steps[len(r.Steps)-1].Message, "QEMU says running") {
			t.Errorf("result %+v", r)
		}
		if looks != 2 {
			t.Errorf("%d looks, want one before the start and the one that the start took itself", looks)
		}
	})
}

func TestApply_startSeesNoGuest_isNotConfirmed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.cfg.Ports.Power = telling{w.host, func(o *driver.Observed) {
			o.Presence, o.Guest, o.Message = driver.Unresponsive, nil, "no answer"
		}}
		report := w.apply(ApplyOptions{}, newVM("web"))
		if r := report.Results[0]; r.Err == nil || !report.Failed {
			t.Errorf("result %+v, want a start that is not confirmed", r)
		}
	})
}

func TestExecution_stepAfterAStart_isLookedAtAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		w.apply(ApplyOptions{}, newVM("web", stopped()))
		looks := 0
		w.host.observed = func(string) { looks++ }
		w.engine.cfg.Ports.Power = telling{simHost: w.host}
		r := w.engine.newRun("web", Options{})
		if err := r.read(w.Context()); err != nil {
			t.Fatal(err)
		}
		want := copyDesired(*r.known)
		x := &execution{run: r, want: &want}
		if err := x.all(w.Context(), []Step{{Kind: StepIdentity}, {Kind: StepCreateDisk, Disk: "root"}, {Kind: StepStart}, {Kind: StepPause}}); err != nil {
			t.Fatal(err)
		}
		if o := x.look(w.Context()); o.Guest == nil || o.Guest.RunState != runPaused || looks != 2 {
			t.Errorf("seen %+v after %d looks; want the pause, by a look of its own", o.Guest, looks)
		}
	})
}
