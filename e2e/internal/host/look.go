package host

import (
	"encoding/json"
	"testing"
	"time"
)

// Status is what `maqet get -o json` says of a machine, as far as tests ask.
type Status struct {
	Phase           string      `json:"phase"`
	Reason          string      `json:"reason"`
	PID             int         `json:"pid"`
	Restarts        int         `json:"restarts"`
	Failures        int         `json:"failures"`
	Conditions      []Condition `json:"conditions"`
	LastTermination *struct {
		Cause string    `json:"cause"`
		At    time.Time `json:"at"`
	} `json:"lastTermination"`
}

// Condition is one condition of a machine.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Condition is the condition of that type; nil when it is not shown.
func (s Status) Condition(kind string) *Condition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

// Cause is why the last process ended; empty when nobody knows of an end.
func (s Status) Cause() string {
	if s.LastTermination == nil {
		return ""
	}
	return s.LastTermination.Cause
}

// Status asks maqet how a machine is. One that maqet does not know has none.
func (h *Host) Status(t testing.TB, name string) Status {
	t.Helper()
	stdout, stderr, code := h.Maqet(t, "get", name, "-o", "json")
	if code == notKnown {
		return Status{}
	}
	if code != 0 {
		t.Fatalf("get %s: exit code %d\n%s", name, code, stderr)
	}
	var got struct {
		Status Status `json:"status"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("get %s: %v\n%s", name, err, stdout)
	}
	return got.Status
}

// notKnown is maqet's exit code for a name that it does not know.
const notKnown = 3

// Becomes waits until a machine's status is as wanted, and returns that.
func (h *Host) Becomes(t testing.TB, name, what string, is func(Status) bool) Status {
	t.Helper()
	var s Status
	if !Eventually(Settle, func() bool {
		s = h.Status(t, name)
		return is(s)
	}) {
		t.Fatalf("%s never became %s; it is %+v", name, what, s)
	}
	return s
}

// Phase waits until a machine has the phase.
func (h *Host) Phase(t testing.TB, name, phase string) Status {
	t.Helper()
	return h.Becomes(t, name, phase, func(s Status) bool { return s.Phase == phase })
}

// NewPID waits until a machine has exactly one QEMU and that is not the given
// one, and returns its pid.
func (h *Host) NewPID(t testing.TB, name string, not int) int {
	t.Helper()
	var pids []int
	if !Eventually(Settle, func() bool {
		pids = h.QEMUs()[name]
		return len(pids) == 1 && pids[0] != not
	}) {
		t.Fatalf("machine %s has QEMU processes %v, want one other than %d", name, pids, not)
	}
	return pids[0]
}
