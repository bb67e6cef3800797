package reconcile

import (
	"fmt"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/state"
)

// A restart is worth its price only if the machine comes up otherwise. What differs
// right after a start that was made for this very spec would differ after the next
// one, too: an extra argument overrides the manifest, or QEMU understands it in its
// own way. Restarting for that would end the guest again and again.

// noteUnmet remembers what a start that was made just now did not bring about.
func noteUnmet(m *state.Machine, obs *driver.Observed) {
	m.Unmet = nil
	if obs.Guest == nil || obs.Guest.Brief {
		return
	}
	for _, c := range guestChanges(&m.Object.Spec, obs) {
		m.Unmet = append(m.Unmet, c.unmet())
	}
}

// unmet names a change in the list of those that a start did not bring about.
func (c Change) unmet() string { return fmt.Sprintf("%s %s -> %s", c.Path, c.From, c.To) }

// split tells the changes that a restart makes from those that it did not make.
func (p *planner) split(changes []Change) (owed, unmet []Change) {
	l := p.obs.Launched
	if l == nil || l.Generation != p.rec.Generation || p.rec.StartedGeneration != p.rec.Generation {
		return changes, nil
	}
	for _, c := range changes {
		if slices.Contains(p.rec.Unmet, c.unmet()) {
			unmet = append(unmet, c)
		} else {
			owed = append(owed, c)
		}
	}
	return owed, unmet
}

// notAsStarted says what no restart helps against.
func (p *planner) notAsStarted(unmet []Change) {
	for _, c := range unmet {
		p.problem(ReasonNotAsStarted,
			fmt.Sprintf("%s is %s and not %s, although QEMU was started for that", c.Path, orNone(c.From), orNone(c.To)),
			"see with maqet render "+p.plan.Machine+" what overrides it, such as spec.emulator.extraArgs")
	}
}

func orNone(words string) string {
	if words == "" {
		return "absent"
	}
	return words
}
