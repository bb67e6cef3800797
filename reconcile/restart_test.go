package reconcile

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func policy(p manifest.RestartPolicy) func(*manifest.VirtualMachineSpec) {
	return func(s *manifest.VirtualMachineSpec) { s.RestartPolicy = p }
}

// allCauses are all ways in which a process ends.
var allCauses = []driver.EndCause{
	driver.EndStopped, driver.EndGuest, driver.EndSignal, driver.EndCrash, driver.EndHostReboot,
	driver.EndStartFailed, driver.EndPanic, driver.EndWatchdog, driver.EndQuit,
}

func TestPlanMachine_endedUnderWatch_policyAndCauseDecide(t *testing.T) {
	const (
		start  = "start;"
		later  = "wait,1s"
		failed = "!EndedForGood"
		done   = ""
	)
	tests := map[driver.EndCause]map[manifest.RestartPolicy]string{
		driver.EndGuest:       {manifest.RestartAlways: later, manifest.RestartOnFailure: done, manifest.RestartNever: done},
		driver.EndCrash:       {manifest.RestartAlways: later, manifest.RestartOnFailure: later, manifest.RestartNever: failed},
		driver.EndSignal:      {manifest.RestartAlways: later, manifest.RestartOnFailure: later, manifest.RestartNever: failed},
		driver.EndPanic:       {manifest.RestartAlways: later, manifest.RestartOnFailure: later, manifest.RestartNever: failed},
		driver.EndWatchdog:    {manifest.RestartAlways: later, manifest.RestartOnFailure: later, manifest.RestartNever: failed},
		driver.EndStartFailed: {manifest.RestartAlways: later, manifest.RestartOnFailure: later, manifest.RestartNever: later},
		driver.EndHostReboot:  {manifest.RestartAlways: start, manifest.RestartOnFailure: start, manifest.RestartNever: start},
		driver.EndStopped:     {manifest.RestartAlways: start, manifest.RestartOnFailure: start, manifest.RestartNever: start},
		driver.EndQuit:        {manifest.RestartAlways: start, manifest.RestartOnFailure: start, manifest.RestartNever: start},
	}
	for _, cause := range allCauses {
		for p, want := range tests[cause] {
			t.Run(string(cause)+" "+string(p), func(t *testing.T) {
				s := newScene(policy(p)).up().down(cause).recorded()
				s.opt.Supervise = true
				if diff := cmp.Diff(want, summary(s.plan())); diff != "" {
					t.Errorf("watched (-want +got):\n%s", diff)
				}
				s.opt.Supervise = false
				byApply := start
				if want == done {
					byApply = done
				}
				if diff := cmp.Diff(byApply, summary(s.plan())); diff != "" {
					t.Errorf("applied (-want +got):\n%s", diff)
				}
				s.opt.Supervise, s.opt.Start = true, true
				if diff := cmp.Diff(start, summary(s.plan())); diff != "" {
					t.Errorf("started (-want +got):\n%s", diff)
				}
				s.opt.Start = false
				s.edit(func(spec *manifest.VirtualMachineSpec) { spec.Memory.Size += 1 << 20 })
				if diff := cmp.Diff(start, summary(s.plan())); diff != "" {
					t.Errorf("changed (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestPhaseOf_endedUnderWatch_saysWhatComes(t *testing.T) {
	tests := []struct {
		name   string
		policy manifest.RestartPolicy
		cause  driver.EndCause
		after  time.Duration
		alone  bool
		want   Phase
	}{
		{"a crash waits", manifest.RestartOnFailure, driver.EndCrash, 0, false, PhaseCrashLoopBackOff},
		{"a power-off waits when it should run always", manifest.RestartAlways, driver.EndGuest, 0, false, PhaseCrashLoopBackOff},
		{"the wait is over, and it is about to be started", manifest.RestartOnFailure, driver.EndCrash, time.Second, false, PhaseCrashLoopBackOff},
		{"nobody waits", manifest.RestartOnFailure, driver.EndCrash, 0, true, PhaseFailed},
		{"a power-off that nobody watches", manifest.RestartAlways, driver.EndGuest, 0, true, PhasePending},
		{"a power-off", manifest.RestartOnFailure, driver.EndGuest, 0, false, PhaseCompleted},
		{"a crash for good", manifest.RestartNever, driver.EndPanic, time.Hour, false, PhaseFailed},
		{"a host restart", manifest.RestartNever, driver.EndHostReboot, 0, false, PhasePending},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(policy(tt.policy)).up().down(tt.cause)
			s.now = s.now.Add(tt.after)
			opt := s.opt
			opt.Supervise = !tt.alone
			for _, when := range []string{"found", "recorded"} {
				got := statusOf(s.want, s.obs, s.plan(), opt, s.now)
				if got.Phase != tt.want {
					t.Errorf("%s: phase %s, want %s", when, got.Phase, tt.want)
				}
				if waits := got.Phase == PhaseCrashLoopBackOff; waits != got.NextTry.Equal(t0.Add(time.Second)) || waits && got.Failures != 1 {
					t.Errorf("%s: the next try is at %s after %d failures", when, got.NextTry, got.Failures)
				}
				if s.obs.Ended != nil {
					s.recorded()
				}
			}
		})
	}
}

func TestPhaseOf_crashedWhileLeftAlone_isFailed(t *testing.T) {
	s := newScene().up().down(driver.EndCrash)
	s.opt.Supervise = true
	s.want.Machine.Hold = &state.Hold{Who: "ann", Since: t0, Generation: s.want.Machine.Generation}
	for _, wait := range []time.Duration{0, time.Hour} {
		if got := statusOf(s.want, s.obs, s.plan(), s.opt, s.now.Add(wait)); got.Phase != PhaseFailed || !got.NextTry.IsZero() {
			t.Errorf("after %s: %s, next try %s", wait, got.Phase, got.NextTry)
		}
	}
}

func TestBackoff_failuresInARow_doublesUpToTheMost(t *testing.T) {
	opt := Options{}.withDefaults()
	want := []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300}
	for i, seconds := range want {
		if got := opt.backoff(i + 1); got != seconds*time.Second {
			t.Errorf("after %d failures: %s, want %ds", i+1, got, seconds)
		}
	}
	if got := opt.backoff(1000); got != 5*time.Minute {
		t.Errorf("after 1000 failures: %s", got)
	}
}

func TestEnded_recordedTwice_countsOnce(t *testing.T) {
	s := newScene().up().down(driver.EndCrash)
	ended(s.want.Machine, terminationOf(s.want.Machine, &s.obs), s.opt)
	first := *s.want.Machine
	s.obs.Ended.At = s.obs.Ended.At.Add(time.Minute) // A crash is dated by who finds it.
	ended(s.want.Machine, terminationOf(s.want.Machine, &s.obs), s.opt)
	if s.want.Machine.Failures != 1 || !s.want.Machine.NotBefore.Equal(first.NotBefore) {
		t.Errorf("%d failures, not before %s", s.want.Machine.Failures, s.want.Machine.NotBefore)
	}
}

func TestHeal_longEnoughUp_forgivesOnlyWhoRuns(t *testing.T) {
	tests := []struct {
		state string
		up    time.Duration
		want  int
	}{
		{runRunning, 10*time.Minute - 1, 3},
		{runRunning, 10 * time.Minute, 0},
		{runPaused, 10 * time.Minute, 0},
		{runIOError, time.Hour, 3},
		{runGuestPanicked, time.Hour, 3},
	}
	for _, tt := range tests {
		s := newScene().up()
		s.want.Machine.Failures, s.want.Machine.NotBefore = 3, t0
		s.obs.Guest.RunState = tt.state
		heal(s.want.Machine, &s.obs, s.opt, t0.Add(tt.up))
		if got := s.want.Machine.Failures; got != tt.want {
			t.Errorf("%s for %s: %d failures, want %d", tt.state, tt.up, got, tt.want)
		}
	}
}

func TestNextTry_clockSetBack_waitsNoLongerThanTheBackoff(t *testing.T) {
	s := newScene().up().down(driver.EndCrash).recorded()
	s.opt.Supervise = true
	s.now = s.now.Add(-24 * time.Hour)
	if diff := cmp.Diff("start;", summary(s.plan())); diff != "" {
		t.Error(diff)
	}
}

// TestRestartLaws_anyEnds_hold lets a supervised machine end in any way at any
// time, and holds what is done about it to the policy and the backoff.
func TestRestartLaws_anyEnds_hold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]manifest.RestartPolicy{manifest.RestartAlways, manifest.RestartOnFailure, manifest.RestartNever}).Draw(t, "policy")
		s := newScene(policy(p))
		s.opt.Supervise = true
		s.up()
		failures := 0
		for range 30 {
			up := time.Duration(rapid.IntRange(0, 1200).Draw(t, "up")) * time.Second
			s.now = s.now.Add(up)
			cause := rapid.SampledFrom(allCauses).Draw(t, "cause")
			s.end(cause)
			if up >= 10*time.Minute {
				failures = 0
			}
			endedAt := s.now
			if rapid.Bool().Draw(t, "controller dies before it is cleared") {
				ended(s.want.Machine, terminationOf(s.want.Machine, &s.obs), s.opt)
			}
			s.pass(s.plan())
			switch verdictOf(p, cause) {
			case verdictCompleted, verdictFailed:
				s.now = s.now.Add(time.Duration(rapid.IntRange(0, 1e6).Draw(t, "later")) * time.Second)
				if hasStart(s.plan()) {
					t.Fatalf("%s under %s is started again", cause, p)
				}
				return
			case verdictStart:
				if s.obs.Presence == driver.Absent && !hasStart(s.plan()) {
					t.Fatalf("%s under %s is not started at once: %s", cause, p, summary(s.plan()))
				}
			case verdictBackOff:
				failures++
				due := endedAt.Add(s.opt.withDefaults().backoff(failures))
				s.now = due.Add(-1)
				if hasStart(s.plan()) {
					t.Fatalf("started %s before it is due after %d failures", due.Sub(s.now), failures)
				}
				s.now = due
			}
			for s.obs.Presence == driver.Absent {
				plan := s.plan()
				if len(plan.Steps) == 0 {
					t.Fatalf("not started when it is due: %s", summary(plan))
				}
				s.pass(plan)
			}
			if s.want.Machine.Failures != failures {
				t.Fatalf("%d failures are counted, there were %d", s.want.Machine.Failures, failures)
			}
		}
	})
}

// TestNextTry_recordStandsOverTheReadersTable looks at a machine that a watch with
// another table of durations has noted, which every get and describe does.
func TestNextTry_recordStandsOverTheReadersTable(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		want  string
	}{
		"right after the end":   {0, "wait,1h0m0s"},
		"later":                 {59 * time.Minute, "wait,1h0m0s"},
		"when the wait is over": {time.Hour, "start;"},
		"the clock was set back to before the end":  {-time.Minute, "start;"},
		"the clock was set back far before the end": {-24 * time.Hour, "start;"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene().up().down(driver.EndCrash)
			s.opt.Supervise = true
			watch := s.opt
			watch.Backoff, watch.BackoffMax = time.Hour, time.Hour
			ended(s.want.Machine, terminationOf(s.want.Machine, &s.obs), watch)
			s.do(Step{Kind: StepRecordEnd})
			s.now = s.want.Machine.LastTermination.At.Add(c.after)
			if diff := cmp.Diff(c.want, summary(s.plan())); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
