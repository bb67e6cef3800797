package reconcile

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
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

// errNotQuiesced is why a snapshot is not taken for which no guest can be frozen.
var errNotQuiesced = errors.New("no agent answers")

// freezes freezes a guest for a snapshot, if it should and can be.
func (h *simHost) freezes(name string, req driver.SnapshotIntent) (err error) {
	h.touch(name, func(m *simMachine) {
		agent := m.obs.Guest != nil && m.obs.Guest.Agent != nil && m.obs.Guest.Agent.Open
		switch {
		case m.state() != runRunning || req.Method == manifest.SnapshotFull || req.Quiesce == manifest.QuiesceNever:
		case agent:
			m.obs.Freeze = &driver.Freeze{UID: testUID, Since: m.now, Deadline: m.now.Add(time.Minute), Who: "snapshot", Held: true}
		case req.Quiesce == manifest.QuiesceRequired:
			err = errNotQuiesced
		}
	})
	return err
}

// thaws ends the freeze of a snapshot. Who was killed has not thawed.
func (h *simHost) thaws(ctx context.Context, name string) {
	dead, _ := ctx.Value(deadKey{}).(func() bool)
	h.touch(name, func(m *simMachine) {
		switch f := m.obs.Freeze; {
		case f == nil || !f.Held:
		case dead != nil && dead():
			left := *f
			left.Held = false
			m.obs.Freeze = &left
		default:
			m.obs.Freeze = nil
		}
	})
}

// deadKey and aliveKey are whether the process that calls is dead, and what counts a
// call of it and may kill it.
type (
	deadKey  struct{}
	aliveKey struct{}
)

// lives is where a process may be killed in the middle of a call.
func (h *simHost) lives(ctx context.Context) error {
	if alive, ok := ctx.Value(aliveKey{}).(func() error); ok {
		return alive()
	}
	return nil
}

// hears has the agent in a guest that runs begin to listen, or end.
func (m *simMachine) hears(open bool) {
	if m.obs.Guest == nil || m.obs.Guest.Agent == nil {
		return
	}
	g := *m.obs.Guest
	g.Agent = &driver.GAgent{Open: open}
	m.obs.Guest = &g
}

// freeze marks a guest as frozen, by somebody who is there still or not.
func (h *simHost) freeze(name string, held bool) {
	h.touch(name, func(m *simMachine) {
		m.obs.Freeze = &driver.Freeze{UID: testUID, Since: m.now, Deadline: m.now.Add(time.Minute), Who: "snapshot (pid 7, root)", Held: held}
	})
}

// leftFrozen freezes a guest that runs and can be, by somebody who died before the thaw.
func (h *simHost) leftFrozen(name string) {
	m := h.obs(name)
	if g := m.Guest; g != nil && g.RunState == runRunning && g.Agent != nil && g.Agent.Open && m.Freeze == nil {
		h.freeze(name, false)
	}
}
