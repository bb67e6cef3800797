package qemu

import (
	"context"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// CopyDisks copies disks of a running machine, as they are at one moment, into files
// that it makes, and returns when the files hold all of it. The guest runs on; only its
// file systems are frozen for the moment itself, as req.Quiesce says. Tell, which may be
// nil, is told how far it is. When it fails, or ctx ends, the jobs are cancelled and the
// files are gone.
func (d *Driver) CopyDisks(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.CopyRequest, tell func(driver.CopyProgress)) (driver.Copy, error) {
	p := d.copier()
	made, err := p.all(ctx, vm.Metadata.Name, req, func(ctx context.Context) (driver.Copy, error) {
		return p.begin(ctx, vm, obs, req)
	}, tell)
	return made, copyError(vm.Metadata.Name, "copy the disks of", err)
}

// BeginCopy is the first part of CopyDisks: it returns when the jobs run. Whoever calls
// it holds the machine's lock meanwhile, and needs it no longer afterwards.
func (d *Driver) BeginCopy(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, req driver.CopyRequest) (driver.Copy, error) {
	made, err := d.copier().begin(ctx, vm, obs, req)
	return made, copyError(vm.Metadata.Name, "copy the disks of", err)
}

// AwaitCopy returns when the jobs of a copy are over, with a [*JobError] when one has
// failed, with ctx's error when it ends first, and with [ErrCopyLost] when they are gone.
func (d *Driver) AwaitCopy(ctx context.Context, name string, made driver.Copy, tell func(driver.CopyProgress)) error {
	return copyError(name, "copy the disks of", d.copier().wait(ctx, name, made, tell))
}

// FinishCopy has QEMU close the files of a copy whose jobs are over. The error of a job
// that failed is a [*JobError].
func (d *Driver) FinishCopy(ctx context.Context, name string, made driver.Copy) error {
	return copyError(name, "copy the disks of", d.copier().finish(ctx, name, made))
}

// CleanCopies cancels what goes on of a kind of copy, whoever began it, removes what
// QEMU has of it, and removes the named bitmaps. The files are the caller's.
func (d *Driver) CleanCopies(ctx context.Context, name, uid, kind string, bitmaps []string) error {
	return copyError(name, "clean up copies of", d.copier().clean(ctx, name, driver.Copy{Kind: kind, UID: uid}, bitmaps))
}

// Bitmaps are the dirty bitmaps of a running machine's disks, by disk.
func (d *Driver) Bitmaps(ctx context.Context, name string) (map[string][]driver.Bitmap, error) {
	found, err := d.copier().bitmaps(ctx, name)
	return found, copyError(name, "look at the bitmaps of", err)
}

// DropBitmaps removes bitmaps from the disks of a running machine.
func (d *Driver) DropBitmaps(ctx context.Context, name string, which func(bitmap string) bool) error {
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		nodes, err := namedNodes(ctx, c)
		if err != nil {
			return err
		}
		return dropBitmaps(ctx, c, nodes, which)
	})
	return copyError(name, "remove bitmaps of", err)
}

func (d *Driver) copier() *copier {
	return &copier{snapshots: d.snapshots(), await: func(ctx context.Context, name string, what driver.Awaited) error {
		return d.Await(ctx, name, nil, what)
	}}
}
