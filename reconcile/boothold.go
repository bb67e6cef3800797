package reconcile

import (
	"cmp"
	"context"

	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// powerHold is the hold that a machine has after somebody asked for a power
// state: none when its manifest wants just that, else one that says so.
//
// One that ends with this boot is put over the hold that was there, which
// stands again after it: a host that goes down stops what a person had started
// or told to be left alone, and takes nothing of that back. When the machine
// would be in the wanted state after the boot too, nothing is put over it.
func (e *Engine) powerHold(m *state.Machine, req PowerRequest) *state.Hold {
	byFile := cmp.Or(m.Object.Spec.PowerState, manifest.PowerRunning)
	asked := state.Hold{PowerState: req.PowerState, Why: req.Why, Until: req.Until}
	if !req.UntilBoot {
		if byFile == req.PowerState {
			return nil
		}
		return e.hold(m, asked)
	}
	lasting := *m
	if h := m.Hold; h != nil && h.Boot != "" {
		lasting.Hold = h.Under
	}
	under := activeHold(&lasting, e.cfg.Now())
	if under == nil && byFile == req.PowerState || under != nil && under.PowerState == req.PowerState {
		return under
	}
	asked.Boot, asked.Under = e.cfg.BootID, under
	return e.hold(m, asked)
}

// thisBoot shows every machine with the hold it has since the host booted. A
// hold that was bound to an earlier boot is over the moment there is another,
// so no pass has to end it and nothing that reads ever sees it.
type thisBoot struct {
	inner Store
	// boot is the current boot id. While it is unknown nothing proves that a
	// hold is over, and all stand.
	boot string
}

func (s thisBoot) View(ctx context.Context, do func(Tx) error) error {
	return s.inner.View(ctx, func(tx Tx) error { return do(thisBootTx{tx, s.boot}) })
}

func (s thisBoot) Update(ctx context.Context, do func(Tx) error) error {
	return s.inner.Update(ctx, func(tx Tx) error { return do(thisBootTx{tx, s.boot}) })
}

type thisBootTx struct {
	Tx
	boot string
}

func (t thisBootTx) Machine(name string) (*state.Machine, error) {
	m, err := t.Tx.Machine(name)
	if err != nil {
		return nil, err
	}
	return t.settle(m), nil
}

func (t thisBootTx) Machines() ([]*state.Machine, error) {
	machines, err := t.Tx.Machines()
	if err != nil {
		return nil, err
	}
	for i, m := range machines {
		machines[i] = t.settle(m)
	}
	return machines, nil
}

// settle takes off a hold of an earlier boot, and leaves what is under it. The
// machine it was given stays as it is, since a store may hand out its own.
func (t thisBootTx) settle(m *state.Machine) *state.Machine {
	if m == nil || m.Hold == nil || m.Hold.Boot == "" || t.boot == "" || m.Hold.Boot == t.boot {
		return m
	}
	settled := *m
	settled.Hold = m.Hold.Under
	return &settled
}
