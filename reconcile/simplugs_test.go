package reconcile

import (
	"context"
	"errors"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// plugs lets a call of Plugs reach the machine, and has it change what it does.
func (h *simHost) plugs(ctx context.Context, name, call string, vm *manifest.VirtualMachine, s Step) error {
	if err := h.call(ctx, "%s %s", name, call); err != nil {
		return err
	}
	there, err := h.reach(ctx, name)
	if !there || err != nil {
		return errors.Join(errors.New("it does not run"), err)
	}
	h.touch(name, func(m *simMachine) {
		if m.obs.Guest == nil {
			err = errors.New("it has ended")
			return
		}
		if vm != nil {
			m.want.Machine = &stateMachine{Object: *vm}
		}
		g := *m.obs.Guest
		m.obs.Guest = &g
		m.plugStep(s)
		if s.Kind == StepUnplug {
			h.letsGo(name, m)
		}
	})
	return err
}

// letsGo has the guest let go of what it was asked to, unless it is deaf or does not
// run by then. The host's mutex is held.
func (h *simHost) letsGo(name string, m *simMachine) {
	if !m.up || m.deaf || h.deaf[name] {
		return
	}
	h.of(name, h.powerOffTakes, "lets go", func(m *simMachine) {
		if m.state() == runRunning {
			g := *m.obs.Guest
			m.obs.Guest = &g
			m.letGo()
		}
	})
}

func (h *simHost) Plug(ctx context.Context, vm *manifest.VirtualMachine, part driver.Part) error {
	return h.plugs(ctx, vm.Metadata.Name, "plug "+part.Noun(), vm, Step{Kind: StepPlug, Part: &part})
}

func (h *simHost) Unplug(ctx context.Context, name string, part driver.Part, u driver.Unplug) error {
	return h.plugs(ctx, name, "unplug "+part.Noun(), nil, Step{Kind: StepUnplug, Part: &part, Unplug: &u})
}

func (h *simHost) Drop(ctx context.Context, name string, part driver.Part) error {
	return h.plugs(ctx, name, "drop "+part.Noun(), nil, Step{Kind: StepDrop, Part: &part})
}

func (h *simHost) Forward(ctx context.Context, vm *manifest.VirtualMachine) error {
	return h.plugs(ctx, vm.Metadata.Name, "forward", vm, Step{Kind: StepForward})
}

func (h *simHost) Medium(ctx context.Context, vm *manifest.VirtualMachine, part driver.Part) error {
	return h.plugs(ctx, vm.Metadata.Name, "medium "+part.Noun(), vm, Step{Kind: StepMedium, Part: &part})
}

func (h *simHost) AddCPUs(ctx context.Context, vm *manifest.VirtualMachine) error {
	return h.plugs(ctx, vm.Metadata.Name, "add cpus", vm, Step{Kind: StepAddCPUs, CPUs: vm.Spec.CPU.VCPUs()})
}
