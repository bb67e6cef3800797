package reconcile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

func TestParseGoal_words_becomeGoals(t *testing.T) {
	for text, want := range map[string]Goal{
		"condition=Ready":       {Condition: ConditionReady, Status: "True"},
		"condition=ready=false": {Condition: ConditionReady, Status: "False"},
		"Condition=HELD=Unknown": {
			Condition: ConditionHeld, Status: "Unknown",
		},
		"phase=running":          {Phase: PhaseRunning},
		"phase=CrashLoopBackOff": {Phase: PhaseCrashLoopBackOff},
		"delete":                 {Deleted: true},
	} {
		got, err := ParseGoal(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseGoal(got.String()); err != nil || again != got {
			t.Errorf("%s is written %s, which is %+v, %v", text, got, again, err)
		}
	}
	for text, says := range map[string]string{
		"":                     "phase=Running",
		"Ready":                "condition=Ready",
		"delete=now":           "or delete",
		"phase=":               "one of Pending",
		"phase=Runnin":         "did you mean Running?",
		"condition=Redy":       "did you mean Ready?",
		"condition=Ready=Yes":  "one of True, False, Unknown",
		"condition=Nonsense=1": "one of Ready, Reconciling",
	} {
		if _, err := ParseGoal(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v does not say %q", text, err, says)
		}
	}
}

// viewOf is what a look at a scene shows.
func viewOf(s *scene) *View {
	s.opt.Supervise = false
	plan := s.plan()
	return &View{Machine: s.want.Machine, Observed: s.obs, Plan: plan, Status: statusOf(s.want, s.obs, plan, s.opt, s.now)}
}

func TestJudge_everyStanding(t *testing.T) {
	held := func(s *scene) {
		s.want.Machine.Hold = &state.Hold{PowerState: manifest.PowerPaused, Generation: 1, Since: t0}
	}
	runState := func(state string) func(*scene) { return func(s *scene) { s.obs.Guest.RunState = state } }
	supervised := func(v *View) *View {
		v.Watched, v.Plan.Wait = true, &Wait{For: "the next try"}
		return v
	}
	for _, c := range []struct {
		name, goal string
		view       *View
		want       Standing
		says       string
	}{
		{"gone, as wanted", "delete", nil, GoalMet, "gone"},
		{"gone, unwanted", "phase=Running", nil, GoalLost, "deleted"},
		{"still there", "delete", viewOf(newScene().up()), GoalOpen, "Running"},
		{"up", "condition=Ready", viewOf(newScene().up()), GoalMet, "Ready is True"},
		{"up, phase", "phase=Running", viewOf(newScene().up()), GoalMet, "phase Running"},
		{"up, unready wanted", "condition=Ready=False", viewOf(newScene().up()), GoalOpen, "Ready is True"},
		{"not up yet", "condition=Ready", viewOf(newScene()), GoalOpen, "phase Pending"},
		{"probe not yet", "condition=Ready", viewOf(newScene(probed).up()), GoalOpen, "NotReadyYet"},
		{"absent condition", "condition=Held=False", viewOf(newScene().up()), GoalMet, "Held is False"},
		{"absent condition wanted", "condition=Held", viewOf(newScene().up()), GoalOpen, "Held is False"},
		{"held", "condition=Held", viewOf(newScene().up().with(held)), GoalMet, "Held is True"},
		{"people end holds", "condition=Held=False", viewOf(newScene(stopped()).with(held)), GoalOpen, "Held is True"},
		{"stopped", "condition=Ready", viewOf(newScene(stopped())), GoalLost, "phase Stopped"},
		{"stopped, as wanted", "phase=Stopped", viewOf(newScene(stopped())), GoalMet, "phase Stopped"},
		{"crashed", "condition=Ready", viewOf(newScene().up().down(driver.EndCrash).recorded()), GoalLost, "phase Failed (Crash)"},
		{"crashed, watched", "condition=Ready", supervised(viewOf(newScene().up().down(driver.EndCrash).recorded())), GoalOpen, "Failed"},
		{"completed", "phase=Running", viewOf(newScene().up().down(driver.EndGuest).recorded()), GoalLost, "phase Completed"},
		{"completed, as wanted", "phase=Completed", viewOf(newScene().up().down(driver.EndGuest).recorded()), GoalMet, "phase Completed"},
		{"panicked", "phase=Running", viewOf(newScene().up().with(runState(runGuestPanicked))), GoalLost, "phase Failed"},
		{"disk failed", "condition=Ready", viewOf(newScene().up().with(runState(runIOError))), GoalLost, "IOError"},
		{"paused by somebody", "phase=Running", viewOf(newScene().up().with(runState(runPaused))), GoalOpen, "phase Paused"},
		{"paused on purpose", "phase=Running", viewOf(newScene(power(manifest.PowerPaused)).up()), GoalLost, "phase Paused"},
		{"sockets lost", "phase=Running", viewOf(newScene().up().with(func(s *scene) {
			s.obs.Presence, s.obs.Guest, s.obs.Reason = driver.Unresponsive, nil, driver.ReasonSocketsLost
		})), GoalLost, "SocketsLost"},
		{"no answer", "phase=Running", viewOf(newScene().up().with(func(s *scene) {
			s.obs.Presence, s.obs.Guest, s.obs.Reason = driver.Unresponsive, nil, driver.ReasonNoAnswer
		})), GoalOpen, "NoAnswer"},
	} {
		goal, err := ParseGoal(c.goal)
		if err != nil {
			t.Fatal(err)
		}
		if c.view != nil {
			c.view.Observed.At = t0
		}
		got, how := goal.Judge(c.view)
		if got != c.want || !strings.Contains(how, c.says) {
			t.Errorf("%s: %s is %s (%s), want %s with %q", c.name, c.goal, got, how, c.want, c.says)
		}
	}
}

// TestGoals_everyConstant_canBeWaitedFor reads the package's own source, so that
// a new phase or condition is not forgotten.
func TestGoals_everyConstant_canBeWaitedFor(t *testing.T) {
	var conditions, phases []string
	for file, found := range map[string]*[]string{"reasons.go": &conditions, "status.go": &phases} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			name := spec.Names[0].Name
			if !strings.HasPrefix(name, "Condition") && !strings.HasPrefix(name, "Phase") {
				return true
			}
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			*found = append(*found, value)
			return true
		})
	}
	listed := []string{}
	for _, p := range Phases() {
		listed = append(listed, string(p))
	}
	for _, c := range []struct{ constants, listed []string }{{conditions, ConditionTypes()}, {phases, listed}} {
		slices.Sort(c.constants)
		slices.Sort(c.listed)
		if diff := cmp.Diff(c.constants, c.listed); diff != "" {
			t.Errorf("constants and list (-constants +list):\n%s", diff)
		}
	}
}
