package qemu

import (
	"context"
	"errors"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// Prober asks QEMU binaries what they can do.
type Prober struct {
	layout layout.Layout
	times  timing.Table
	locks  *filelock.Manager
}

// NewProber makes a prober whose answers are kept below l.
func NewProber(l layout.Layout, t timing.Table, locks *filelock.Manager) *Prober {
	return &Prober{layout: l, times: t, locks: locks}
}

// Host is what a binary can do. An empty binary is QEMU for the host's own architecture.
func (p *Prober) Host(_ context.Context, _ string) (driver.Host, error) {
	return driver.Host{}, errors.New("probing is being laid down")
}

// Finding is one thing in a manifest that this host cannot do.
type Finding struct {
	// Path is the manifest path, such as spec.machine.type.
	Path string
	// Msg says what is wrong, Hint what to do.
	Msg, Hint string
}

// Check holds a resolved machine against the host.
func (p *Prober) Check(ctx context.Context, vm *manifest.VirtualMachine) (driver.Host, []Finding, error) {
	binary := ""
	if vm.Spec.Emulator != nil {
		binary = vm.Spec.Emulator.Binary
	}
	host, err := p.Host(ctx, binary)
	return host, nil, err
}
