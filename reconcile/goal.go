package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// Goal is what somebody waits for: a status of a condition, a phase, or that
// nothing is remembered of the machine any more.
type Goal struct {
	// Condition and Status are set together.
	Condition, Status string
	Phase             Phase
	Deleted           bool
}

// Standing is how far a machine is from a goal.
type Standing string

// The standings.
const (
	// GoalOpen is not reached yet.
	GoalOpen Standing = "open"
	// GoalMet is reached.
	GoalMet Standing = "met"
	// GoalLost is not reached, and will not be without somebody acting.
	GoalLost Standing = "lost"
)

// Phases are all phases.
func Phases() []Phase {
	return []Phase{
		PhasePending, PhaseStarting, PhaseRunning, PhasePaused, PhaseStopping, PhaseStopped, PhaseCompleted,
		PhaseCrashLoopBackOff, PhaseUnresponsive, PhaseFailed, PhaseUnknown,
	}
}

// ConditionTypes are the types of a machine's conditions.
func ConditionTypes() []string {
	return []string{
		ConditionReady, ConditionReconciling, ConditionStalled, ConditionRestartRequired, ConditionRecreateRequired, ConditionDrifted,
		ConditionHeld, ConditionManifestInvalid, ConditionProvisioningDrift, ConditionIOError, ConditionDiskSpaceLow, ConditionUnresponsive, ConditionBackupFailed,
	}
}

// errGoal says how goals are written.
var errGoal = errors.New("write condition=Ready, condition=Held=False, phase=Running or delete")

// ParseGoal reads a goal: "condition=TYPE", "condition=TYPE=STATUS", "phase=PHASE"
// or "delete", in any case of letters.
func ParseGoal(text string) (Goal, error) {
	kind, rest, _ := strings.Cut(text, "=")
	switch strings.ToLower(kind) {
	case "delete":
		if rest == "" {
			return Goal{Deleted: true}, nil
		}
	case "phase":
		phase, err := oneOf("phase", rest, Phases())
		return Goal{Phase: phase}, err
	case "condition":
		name, status, hasStatus := strings.Cut(rest, "=")
		name, err := oneOf("condition", name, ConditionTypes())
		if err != nil {
			return Goal{}, err
		}
		if !hasStatus {
			status = "True"
		}
		status, err = oneOf("status", status, []string{"True", "False", "Unknown"})
		return Goal{Condition: name, Status: status}, err
	}
	return Goal{}, errGoal
}

// oneOf finds a word in a list, whatever the case of its letters.
func oneOf[T ~string](what, word string, list []T) (T, error) {
	near, distance := T(""), 1+len(word)/3
	names := make([]string, 0, len(list))
	for _, known := range list {
		if strings.EqualFold(word, string(known)) {
			return known, nil
		}
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(string(known)), nil); d < distance {
			near, distance = known, d
		}
		names = append(names, string(known))
	}
	if near != "" {
		return "", fmt.Errorf("there is no %s %q; did you mean %s?", what, word, near)
	}
	return "", fmt.Errorf("there is no %s %q; it is one of %s", what, word, strings.Join(names, ", "))
}

// String is the goal as people write it.
func (g Goal) String() string {
	switch {
	case g.Deleted:
		return "delete"
	case g.Phase != "":
		return "phase=" + string(g.Phase)
	default:
		return "condition=" + g.Condition + "=" + g.Status
	}
}

// Depth is how closely a machine has to be looked at to judge the goal.
func (g Goal) Depth() driver.Depth {
	switch g.Condition {
	case "", ConditionReady, ConditionHeld, ConditionIOError, ConditionUnresponsive, ConditionManifestInvalid:
		return driver.DepthBrief
	default:
		return driver.DepthFull
	}
}

// Judge says whether a machine has reached the goal, and in words how it is. A
// nil view is a machine that nothing is remembered of.
func (g Goal) Judge(v *View) (standing Standing, how string) {
	if v == nil {
		if g.Deleted {
			return GoalMet, "it is gone"
		}
		return GoalLost, "it was deleted"
	}
	how = g.words(v)
	switch {
	case g.reached(v):
		return GoalMet, how
	case g.lost(v):
		return GoalLost, how
	default:
		return GoalOpen, how
	}
}

// reached tells whether the goal is met. A condition that is not there is False.
func (g Goal) reached(v *View) bool {
	switch {
	case g.Deleted:
		return false
	case g.Phase != "":
		return v.Status.Phase == g.Phase
	default:
		c := conditionOf(v.Status.Conditions, g.Condition)
		return c.Status == g.Status || c.Status == "" && g.Status == "False"
	}
}

// words say how the machine is, as far as it concerns the goal.
func (g Goal) words(v *View) string {
	text := "phase " + string(v.Status.Phase)
	if v.Status.Reason != "" {
		text += " (" + v.Status.Reason + ")"
	}
	if g.Condition == "" {
		return text
	}
	c := conditionOf(v.Status.Conditions, g.Condition)
	switch {
	case c.Status == "":
		return g.Condition + " is False, " + text
	case c.Reason == "" || c.Reason == string(v.Status.Phase) || c.Reason == g.Condition:
		return g.Condition + " is " + c.Status + ", " + text
	default:
		return g.Condition + " is " + c.Status + " (" + c.Reason + "), " + text
	}
}

// lost tells that nothing which goes on by itself leads to the goal. What only
// people bring about, such as the end of a hold, is waited for all the same.
func (g Goal) lost(v *View) bool {
	running := g.Phase == PhaseRunning || g.Condition == ConditionReady && g.Status == "True"
	if g.Deleted || g.Phase == "" && !running {
		return false
	}
	if v.Watched && !v.Plan.Settled() {
		return false // The watch is about to do something.
	}
	switch v.Status.Phase {
	case PhaseFailed, PhaseCompleted, PhaseStopped:
		return true
	case PhasePaused:
		// QEMU stopped the guest for a failed disk, or somebody wants it paused.
		wanted := EffectivePower(v.Machine, v.Observed.At)
		return running && (v.Status.Reason == ReasonIOError || wanted == manifest.PowerPaused)
	case PhaseUnresponsive:
		return v.Status.Reason == driver.ReasonSocketsLost
	case PhasePending, PhaseStarting, PhaseRunning, PhaseStopping, PhaseCrashLoopBackOff, PhaseUnknown:
		return false
	default:
		return false
	}
}

// wants tells whether a follower was asked for a machine; no names ask for all.
func wants(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
