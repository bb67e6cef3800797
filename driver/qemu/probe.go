package qemu

import (
	"context"
	"fmt"
	"sync"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/internal/timing"
)

// The oldest QEMU that understands the command lines of this package: the first
// to take netdevs as JSON.
const (
	minMajor = 7
	minMinor = 2
)

// Prober asks QEMU binaries what they can do, each through a scratch process
// that runs no guest; a guest's own monitor is never asked, since some questions
// can end the process that answers. Its methods may be called from any number of
// goroutines. What it returns is shared and must not be changed.
type Prober struct {
	layout layout.Layout
	times  timing.Table
	locks  *filelock.Manager
	// files looks at what manifests name.
	files *slowfs.Files
	// kvm is the device of KVM, which tests replace.
	kvm string
	// firmwareFolders are where firmware is described.
	firmwareFolders []string
	// vhostUserFolders are where programs such as virtiofsd are described.
	vhostUserFolders []string

	mu    sync.Mutex
	hosts map[string]knownHost // by path
	works map[string]string    // circumstances under which an accelerator worked, by binary and accelerator
}

// knownHost is an answer and the binary it is about.
type knownHost struct {
	key  string
	host driver.Host
}

// NewProber makes a prober whose answers are kept below l.
func NewProber(l layout.Layout, t timing.Table, locks *filelock.Manager) *Prober {
	return &Prober{
		layout: l, times: t, locks: locks, files: slowfs.New(t.File), kvm: "/dev/kvm", firmwareFolders: firmwareFolders(), vhostUserFolders: vhostUserFolders(),
		hosts: map[string]knownHost{}, works: map[string]string{},
	}
}

// Host is what a binary can do. An empty binary is QEMU for the host's own
// architecture; a name without a slash is looked up in PATH. The answer is kept,
// in memory and in the state dir, until the binary's file or its folder of
// modules changes. An error of the binary itself is a *BinaryError; one that is
// too old is such an error.
func (p *Prober) Host(ctx context.Context, binary string) (driver.Host, error) {
	b, err := findBinary(binary)
	if err != nil {
		return driver.Host{}, err
	}
	host, ok := p.known(b)
	if !ok {
		if host, err = p.learn(ctx, b); err != nil {
			return driver.Host{}, err
		}
	}
	if !host.Version.AtLeast(minMajor, minMinor) {
		return driver.Host{}, &BinaryError{
			Binary: b.path,
			Msg:    fmt.Sprintf("is QEMU %s, and maqet needs %d.%d or newer", host.Version, minMajor, minMinor),
			Hint:   "install a newer QEMU, and name it in spec.emulator.binary when it is not the one in PATH",
		}
	}
	return host, nil
}

// known is an answer that is still true.
func (p *Prober) known(b binaryFile) (driver.Host, bool) {
	p.mu.Lock()
	k, ok := p.hosts[b.path]
	p.mu.Unlock()
	if ok && k.key == b.key {
		return k.host, true
	}
	host, ok := p.readCache(b)
	if ok {
		p.remember(b, host)
	}
	return host, ok
}

func (p *Prober) remember(b binaryFile, host driver.Host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hosts[b.path] = knownHost{b.key, host}
}

// learn asks the binary. A lock keeps many maqets that start at once from
// asking one by one what one of them can ask for all.
func (p *Prober) learn(ctx context.Context, b binaryFile) (driver.Host, error) {
	waiting, cancel := context.WithTimeout(ctx, p.times.Lock)
	defer cancel()
	lock, err := p.locks.Lock(waiting, p.layout.ProbeLock())
	if ctx.Err() != nil {
		return driver.Host{}, fmt.Errorf("probe %s: %w", b.path, ctx.Err())
	}
	// Without the lock the same is learned twice, which does no harm.
	if err == nil {
		defer func() { _ = lock.Unlock() }()
		if host, ok := p.known(b); ok {
			return host, nil
		}
	}
	host, err := p.ask(ctx, b)
	if err != nil {
		return driver.Host{}, err
	}
	p.remember(b, host)
	p.writeCache(b, host)
	return host, nil
}
