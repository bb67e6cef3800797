package reconcile

import (
	"maps"
	"reflect"
	"slices"
)

// tell tells how the controller is, when that has changed or always.
func (c *Controller) tell(always bool) {
	if c.cfg.Status == nil {
		return
	}
	c.telling.Lock()
	defer c.telling.Unlock()
	s := c.status()
	if !always && reflect.DeepEqual(s, c.told) {
		return
	}
	c.told = s
	c.cfg.Status(s)
}

// status is how the controller is now.
func (c *Controller) status() ControllerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ControllerStatus{
		Machines: len(c.machines), Phases: map[Phase]int{}, Synced: c.synced, Faults: slices.Clone(c.faults),
	}
	for _, m := range c.machines {
		s.Phases[m.phase]++
		if m.ready {
			s.Ready++
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(c.conditions)) {
		s.Conditions = append(s.Conditions, c.conditions[kind])
	}
	return s
}
