package reconcile

import (
	"cmp"
	"fmt"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// verdict is what a restart policy makes of the end of a process.
type verdict int

// The verdicts.
const (
	// verdictStart is an end that says nothing about the guest: the power state
	// alone decides.
	verdictStart verdict = iota
	// verdictBackOff starts the machine again, later each time.
	verdictBackOff
	// verdictCompleted is a guest that has done what it was for.
	verdictCompleted
	// verdictFailed leaves a machine that failed as it is.
	verdictFailed
)

// policyOf is a machine's restart policy. A record that an older maqet wrote
// has none.
func policyOf(m *state.Machine) manifest.RestartPolicy {
	return cmp.Or(m.Object.Spec.RestartPolicy, manifest.RestartOnFailure)
}

// verdictOf is what a policy makes of a cause.
func verdictOf(policy manifest.RestartPolicy, cause driver.EndCause) verdict {
	switch cause {
	case driver.EndStopped, driver.EndHostReboot, driver.EndQuit:
		return verdictStart
	case driver.EndGuest:
		if policy == manifest.RestartAlways {
			return verdictBackOff
		}
		return verdictCompleted
	case driver.EndCrash, driver.EndSignal, driver.EndPanic, driver.EndWatchdog:
		if policy == manifest.RestartNever {
			return verdictFailed
		}
		return verdictBackOff
	case driver.EndStartFailed:
		// The guest never ran, so that even Never lets it be tried again.
		return verdictBackOff
	default:
		return verdictBackOff
	}
}

// backoff is how long to wait after so many failures in a row.
func (o Options) backoff(failures int) time.Duration {
	wait := o.Backoff
	for range failures - 1 {
		if wait >= o.BackoffMax/2 {
			return o.BackoffMax
		}
		wait *= 2
	}
	return min(wait, o.BackoffMax)
}

// ended notes how the last process ended, and what that means for the next
// try. Noting the same end a second time changes nothing, since whoever noted
// it may have been killed before it was cleared.
func ended(m *state.Machine, t *state.Termination, opt Options) {
	opt = opt.withDefaults()
	if noted(m, t) {
		return
	}
	m.LastTermination = t
	healthy := !t.StartedAt.IsZero() && t.At.Sub(t.StartedAt) >= opt.BackoffReset
	if healthy || t.Generation != m.Generation {
		m.Failures = 0
	}
	m.NotBefore = time.Time{}
	if t.Generation == m.Generation && verdictOf(policyOf(m), t.Cause) == verdictBackOff {
		m.Failures++
		m.NotBefore = t.At.Add(opt.backoff(m.Failures))
	}
}

// noted tells that this very end is in the record already.
func noted(m *state.Machine, t *state.Termination) bool {
	last := m.LastTermination
	return last != nil && !last.Superseded && !t.StartedAt.IsZero() && last.StartedAt.Equal(t.StartedAt)
}

// forgive forgets failures.
func forgive(m *state.Machine) { m.Failures, m.NotBefore = 0, time.Time{} }

// heal forgives a machine that has run well for long enough.
func heal(m *state.Machine, obs *driver.Observed, opt Options, now time.Time) {
	if at := healsAt(m, obs, opt); !at.IsZero() && !now.Before(at) {
		forgive(m)
	}
}

// healsAt is when the failures of a machine that runs are forgiven; zero when
// there are none, or when it does not run well.
func healsAt(m *state.Machine, obs *driver.Observed, opt Options) time.Time {
	if m == nil || m.Failures == 0 || obs.Presence != driver.Alive || obs.Guest == nil {
		return time.Time{}
	}
	phase, reason := runPhase(obs)
	if phase != PhaseRunning && phase != PhasePaused || reason == ReasonIOError {
		return time.Time{}
	}
	began := obs.StartedAt
	if obs.Launched != nil {
		began = obs.Launched.At
	}
	return began.Add(opt.withDefaults().BackoffReset)
}

// nextTry is when a machine that failed may be started again, counting an end
// that is not noted yet. It is not after now when that is the case already, and
// also when the clock was set back to before the end: a wait is never longer than
// its backoff, which may be that of a watch with other timeouts.
func nextTry(rec *state.Machine, obs *driver.Observed, opt Options, now time.Time) (at time.Time, failures int) {
	opt = opt.withDefaults()
	m := *rec
	if obs.Ended != nil {
		ended(&m, terminationOf(&m, obs), opt)
	}
	if t := m.LastTermination; t != nil && now.Before(t.At) {
		return now, m.Failures
	}
	return m.NotBefore, m.Failures
}

// mayStart tells whether a machine that has no process and should run may be
// started now, and plans what to wait for, or says what is wrong, if not.
func (p *planner) mayStart() bool {
	t := lastTermination(p.rec, &p.obs)
	if t == nil || t.Generation != p.rec.Generation || p.opt.Start || p.opt.Restart {
		return true
	}
	v := verdictOf(policyOf(p.rec), t.Cause)
	switch {
	case v == verdictCompleted:
		return false
	case v == verdictStart || !p.opt.Supervise:
		return true
	case v == verdictFailed:
		p.problem(ReasonEndedForGood, causeWords(t.Cause)+lastWords(t.LastLine)+", and its restart policy is Never",
			"run maqet start "+p.plan.Machine+", or change its spec")
		return false
	}
	at, failures := nextTry(p.rec, &p.obs, p.opt, p.now)
	if !p.now.Before(at) {
		return true
	}
	p.plan.Wait = &Wait{For: fmt.Sprintf("the next try to start it, after %s in a row", times(failures, "failure")), Until: at, Then: "it is started"}
	return false
}

// times is "1 failure" or "2 failures".
func times(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lastWords are QEMU's, when it left any.
func lastWords(line string) string {
	if line == "" {
		return ""
	}
	return "; QEMU's last line: " + line
}
