package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// atATime is how many raw machines are started, and how many are asked, at a
// time. More gain nothing on two cores.
const (
	startAtATime = 4
	askAtATime   = 8
)

// Cases are all comparisons, in the order of the table. Small ones come first, so
// that a broken set-up shows within a second.
func Cases(cfg Config) []Case {
	fleet := plural(cfg.Machines, "machine")
	return slices.Concat(commandCases(cfg, fleet), storageCases(), watchCases(fleet), libvirtCases())
}

// commandCases are the comparisons of single commands.
func commandCases(cfg Config, fleet string) []Case {
	return []Case{
		{
			Name: "process", Does: "maqet version", Against: "a compiled program that does nothing",
			Open: openProcess,
		},
		{
			Name: "apply-stopped", Does: "maqet apply of 1 q35, its disk there, from Stopped to Running", Against: "sh: the same argv, then a client until it runs",
			Aim: "≤ 1.3", Open: openStopped,
		},
		{
			Name: "apply-new", Does: "maqet apply of 1 q35 never seen, no disk", Against: "sh: the same argv, then a client until it runs",
			Aim: "≤ 1.3", Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openNew(ctx, lab, false) },
		},
		{
			Name: "apply-new-disk", Does: "maqet apply of 1 q35 never seen, 1 disk to make", Against: "sh: qemu-img create, the same argv, a client until it runs",
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openNew(ctx, lab, true) },
		},
		{
			Name: "apply-fleet", Does: "maqet apply of " + fleet + " never seen", Against: fmt.Sprintf("the same argvs, %d at a time, each until it runs", startAtATime),
			Aim: "≤ 1.15", Heavy: true, Open: openFleet,
		},
		{
			Name: "get-fleet", Does: "maqet get of " + fleet, Against: fmt.Sprintf("query-status of each, %d at a time", askAtATime),
			Aim: "≤ 2", Open: openGet,
		},
		{
			Name: "apply-unchanged", Does: "maqet apply of " + fleet + " already so", Against: fmt.Sprintf("what it asks QEMU, pipelined, %d at a time", askAtATime),
			Aim: "≤ 1.3", Open: openUnchanged,
		},
		{
			Name: "qmp", Does: "maqet qmp VM query-status", Against: "query-status of one",
			Aim: "< 10 ms", Open: openQMP,
		},
		{
			Name: "validate", Does: "maqet validate of " + plural(cfg.Manifests, "manifest"),
			Aim: "< 1 s", Heavy: true, Open: openValidate,
		},
	}
}

// libvirtCases are the comparisons with libvirt.
func libvirtCases() []Case {
	return []Case{
		{
			Name: "libvirt-start", Does: "maqet start of 1 q35", Against: "virsh start of the same kind of machine",
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openLibvirt(ctx, lab, true) },
		},
		{
			Name: "libvirt-destroy", Does: "maqet stop --force of it", Against: "virsh destroy",
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openLibvirt(ctx, lab, false) },
		},
		{
			Name: "libvirt-snapshot", Does: "maqet snapshot create of a booted guest, with memory", Against: "virsh snapshot-create-as of the same kind of guest",
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openLibvirtSnapshot(ctx, lab, false) },
		},
		{
			Name: "libvirt-revert", Does: "maqet snapshot restore of it", Against: "virsh snapshot-revert",
			Open: func(ctx context.Context, lab *Lab) (Bench, error) { return openLibvirtSnapshot(ctx, lab, true) },
		},
	}
}

// openProcess measures what any command costs before it does anything.
func openProcess(_ context.Context, lab *Lab) (Bench, error) {
	s, err := lab.site("process")
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{Do: func(ctx context.Context) error { return s.maqet(ctx, "version") }},
		Raw:  Half{Do: func(ctx context.Context) error { return s.rawclient(ctx, "status") }},
	}, nil
}

// openOne makes a site with one machine, which has run once, and its twin. What
// maqet keeps of the QEMU binary is there from then on, as on any host in use.
func openOne(ctx context.Context, lab *Lab, name string, disk bool) (*site, twin, error) {
	s, err := lab.site(name)
	if err != nil {
		return nil, twin{}, err
	}
	if err := s.boards(1, disk); err != nil {
		return nil, twin{}, err
	}
	if err := s.apply(ctx); err != nil {
		return nil, twin{}, err
	}
	twins, err := s.twins(ctx)
	if err != nil {
		return nil, twin{}, err
	}
	return s, twins[0], nil
}

// openNew compares the first apply of a machine with a script.
func openNew(ctx context.Context, lab *Lab, disk bool) (Bench, error) {
	s, t, err := openOne(ctx, lab, "new"+strconv.FormatBool(disk), disk)
	if err != nil {
		return Bench{}, err
	}
	script, err := s.script(t, disk)
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{
			Before: func(ctx context.Context) error {
				if err := s.clear([]twin{t}); err != nil {
					return err
				}
				return s.remove(ctx)
			},
			Do: s.apply, After: s.check,
		},
		Raw: Half{
			Before: func(ctx context.Context) error {
				if err := s.removeDisk(t); err != nil {
					return err
				}
				return s.stop(ctx)
			},
			Do: func(ctx context.Context) error { return lab.run(ctx, nil, script) },
		},
		Close: s.close,
	}, nil
}

// openStopped compares the apply that starts a known, stopped machine.
func openStopped(ctx context.Context, lab *Lab) (Bench, error) {
	s, t, err := openOne(ctx, lab, "stopped", true)
	if err != nil {
		return Bench{}, err
	}
	script, err := s.script(t, false)
	if err != nil {
		return Bench{}, err
	}
	if err := s.makeDisk(ctx, t); err != nil {
		return Bench{}, err
	}
	down, err := s.stopped()
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{
			Before: func(ctx context.Context) error {
				if err := s.clear([]twin{t}); err != nil {
					return err
				}
				if err := s.stop(ctx); err != nil {
					return err
				}
				// The changed spec ends the hold, and leaves nothing to do.
				return s.maqet(ctx, "apply", "-f", down, "--owner", owner)
			},
			Do: s.apply, After: s.check,
		},
		Raw: Half{
			Before: s.stop,
			Do:     func(ctx context.Context) error { return lab.run(ctx, nil, script) },
		},
		Close: s.close,
	}, nil
}

// openFleet compares the first apply of many machines.
func openFleet(ctx context.Context, lab *Lab) (Bench, error) {
	s, err := lab.site("many")
	if err != nil {
		return Bench{}, err
	}
	if err := s.boards(lab.Machines, false); err != nil {
		return Bench{}, err
	}
	if err := s.apply(ctx); err != nil {
		return Bench{}, err
	}
	twins, err := s.twins(ctx)
	if err != nil {
		return Bench{}, err
	}
	file, err := s.save("twins.json", twins)
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{
			Before: func(ctx context.Context) error {
				if err := s.clear(twins); err != nil {
					return err
				}
				return s.remove(ctx)
			},
			Do: s.apply, After: s.check,
		},
		Raw: Half{
			Before: s.stop,
			Do: func(ctx context.Context) error {
				return s.rawclient(ctx, "start", "-j", strconv.Itoa(startAtATime), "-f", file)
			},
		},
		Close: s.close,
	}, nil
}
