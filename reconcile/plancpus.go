package reconcile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/maqet/maqet/manifest"
)

// addCPUs plans a change of the number of vCPUs: more of them are added where the guest
// was started with places for them. They are never taken away under a guest: QEMU's
// memory suffers from it under TCG, and what a guest runs on them too.
func (p *planner) addCPUs(h *hotPlan, c Change) {
	l := p.obs.Launched
	want, have, most := p.spec.CPU.VCPUs(), p.obs.Guest.CPUs, maxCPUs(l.Spec.CPU)
	switch {
	case want < have:
		c.Why = "vCPUs are not taken away while the guest runs"
	case !strings.HasPrefix(l.Machine, "pc-"):
		c.Why = "the board " + l.Machine + " has no places for more vCPUs"
	case want > most:
		c.Why = fmt.Sprintf("the guest was started with places for %d; spec.cpu.maxCount makes more", most)
	default:
		x := partPlan{changes: []Change{c}}
		h.show(&x, "by device_add", p.unable())
		if !p.unable() {
			h.plugs = append(h.plugs, Step{Kind: StepAddCPUs, CPUs: want, Why: "from " + strconv.Itoa(have) + " to " + strconv.Itoa(want)})
		}
		return
	}
	h.owed = append(h.owed, c)
}

// maxCPUs is how many vCPUs a guest can have that was started so.
func maxCPUs(c *manifest.CPU) int {
	if c == nil || c.MaxCount == 0 {
		return c.VCPUs()
	}
	return c.MaxCount
}
