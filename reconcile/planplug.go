package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// unplugAgain is after what time a guest is asked anew that has refused to let go of a
// device: it may have been booting, or busy.
const unplugAgain = 5 * time.Minute

// hotPlan is what of the guest's changes can be made while it runs.
type hotPlan struct {
	// changes are those, owed the ones that need a restart.
	changes, owed []Change
	// unplugs, forward and plugs are the steps, in that order. Nothing is plugged in
	// before the guest has let go of what goes, which may have the same port or address.
	drops, unplugs, forward, plugs []Step
	// wait is for a guest that was asked to let go of something.
	wait *Wait
	// slots are the places, with those of what is plugged in by this plan.
	slots map[string]driver.Slot
}

// partPlan is one item of a list that differs.
type partPlan struct {
	driver.Part
	changes []Change
	// wanted, launched and there tell who has the item, asked that the guest was asked
	// to let go of it.
	wanted, launched, there, asked bool
}

// hot sorts out which changes are made while the guest runs, and how.
func (p *planner) hot(changes []Change) hotPlan {
	var h hotPlan
	l := p.obs.Launched
	if l == nil || p.obs.Guest.Brief || p.obs.Identity == nil {
		h.owed = changes
		return h
	}
	h.slots = maps.Clone(p.obs.Identity.Slots)
	if h.slots == nil {
		h.slots = map[string]driver.Slot{}
	}
	var parts []*partPlan
	for _, c := range changes {
		part, ok := partOf(c.Path)
		if c.Path == "spec.cpu.count" {
			p.addCPUs(&h, c)
			continue
		}
		if !ok || part.List != driver.ListNICs && part.List != driver.ListDisks && part.List != driver.ListDevices {
			h.owed = append(h.owed, c)
			continue
		}
		i := slices.IndexFunc(parts, func(x *partPlan) bool { return x.Part == part })
		if i < 0 {
			i = len(parts)
			_, asked := l.Unplugs[part.Name]
			parts = append(parts, &partPlan{
				Part: part, wanted: hasPart(p.spec, part), launched: hasPart(&l.Spec, part), there: p.there(part), asked: asked,
			})
		}
		parts[i].changes = append(parts[i].changes, c)
	}
	for _, x := range parts {
		p.hotPart(&h, x)
	}
	p.drops(&h)
	return h
}

// partOf is the item that a path of a manifest is in.
func partOf(path string) (driver.Part, bool) {
	list, rest, ok := strings.Cut(strings.TrimPrefix(path, "spec."), "[")
	name, _, closed := strings.Cut(rest, "]")
	return driver.Part{List: list, Name: name}, ok && closed && !strings.Contains(list, ".")
}

// hasPart tells whether a spec has an item.
func hasPart(s *manifest.VirtualMachineSpec, part driver.Part) bool {
	return specItems(s)[part.Name] == part.List
}

// there tells whether QEMU has the device of an item.
func (p *planner) there(part driver.Part) bool {
	_, there := guestItems(p.obs.Guest)[part.Name]
	return there
}

// hotPart plans for one item.
func (p *planner) hotPart(h *hotPlan, x *partPlan) {
	switch {
	case onlyForwards(x):
		h.show(x, "by hostfwd_remove and hostfwd_add", false)
		h.forward = []Step{{Kind: StepForward, Why: "as the manifest says"}}
		return
	case p.onlyMedium(x):
		p.medium(h, x)
		return
	}
	why := p.cold(h, x)
	switch {
	case why != "":
		for _, c := range x.changes {
			c.Why = why
			h.owed = append(h.owed, c)
		}
	case x.there:
		p.unplug(h, x)
	default:
		p.plugIn(h, x)
	}
}

// plugIn plans to add an item.
func (p *planner) plugIn(h *hotPlan, x *partPlan) {
	words := "by device_add"
	switch x.List {
	case driver.ListNICs:
		words = "by netdev_add and device_add"
	case driver.ListDisks:
		words = "by blockdev-add and device_add"
	}
	if w := p.way(p.spec, x.Part); w.pci {
		words += ", at " + slotWords(h.slots[driver.SlotKey(h.slots, x.Name, p.placeKind())])
	}
	if p.unable() {
		h.show(x, "QEMU says "+p.obs.Guest.RunState, true)
		return
	}
	var first []Step
	if x.List == driver.ListDisks {
		var why string
		if first, why = p.diskFirst(x.Name); why != "" {
			h.show(x, why, true)
			return
		}
	}
	h.show(x, words, false)
	h.plugs = append(h.plugs, append(first, Step{Kind: StepPlug, Part: &x.Part, Why: "it is new"})...)
}

// placeKind is the kind of place that PCI devices of the process have.
func (p *planner) placeKind() driver.SlotKind {
	kind, _ := driver.PCISlotKind(driver.BusFamilyOf(p.obs.Launched.Machine))
	return kind
}

func slotWords(s driver.Slot) string {
	if s.Kind == driver.SlotPort {
		return fmt.Sprintf("port %d", s.Index)
	}
	return fmt.Sprintf("device number %d", s.Index)
}

// show puts the changes of an item among those that are made while the guest runs.
func (h *hotPlan) show(x *partPlan, why string, pending bool) {
	for _, c := range x.changes {
		c.Class, c.Why, c.Pending = ClassLive, why, pending
		c.Drift = c.Drift && !x.asked
		h.changes = append(h.changes, c)
	}
}

// unable tells that the guest is in no state to have anything plugged in.
func (p *planner) unable() bool {
	switch p.obs.Guest.RunState {
	case runRunning, runPaused, runSuspended:
		return false
	case runPrelaunch:
		return !startedPaused(&p.obs)
	default:
		return true
	}
}

// onlyForwards tells that nothing but the forwards of a user network differ.
func onlyForwards(x *partPlan) bool {
	return x.List == driver.ListNICs && x.there && x.wanted && x.launched &&
		!slices.ContainsFunc(x.changes, func(c Change) bool { return !strings.HasSuffix(c.Path, ".user.forward") })
}

// cold is why an item cannot be changed while the guest runs; empty when it can.
func (p *planner) cold(h *hotPlan, x *partPlan) string {
	l := p.obs.Launched
	if !x.wanted && !x.launched {
		return x.changes[0].Why // somebody else has plugged it in
	}
	if x.there {
		has := &l.Spec
		if !x.launched {
			has = p.spec
		}
		if why := p.holds(has, x); why != "" {
			return why
		}
		if u, asked := l.Unplugs[x.Name]; asked && !p.now.Before(u.Deadline) && p.now.Before(u.Deadline.Add(unplugAgain)) {
			return fmt.Sprintf("the guest was asked at %s and has not let go of it", u.Since.UTC().Format(time.TimeOnly))
		}
	}
	if !x.wanted {
		return ""
	}
	w := p.way(p.spec, x.Part)
	if w.why != "" {
		return w.why
	}
	if !w.pci {
		return ""
	}
	if _, ok := l.PlugPlace(h.slots, p.spec, x.Name); !ok {
		if p.placeKind() == driver.SlotPort {
			return "no root port is left to plug it into: a restart gives it one, and spec.machine.hotplugPorts more for the next ones"
		}
		return "the board has no place left to plug it into"
	}
	return ""
}

// unplug has the guest let go of a device.
func (p *planner) unplug(h *hotPlan, x *partPlan) {
	u, asked := p.obs.Launched.Unplugs[x.Name]
	if asked && !p.now.Before(u.Deadline) {
		asked = false
	}
	why := unplugCommands(x.List) + ", once the guest has let go of it"
	if x.wanted {
		why = "it is taken out and plugged in again"
		if x.List == driver.ListNICs {
			why += "; the guest's network is cut meanwhile"
		}
	}
	if p.obs.Guest.RunState != runRunning {
		h.show(x, "only a guest that runs can let go of it", true)
		return
	}
	h.show(x, why, false)
	if !asked {
		u = driver.Unplug{Since: p.now, Deadline: p.later(p.opt.Unplug)}
	}
	if next := u.Asked.Add(p.opt.Unplug / unplugTries); !asked || !p.now.Before(next) {
		u.Asked = p.now
		h.unplugs = append(h.unplugs, Step{Kind: StepUnplug, Part: &x.Part, Unplug: &u, Why: cmp.Or(unplugWords(x), "it is to go")})
	}
	until := u.Asked.Add(p.opt.Unplug / unplugTries)
	if until.After(u.Deadline) {
		until = u.Deadline
	}
	if h.wait == nil || until.Before(h.wait.Until) {
		h.wait = &Wait{For: "the guest to let go of " + x.Noun(), Until: until, Then: "it is asked again", Unplug: true, Exit: true}
	}
}

// unplugTries is how often a guest is asked within the time that it has.
const unplugTries = 6

func unplugWords(x *partPlan) string {
	if x.wanted {
		return "it is to be another"
	}
	return ""
}

// unplugCommands are those that take an item of a list out.
func unplugCommands(list string) string {
	switch list {
	case driver.ListNICs:
		return "by device_del and netdev_del"
	case driver.ListDisks:
		return "by device_del and blockdev-del; the disk's data is kept"
	default:
		return "by device_del"
	}
}

// drops removes what was behind devices that are gone and shall stay so.
func (p *planner) drops(h *hotPlan) {
	has := specItems(&p.obs.Launched.Spec)
	for _, name := range slices.Sorted(maps.Keys(has)) {
		part := driver.Part{List: has[name], Name: name}
		if !hasPart(p.spec, part) && !p.there(part) {
			h.drops = append(h.drops, Step{Kind: StepDrop, Part: &part, Why: "its device is gone"})
		}
	}
}

// plug takes the steps over into the plan.
func (p *planner) plug(h hotPlan) {
	for _, s := range slices.Concat(h.drops, h.unplugs) {
		p.step(s)
	}
	if h.wait != nil {
		if p.plan.Wait == nil {
			p.plan.Wait = h.wait
		}
		return
	}
	for _, s := range slices.Concat(h.forward, h.plugs) {
		p.step(s)
	}
}

// addFreePorts tells how many devices can still be plugged in.
func (o *ObservedStatus) addFreePorts(rec *state.Machine, obs *driver.Observed) {
	if o == nil || rec == nil || obs.Launched == nil || obs.Identity == nil {
		return
	}
	n := obs.Launched.FreePlaces(obs.Identity.Slots, &rec.Object.Spec)
	o.FreePorts = &n
}
