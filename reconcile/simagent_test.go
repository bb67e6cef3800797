package reconcile

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
)

// AgentShutdown ends a guest by its agent. One that is deaf takes the order and stays.
func (h *simHost) AgentShutdown(ctx context.Context, name string) error {
	if err := h.call(ctx, "%s agent-shutdown", name); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if !there || err != nil {
		return errors.Join(errors.New("it does not run"), err)
	}
	h.touch(name, func(m *simMachine) { h.presses(name, m) })
	return nil
}

func (h *simHost) AskGuest(ctx context.Context, name string) *driver.GuestInfo {
	if h.call(ctx, "%s ask-guest", name) != nil {
		return nil
	}
	return &driver.GuestInfo{Hostname: name}
}

// Thaw ends a freeze, or notes why it could not.
func (h *simHost) Thaw(ctx context.Context, name string) error {
	err := h.call(ctx, "%s thaw", name)
	if err == nil {
		_, err = h.reach(ctx, name)
	}
	h.touch(name, func(m *simMachine) {
		switch f := m.obs.Freeze; {
		case f == nil:
		case err == nil:
			m.obs.Freeze = nil
		default:
			failed := *f
			failed.Failed = err.Error()
			m.obs.Freeze = &failed
		}
	})
	return err
}

func (h *simHost) FrozenMachines(ctx context.Context) ([]string, error) {
	h.turns.wait(ctx, "frozen machines")
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, m := range h.machines {
		if m.obs.Freeze != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// freeze marks a guest as frozen, by somebody who is there still or not.
func (h *simHost) freeze(name string, held bool) {
	h.touch(name, func(m *simMachine) {
		m.obs.Freeze = &driver.Freeze{UID: testUID, Since: m.now, Deadline: m.now.Add(time.Minute), Who: "snapshot (pid 7, root)", Held: held}
	})
}
