package reconcile

import (
	"cmp"
	"context"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// Plugs changes what is plugged into running machines. Each call sends something and
// returns; what a guest does about it is seen by looking again.
type Plugs interface {
	// Plug adds an item of vm. One that QEMU refuses leaves nothing behind.
	Plug(ctx context.Context, vm *manifest.VirtualMachine, part driver.Part) error
	// Unplug asks the guest to let go of a device, and notes that in the launch record.
	Unplug(ctx context.Context, name string, part driver.Part, u driver.Unplug) error
	// Drop removes what was behind a device that is gone.
	Drop(ctx context.Context, name string, part driver.Part) error
	// Medium puts into a cdrom what vm says, or takes out what is in it.
	Medium(ctx context.Context, vm *manifest.VirtualMachine, part driver.Part) error
	// AddCPUs adds vCPUs until there are as many as vm says.
	AddCPUs(ctx context.Context, vm *manifest.VirtualMachine) error
	// Forward makes the port forwards of the nics that are there those of vm.
	Forward(ctx context.Context, vm *manifest.VirtualMachine) error
}

// plug executes the steps that plug something in or take it out.
func (x *execution) plug(ctx context.Context, s Step) error {
	plugs, name := x.run.e.cfg.Ports.Plugs, x.run.name
	switch s.Kind { //nolint:exhaustive // the others do something else
	case StepPlug:
		// A disk whose file is lost later must not be taken for one that was never made.
		note := func(m *state.Machine) { plugged(m, *s.Part) }
		if err := x.run.update(ctx, note); err != nil {
			return err
		}
		note(x.want.Machine)
		return plugs.Plug(ctx, x.want.vm(), *s.Part)
	case StepMedium:
		return plugs.Medium(ctx, x.want.vm(), *s.Part)
	case StepUnplug:
		return plugs.Unplug(ctx, name, *s.Part, *s.Unplug)
	case StepAddCPUs:
		return plugs.AddCPUs(ctx, x.want.vm())
	case StepDrop:
		return plugs.Drop(ctx, name, *s.Part)
	default:
		return plugs.Forward(ctx, x.want.vm())
	}
}

// plugged notes that a machine has had a disk.
func plugged(m *state.Machine, part driver.Part) {
	if part.List == driver.ListDisks && !slices.Contains(m.StartedDisks, part.Name) {
		m.StartedDisks = append(slices.Clone(m.StartedDisks), part.Name)
	}
}

// seenPlug tells whether an observation shows what such a step was for.
func (s Step) seenPlug(obs driver.Observed) (message string, ok bool) {
	if s.Kind == StepForward {
		return "changed the port forwards", true // QEMU has confirmed each
	}
	if s.Kind == StepUnplug {
		return "asked the guest to let go of " + s.Part.Noun() + ": " + s.Why, true
	}
	if obs.Guest == nil || obs.Guest.Brief {
		return s.plugBegins(), true // it has ended since, or nobody has asked
	}
	if s.Kind == StepAddCPUs {
		return "added vCPUs: " + s.Why, obs.Guest.CPUs >= s.CPUs
	}
	_, there := guestItems(obs.Guest)[s.Part.Name]
	if s.Kind == StepMedium {
		i := slices.IndexFunc(obs.Guest.Disks, func(d driver.GDisk) bool { return d.Name == s.Part.Name })
		ok = i >= 0 && obs.Guest.Disks[i].Empty == (s.File == "")
		return "changed the medium of " + s.Part.Noun() + " to " + cmp.Or(s.File, "none"), ok
	}
	if s.Kind == StepDrop {
		return s.Part.Noun() + " is gone", !there
	}
	return "plugged in " + s.Part.Noun() + ": " + s.Why, there
}

// plugEvent is the event of such a step.
func (s Step) plugEvent() (kind, reason string) {
	switch s.Kind { //nolint:exhaustive // the others do something else
	case StepPlug:
		return state.EventNormal, state.EventPlugged
	case StepUnplug:
		return state.EventNormal, state.EventUnplugging
	case StepDrop:
		return state.EventNormal, state.EventUnplugged
	case StepMedium:
		return state.EventNormal, state.EventMedium
	case StepAddCPUs:
		return state.EventNormal, state.EventCPUsAdded
	default:
		return state.EventNormal, state.EventForwarded
	}
}

// plugBegins says what such a step is about to do.
func (s Step) plugBegins() string {
	switch s.Kind { //nolint:exhaustive // the others do something else
	case StepPlug:
		return "plugging in " + s.Part.Noun()
	case StepUnplug:
		return "asking the guest to let go of " + s.Part.Noun()
	case StepAddCPUs:
		return "adding vCPUs"
	case StepMedium:
		return "changing the medium of " + s.Part.Noun()
	case StepDrop:
		return "removing what was behind " + s.Part.Noun()
	default:
		return "changing the port forwards"
	}
}
