package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// CreateDisk makes the storage of a disk that has a size. What exists is never
// touched, and is no error.
func (d *Driver) CreateDisk(ctx context.Context, vm *manifest.VirtualMachine, name string) error {
	op := "create disk " + name + " of"
	want, maker, src, err := d.made(vm, name)
	if err != nil {
		return fail(op, vm.Metadata.Name, err, "make it yourself, or give the disk a size instead")
	}
	if err := notRestoring(d.layout.Disk(vm.Metadata.Name, name)); err != nil {
		return fail(op, vm.Metadata.Name, err, restoreAgain)
	}
	if err := d.ofNoImage(vm.Metadata.Name, name); err != nil {
		return fail(op, vm.Metadata.Name, err, "")
	}
	return maker.Make(ctx, want, src)
}

// made is a disk whose storage maqet makes, with what makes it and where.
func (d *Driver) made(vm *manifest.VirtualMachine, name string) (*manifest.Disk, disk.Maker, disk.Source, error) {
	for i := range vm.Spec.Disks {
		want := &vm.Spec.Disks[i]
		if want.Name != name {
			continue
		}
		maker, err := d.kinds.Maker(want)
		if err != nil {
			return nil, nil, disk.Source{}, err
		}
		return want, maker, maker.Source(want, d.layout.Disk(vm.Metadata.Name, name)), nil
	}
	return nil, nil, disk.Source{}, errNoDisk
}

// errNoDisk is about a name that no disk of the manifest has.
var errNoDisk = errors.New("the machine has no such disk; name one of spec.disks")

// GrowDisk makes a disk as large as its size: through QEMU where that has it open,
// else in its absence. A disk that is larger is refused, and nothing is cut off.
func (d *Driver) GrowDisk(ctx context.Context, vm *manifest.VirtualMachine, obs driver.Observed, name string) error {
	op := "grow disk " + name + " of"
	want, maker, src, err := d.made(vm, name)
	if err != nil {
		return fail(op, vm.Metadata.Name, err, "grow it yourself while the machine is stopped")
	}
	switch obs.Presence {
	case driver.Alive:
		err = d.Visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error { return growLive(ctx, c, want) })
	case driver.Absent:
		return maker.Grow(ctx, want, src)
	case driver.Unresponsive, driver.Unknown:
		err = fmt.Errorf("%w: %s", driver.ErrUnresponsive, obs.Message)
	}
	return asOp(op, vm.Metadata.Name, err)
}

// growLive grows a disk that QEMU has open. QEMU would shrink it just as well, so it is
// asked for the size first.
func growLive(ctx context.Context, c *qmp.Conn, d *manifest.Disk) error {
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Size int64 `json:"virtual-size"`
		} `json:"image"`
	}
	if err := c.Do(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return err
	}
	i := 0
	for i < len(nodes) && nodes[i].Name != d.Name {
		i++
	}
	switch {
	case i == len(nodes):
		return fmt.Errorf("QEMU has no disk %s", d.Name)
	case nodes[i].Image.Size > d.Size.Bytes():
		return fmt.Errorf("%w: it is %s and would become %s", disk.ErrShrink, manifest.Quantity(nodes[i].Image.Size), d.Size)
	case nodes[i].Image.Size == d.Size.Bytes():
		return nil
	}
	return c.Do(ctx, "block_resize", map[string]any{"node-name": d.Name, "size": d.Size.Bytes()}, nil)
}

// ThrottleDisk sets the limits of a drive of a running machine.
func (d *Driver) ThrottleDisk(ctx context.Context, vm *manifest.VirtualMachine, name string) error {
	op := "limit disk " + name + " of"
	err := d.Visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
		if err := limitDrives(ctx, c, vm, func(d *manifest.Disk) bool { return d.Name == name }); err != nil {
			return err
		}
		return d.recordLimits(vm, name)
	})
	return asOp(op, vm.Metadata.Name, err)
}

// recordLimits writes the limits that a drive has got into the launch record, so that
// somebody else's change of them is told from one of the manifest.
func (d *Driver) recordLimits(vm *manifest.VirtualMachine, name string) error {
	record, err := d.readLaunched(vm.Metadata.Name)
	if err != nil || record == nil {
		return err
	}
	var limits *manifest.Throttle
	for i := range vm.Spec.Disks {
		if want := &vm.Spec.Disks[i]; want.Name == name {
			limits = want.Throttle
		}
	}
	return d.updateLaunched(vm.Metadata.Name, record, func(l *driver.Launched) {
		for i := range l.Spec.Disks {
			if has := &l.Spec.Disks[i]; has.Name == name {
				has.Throttle = limits
			}
		}
	})
}

// limitStarted sets the limits of a machine that was started just now, in its first
// conversation, and asks once more for what they have changed. QEMU has no option for
// them that leaves the drive's block nodes as they are. What fails here is seen, and
// done again, by the next look.
func (d *Driver) limitStarted(ctx context.Context, vm *manifest.VirtualMachine, t *talk) {
	limited := func(d *manifest.Disk) bool { return d.Throttle != nil }
	if !slices.ContainsFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return limited(&d) }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
	defer cancel()
	err := limitDrives(ctx, t.conn, vm, limited)
	if err == nil {
		err = t.q.askDrivesAgain(ctx, t.conn)
	}
	if err != nil {
		d.log.WarnContext(ctx, "limiting the drives of a new machine failed", "vm", vm.Metadata.Name, "err", err)
	}
}

// limitDrives sets the limits of those drives of a machine.
func limitDrives(ctx context.Context, c *qmp.Conn, vm *manifest.VirtualMachine, which func(*manifest.Disk) bool) error {
	var drives []blockDrive
	if err := c.Do(ctx, "query-block", nil, &drives); err != nil {
		return err
	}
	found := false
	for i := range vm.Spec.Disks {
		d := &vm.Spec.Disks[i]
		if !which(d) {
			continue
		}
		found = true
		drive := driveOf(drives, d.Name)
		if drive == nil {
			return fmt.Errorf("QEMU has no disk %s", d.Name)
		}
		iops, bps := d.Throttle.Limits()
		if err := c.Do(ctx, "block_set_io_throttle", map[string]any{
			"id": drive.QDev, "iops": iops, "iops_rd": 0, "iops_wr": 0, "bps": bps, "bps_rd": 0, "bps_wr": 0,
		}, nil); err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	if !found {
		return errNoDisk
	}
	return nil
}
