package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// CPUID is QEMU's id of a vCPU that was added; index counts places from 0 in the order
// in which a start fills them.
func CPUID(index int) string { return fmt.Sprintf("maqet.cpu.%d", index) }

// freeCPU is a place for a vCPU, with what says where it is as QEMU gave it.
type freeCPU struct {
	cpuPlace
	where map[string]json.RawMessage
}

// UnmarshalJSON reads the place twice: once for us, once to hand it back as it is.
func (f *freeCPU) UnmarshalJSON(text []byte) error {
	var raw struct {
		Props map[string]json.RawMessage `json:"props"`
	}
	if err := errors.Join(json.Unmarshal(text, &f.cpuPlace), json.Unmarshal(text, &raw)); err != nil {
		return err
	}
	f.where = raw.Props
	return nil
}

// AddCPUs adds vCPUs to a running machine until there are as many as the spec says, in
// the places that a start would fill first.
func (d *Driver) AddCPUs(ctx context.Context, vm *manifest.VirtualMachine) error {
	name, want := vm.Metadata.Name, vm.Spec.CPU.VCPUs()
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		record, err := d.readLaunched(name)
		if err != nil || record == nil {
			return errors.Join(err, errNoLaunchRecord(record))
		}
		before := record.Spec.CPU
		err = d.updateLaunched(name, record, func(l *driver.Launched) { l.Spec.CPU = withCount(l.Spec.CPU, want) })
		if err == nil {
			err = addCPUs(ctx, c, want)
		}
		if _, refused := errors.AsType[*qmp.Error](err); refused {
			err = errors.Join(err, d.updateLaunched(name, record, func(l *driver.Launched) { l.Spec.CPU = before }))
		}
		return err
	})
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "vCPUs added", slog.String("vm", name), slog.Int("cpus", want))
	}
	return asOp("add vCPUs to", name, err)
}

// withCount is a copy with another number of vCPUs.
func withCount(c *manifest.CPU, count int) *manifest.CPU {
	next := manifest.CPU{}
	if c != nil {
		next = *c
	}
	next.Count = count
	return &next
}

func addCPUs(ctx context.Context, c *qmp.Conn, want int) error {
	var places []freeCPU
	if err := c.Do(ctx, "query-hotpluggable-cpus", nil, &places); err != nil {
		return err
	}
	slices.SortFunc(places, func(a, b freeCPU) int {
		return cmp.Or(
			cmp.Compare(number(a.Props.Socket), number(b.Props.Socket)),
			cmp.Compare(number(a.Props.Core), number(b.Props.Core)),
			cmp.Compare(number(a.Props.Thread), number(b.Props.Thread)),
		)
	})
	have := 0
	for _, p := range places {
		if p.Path != "" {
			have += p.VCPUs
		}
	}
	for i, p := range places {
		if p.Path != "" || have >= want {
			continue
		}
		cpu := map[string]any{"driver": p.Type, "id": CPUID(i)}
		for key, value := range p.where {
			cpu[key] = value
		}
		if err := c.Do(ctx, "device_add", cpu, nil); err != nil {
			return err
		}
		have += p.VCPUs
	}
	if have < want {
		return fmt.Errorf("QEMU has places for %d vCPUs only", have)
	}
	return nil
}

// number is a number that may be absent.
func number(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}
