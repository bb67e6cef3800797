package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// rig is a driver on folders of its own. At the end of the test every QEMU it has
// started is killed and waited for, and no goroutine may be left.
type rig struct {
	*Driver
	t testing.TB
}

// newRig makes a rig; the test is skipped where no QEMU is installed.
func newRig(t testing.TB) *rig {
	t.Helper()
	realHost(t)
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	dir := shortDir(t)
	return rigAt(t, layout.Layout{State: filepath.Join(dir, "s"), Run: filepath.Join(dir, "r")})
}

// rigAt makes a rig on given folders, as another maqet process would have.
func rigAt(t testing.TB, l layout.Layout) *rig {
	t.Helper()
	table := timing.Default()
	table.Lock, table.Greeting, table.Query = 5*time.Second, 2*time.Second, 5*time.Second
	locks := filelock.New()
	r := &rig{t: t, Driver: New(Config{
		Layout: l, Timing: table, Locks: locks, Prober: NewProber(l, table, locks),
		Images: disk.New(disk.Config{Timing: table, Machines: filepath.Dir(l.DiskDir("x"))}), Kinds: testKinds(), Who: "test",
	})}
	t.Cleanup(r.endAll)
	return r
}

// endAll ends what was started.
func (r *rig) endAll() {
	r.children.mu.Lock()
	var all []*child
	for _, k := range r.children.byUID {
		all = append(all, k)
	}
	r.children.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), 10*time.Second)
	defer cancel()
	for _, k := range all {
		if !k.over() {
			if err := k.kill(ctx); err != nil {
				r.t.Error(err)
			}
		}
	}
}

// vm is a resolved machine without a guest. Its vCPUs have nothing to run.
func (r *rig) vm(name string, change ...func(*manifest.VirtualMachineSpec)) *manifest.VirtualMachine {
	vm := &manifest.VirtualMachine{
		APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine, Metadata: manifest.Metadata{Name: name},
		Spec: manifest.VirtualMachineSpec{
			Emulator: &manifest.Emulator{Binary: "qemu-system-x86_64", Accelerators: []string{"tcg"}},
			Machine:  &manifest.Machine{Type: "q35"},
			Memory:   &manifest.Memory{Size: 32 << 20},
		},
	}
	for _, c := range change {
		c(&vm.Spec)
	}
	return manifest.Resolve(vm, r.layout.State)
}

// bare is a machine without a board, which starts fastest.
func bareBoard(s *manifest.VirtualMachineSpec) {
	s.Machine = &manifest.Machine{Type: "none"}
	s.Memory = nil
}

// start makes what the machine needs and starts it.
func (r *rig) start(vm *manifest.VirtualMachine, paused bool) {
	r.t.Helper()
	if err := r.tryStart(vm, paused); err != nil {
		r.t.Fatalf("start: %v", err)
	}
}

func (r *rig) tryStart(vm *manifest.VirtualMachine, paused bool) error {
	ctx := r.t.Context()
	if _, err := r.EnsureIdentity(ctx, vm); err != nil {
		return err
	}
	for i := range vm.Spec.Disks {
		if d := &vm.Spec.Disks[i]; d.Size > 0 && d.Image == "" {
			if err := r.CreateDisk(ctx, vm, d.Name); err != nil {
				return err
			}
		}
	}
	_, err := r.Start(ctx, driver.StartRequest{VM: vm, Generation: 7, Paused: paused})
	return err
}

// observe looks, and checks the presence.
func (r *rig) observe(vm *manifest.VirtualMachine, depth driver.Depth, want driver.Presence) driver.Observed {
	r.t.Helper()
	o := r.Observe(r.t.Context(), vm.Metadata.Name, vm, depth)
	if o.Presence != want {
		r.t.Fatalf("presence = %s (%s: %s), want %s", o.Presence, o.Reason, o.Message, want)
	}
	return o
}

// ask asks a machine's QEMU one thing.
func (r *rig) ask(name, command string, args, result any) {
	r.t.Helper()
	err := r.Visit(r.t.Context(), name, func(ctx context.Context, c *qmp.Conn) error { return c.Do(ctx, command, args, result) })
	if err != nil {
		r.t.Fatal(err)
	}
}

// childOf is the process of a machine that this rig has started.
func (r *rig) childOf(name string) *child {
	r.t.Helper()
	record, err := r.readLaunched(name)
	if err != nil {
		r.t.Fatal(err)
	}
	k := r.children.of(record)
	if k == nil {
		r.t.Fatalf("no child of %s", name)
	}
	return k
}

// signal signals a machine's process.
func (r *rig) signal(name string, sig unix.Signal) {
	r.t.Helper()
	if err := r.childOf(name).handle.signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// waitEnd waits until a machine's process has ended.
func (r *rig) waitEnd(name string) {
	r.t.Helper()
	r.waitChild(r.childOf(name))
}

func (r *rig) waitChild(k *child) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if err := k.wait(ctx); err != nil {
		r.t.Fatalf("pid %d did not end: %v", k.pid, err)
	}
}

// runFiles are the names in the run dir of the machine web; none when there is no
// such folder.
func (r *rig) runFiles() []string {
	r.t.Helper()
	entries, err := os.ReadDir(r.layout.RunDir("web"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
