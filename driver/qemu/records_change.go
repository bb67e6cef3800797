package qemu

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// EnsureIdentity completes the machine's identity with everything that vm needs, and
// returns when it is on stable storage. The caller holds the machine's lock.
func (d *Driver) EnsureIdentity(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, error) {
	const op = "identify"
	name := vm.Metadata.Name
	if err := d.prepare(name); err != nil {
		return driver.Identity{}, fail(op, name, err, "")
	}
	id, _, err := d.identify(ctx, vm)
	return id, fail(op, name, err, "")
}

// identify is the identity with everything that vm needs, recorded, and what the
// machine's binary can do.
func (d *Driver) identify(ctx context.Context, vm *manifest.VirtualMachine) (driver.Identity, driver.Host, error) {
	id, host, changed, err := d.allocate(ctx, vm)
	if err != nil || !changed {
		return id, host, err
	}
	if err := d.writeIdentity(vm.Metadata.Name, id); err != nil {
		return driver.Identity{}, host, err
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "identity written", slog.String("vm", vm.Metadata.Name), slog.String("uid", id.UID))
	return id, host, nil
}

// allocate is the recorded identity with what vm needs beyond it, not yet recorded.
func (d *Driver) allocate(ctx context.Context, vm *manifest.VirtualMachine) (id driver.Identity, host driver.Host, changed bool, err error) {
	if host, err = d.hostOf(ctx, vm); err != nil {
		return id, host, false, err
	}
	recorded, err := d.readIdentity(vm.Metadata.Name)
	if err != nil {
		return id, host, false, err
	}
	if recorded != nil {
		id = *recorded
	}
	if id, changed, err = Allocate(id, vm, host, rand.Reader, d.now()); err != nil {
		return id, host, changed, err
	}
	found, err := d.prober.resolveFirmware(&id, vm, host)
	return id, host, changed || found, err
}

// hostOf is what the binary that vm names can do.
func (d *Driver) hostOf(ctx context.Context, vm *manifest.VirtualMachine) (driver.Host, error) {
	binary := ""
	if vm.Spec.Emulator != nil {
		binary = vm.Spec.Emulator.Binary
	}
	return d.prober.Host(ctx, binary)
}

// writeIdentity writes the identity beside the disks. It and the folders it lies in
// survive a loss of power from then on, which must be so before a guest has seen it.
func (d *Driver) writeIdentity(name string, id driver.Identity) error {
	dir := d.layout.DiskDir(name)
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return err
	}
	text, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	// The disk is asked for all at once: a start waits for it.
	parents := make(chan error, 2)
	for _, parent := range []string{filepath.Dir(dir), d.layout.State} {
		go func() { parents <- durable.SyncDir(parent) }()
	}
	err = durable.WriteFile(d.layout.Identity(name), append(text, '\n'), 0)
	return errors.Join(err, <-parents, <-parents)
}

// Render makes the command line that a machine would be started with, from its
// recorded identity or, without one, from an identity made up for the occasion.
// Nothing is written.
func (d *Driver) Render(ctx context.Context, vm *manifest.VirtualMachine) (Command, error) {
	id, host, _, err := d.allocate(ctx, vm)
	if err != nil {
		return Command{}, fail("render", vm.Metadata.Name, err, "")
	}
	cmd, err := Render(RenderInput{
		VM: vm, Identity: id, Host: host, Layout: d.layout, Kinds: d.kinds, Paused: vm.Spec.PowerState == manifest.PowerPaused,
	})
	return cmd, fail("render", vm.Metadata.Name, err, "")
}

// WriteIntent replaces the machine's intent; nil removes it.
func (d *Driver) WriteIntent(_ context.Context, name string, intent *driver.Intent) error {
	const op = "write the intent of"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	path := d.layout.Intent(name)
	if intent != nil {
		return fail(op, name, d.writeRunFile(name, path, intent), "")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(op, name, err, "")
	}
	return nil
}

// ClearRun removes what an ended process left in the machine's run dir. It is
// refused while there is a process.
func (d *Driver) ClearRun(ctx context.Context, name string) error {
	const op = "clear the run dir of"
	if err := d.usable(name); err != nil {
		return fail(op, name, err, "")
	}
	return fail(op, name, d.whileAbsent(ctx, op, name, func(l *look) error {
		d.children.forget(l.launched)
		return d.removeRun(name)
	}), "")
}

// whileAbsent calls do once it is proved that the machine has no process, with the
// lock held under which one would be started.
func (d *Driver) whileAbsent(ctx context.Context, op, name string, do func(*look) error) error {
	leave, err := d.enter(ctx, name)
	if err != nil {
		return err
	}
	defer leave()
	l, err := d.look(name)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.present(); err != nil {
		return fail(op, name, err, l.presentHint(name))
	}
	return do(l)
}

// Forget ends a machine that is stopped: its run dir and logs go, and its disks are
// moved to the kept ones, with identity and snapshot records, or deleted. The path
// is where they were moved to; empty when there were none or they are deleted. It is
// refused while there is a process.
func (d *Driver) Forget(ctx context.Context, name string, deleteDisks bool) (keptAt string, err error) {
	const op = "forget"
	if err := d.usable(name); err != nil {
		return "", fail(op, name, err, "")
	}
	err = d.whileAbsent(ctx, op, name, func(l *look) error {
		// The disks go first: whatever is cut off later is done by calling again.
		if keptAt, err = d.putAway(ctx, name, l, deleteDisks); err != nil {
			return err
		}
		d.children.forget(l.launched)
		return errors.Join(d.removeRun(name), os.RemoveAll(d.layout.LogDir(name)), os.RemoveAll(d.layout.SeedScratch(name)))
	})
	return keptAt, fail(op, name, err, "")
}

// putAway moves or deletes the folder with the machine's disks.
func (d *Driver) putAway(ctx context.Context, name string, l *look, deleteDisks bool) (string, error) {
	dir := d.layout.DiskDir(name)
	// Its swtpm ends by itself, a moment after QEMU, and has a file open until then.
	if err := (&tpm{dir: d.layout.TPM(name)}).awaitFree(ctx, d); err != nil {
		return "", err
	}
	if deleteDisks {
		return "", d.images.Remove(ctx, dir)
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	to, err := freeFolder(keptFolder(d.layout, name, l))
	if err != nil {
		return "", err
	}
	return to, d.images.Keep(ctx, dir, to)
}

// keptFolder is where the disks of a machine wait.
func keptFolder(at layout.Layout, name string, l *look) string {
	const short = 8
	uid := l.uid()
	if l.identity != nil {
		uid = l.identity.UID
	}
	if len(uid) < short {
		uid = "00000000" // disks whose identity is lost
	}
	return at.Kept(name, uid[:short])
}

// freeFolder is a path at which nothing is: the one wanted, or the next with a number.
func freeFolder(wanted string) (string, error) {
	const most = 1000
	path := wanted
	for n := 2; n <= most; n++ {
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		path = wanted + "-" + strconv.Itoa(n)
	}
	return "", fmt.Errorf("%s and %d like it are there already: remove some that are not needed", wanted, most)
}
