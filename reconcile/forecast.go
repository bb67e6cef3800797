package reconcile

import (
	"time"

	"github.com/maqet/maqet/driver"
)

// maxForecast bounds how many passes a forecast looks ahead.
const maxForecast = 24

// Forecast is every plan from now until nothing is left to do, each on what
// the one before would have made of the machine if all went well and the guest
// did what it was asked. The last one is settled and has what is owed or wrong,
// unless the machine is gone then or what comes cannot be foreseen.
func Forecast(want Desired, obs driver.Observed, opt Options, now time.Time) []Plan {
	m := newModel(want, obs, now, opt.BootID)
	m.opt = opt
	var plans []Plan
	for range maxForecast {
		p := PlanMachine(m.want, m.obs, opt, m.now)
		plans = append(plans, p)
		if p.Settled() {
			break
		}
		m.pass(p)
		opt = opt.after(p)
		if m.want.Machine == nil || len(p.Steps) == 0 && !m.elapse(*p.Wait) {
			break
		}
	}
	return plans
}

// after are the options for the pass after p: a restart stops a machine once, and a
// machine that was started or resumed is not once more by the same word.
func (o Options) after(p Plan) Options {
	for _, s := range p.Steps {
		switch {
		case s.Kind.stops():
			// What a restart stopped must come up again.
			o.Start = o.Start || o.Restart
			o.Restart = false
		case s.Kind == StepStart:
			o.Start, o.Restart = false, false
		case s.Kind == StepResume:
			o.Resume = false
		}
	}
	return o
}
