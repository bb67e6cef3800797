package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Differs says in words the first thing in which the forecast made now is another than
// p, which was made before; empty when they are the same. What passes by itself, such
// as times and phases, does not count.
func (p *PlanReport) Differs(now *PlanReport) string {
	if p.Owner != now.Owner {
		return fmt.Sprintf("the plan is of owner %s, this of %s", p.Owner, now.Owner)
	}
	if d := firstDifference(p.lines(), now.lines()); d != "" {
		return d
	}
	names := map[string]bool{}
	for _, m := range slices.Concat(p.Machines, now.Machines) {
		if names[m.Machine] {
			continue
		}
		names[m.Machine] = true
		was, is := p.machine(m.Machine), now.machine(m.Machine)
		if d := firstDifference(was.lines(), is.lines()); d != "" {
			return "vm/" + m.Machine + ": " + d
		}
	}
	return ""
}

// machine is the forecast of a machine; an empty one when there is none.
func (p *PlanReport) machine(name string) *MachineForecast {
	for i := range p.Machines {
		if p.Machines[i].Machine == name {
			return &p.Machines[i]
		}
	}
	return &MachineForecast{}
}

// lines are what becomes of the objects, a line each.
func (p *PlanReport) lines() []string {
	var lines []string
	for _, o := range p.Objects {
		lines = append(lines, o.Object.String()+" is "+string(o.Action))
	}
	slices.Sort(lines)
	return lines
}

// lines are everything that is forecast of a machine, a line each.
func (f *MachineForecast) lines() []string {
	lines := []string{cmp.Or(string(f.Action), "not in it"), "its manifest has the digest " + cmp.Or(f.Digest, "of none")}
	if f.Held != nil {
		lines = append(lines, "held "+string(f.Held.PowerState)+" by "+f.Held.Who)
	}
	for _, c := range f.Changes {
		lines = append(lines, fmt.Sprintf("%s %q to %q, %s, drift %t", c.Path, c.From, c.To, c.Class, c.Drift))
	}
	for i, pass := range f.Passes {
		for _, s := range pass.Steps {
			lines = append(lines, fmt.Sprintf("pass %d: %s", i+1, s.effect()))
		}
		if pass.Wait != nil {
			lines = append(lines, fmt.Sprintf("pass %d: wait for %s", i+1, pass.Wait.For))
		}
	}
	for _, problem := range f.Problems {
		lines = append(lines, problem.Reason+": "+problem.Message)
	}
	return lines
}

// firstDifference is where two lists of lines part.
func firstDifference(was, is []string) string {
	for i := range max(len(was), len(is)) {
		a, b := "nothing", "nothing"
		if i < len(was) {
			a = was[i]
		}
		if i < len(is) {
			b = is[i]
		}
		if a != b {
			return fmt.Sprintf("the plan says %s, now it is %s", a, b)
		}
	}
	return ""
}

// effect is what a step does to the machine, without what is different each time.
func (s Step) effect() string {
	words := []string{string(s.Kind)}
	for _, part := range []struct{ name, value string }{
		{"disk", s.Disk}, {"image", s.Image}, {"digest", s.Digest}, {"snapshot", s.Snapshot}, {"method", string(s.Method)},
	} {
		if part.value != "" {
			words = append(words, part.name+" "+part.value)
		}
	}
	if s.Size != 0 {
		words = append(words, "size "+s.Size.String())
	}
	if s.Part != nil {
		words = append(words, s.Part.String())
	}
	if s.CPUs != 0 {
		words = append(words, fmt.Sprintf("to %d", s.CPUs))
	}
	if s.Throttle != nil {
		iops, bps := s.Throttle.Limits()
		words = append(words, fmt.Sprintf("iops %d bps %d", iops, bps))
	}
	if s.Paused {
		words = append(words, "paused")
	}
	if s.DeleteDisks {
		words = append(words, "with its disks")
	}
	return strings.Join(words, " ")
}

// allowance is what a forecast allows to be done to a machine. Nil allows everything.
type allowance map[string]int

// allow is what a forecast allows.
func (f *MachineForecast) allow() allowance {
	a := allowance{}
	for _, pass := range f.Passes {
		for _, s := range pass.Steps {
			a[s.allowed()]++
		}
	}
	return a
}

// allowed is what a step has to be allowed by; empty for one that only keeps the books.
// A stop that was forecast goes as far as it has to: the guest may not listen.
func (s Step) allowed() string {
	switch s.Kind { //nolint:exhaustive // all others are what they do
	case StepRecordEnd, StepIdentity, StepClearIntent, StepThaw, StepFinishSnapshot, StepFinishLoad, StepFailRestore, StepEndRestore, StepEndHold:
		return ""
	case StepAgentShutdown, StepPowerdown, StepQuit, StepKill:
		return "stop"
	default:
		return s.effect()
	}
}

// repeats tells whether a step that was forecast once may be made any number of times: a
// guest that does not listen is asked again to power off, or to let go of a device.
func (s Step) repeats() bool { return s.allowed() == "stop" || s.Kind == StepUnplug }

// take uses up what steps need, or says which of them nobody has forecast.
func (a allowance) take(steps []Step) error {
	if a == nil {
		return nil
	}
	for _, s := range steps {
		word := s.allowed()
		if word == "" {
			continue
		}
		if a[word] == 0 {
			return fmt.Errorf("%w: to %s is not in it", ErrPlanLeft, s.effect())
		}
		if !s.repeats() {
			a[word]--
		}
	}
	return nil
}
