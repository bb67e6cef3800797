package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// disk are the block nodes of a disk, its thread, and the drive.
func (p *plugging) disk() ([]command, []object, error) {
	i := slices.IndexFunc(p.vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == p.part.Name })
	if i < 0 {
		return nil, nil, errNotInSpec
	}
	d := p.vm.Spec.Disks[i]
	behind, err := p.driver.nodes(p.vm, d)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range diskObjects(d) {
		behind = append(behind, command{"object-add", o})
	}
	drives := diskDevices(d, p.render.diskSeat(p.part.String(), d), p.render.boot[d.Name])
	return behind, drives, p.render.err
}

// nodes are the commands that add the block nodes of a disk; none for an empty drive.
func (d *Driver) nodes(vm *manifest.VirtualMachine, want manifest.Disk) ([]command, error) {
	if want.IsEmpty() {
		return nil, nil
	}
	source, err := d.kinds.Source(&want, d.layout.Disk(vm.Metadata.Name, want.Name))
	if err != nil {
		return nil, err
	}
	var all []command
	for _, node := range blockNodes(want, source) {
		all = append(all, command{"blockdev-add", node})
	}
	return all, nil
}

// device is a further device.
func (p *plugging) device() ([]command, []object, error) {
	i := slices.IndexFunc(p.vm.Spec.Devices, func(d manifest.Device) bool { return d.Name == p.part.Name })
	if i < 0 {
		return nil, nil, errNotInSpec
	}
	d := p.vm.Spec.Devices[i]
	var slot driver.Slot
	if needsSlot(d, p.render.Host) {
		slot = p.render.pciSeat(p.part.String(), d.Name, d.Driver)
	}
	return nil, []object{plainDevice(d, slot)}, p.render.err
}

// unlimited is a spec whose disks have no limits: a drive gets them once it is there.
func unlimited(spec *manifest.VirtualMachineSpec) *manifest.VirtualMachineSpec {
	next := *spec
	next.Disks = slices.Clone(next.Disks)
	for i := range next.Disks {
		next.Disks[i].Throttle = nil
	}
	return &next
}

// dropDisk removes the block nodes and the thread of a drive that is gone or empty. The
// file itself stays.
func dropDisk(ctx context.Context, c *qmp.Conn, name string) error {
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := c.Do(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return err
	}
	for _, node := range []string{name, FileNode(name)} {
		for _, n := range nodes {
			if n.Name != node {
				continue
			}
			if err := dropNode(ctx, c, node); err != nil {
				return err
			}
		}
	}
	var threads []struct {
		ID string `json:"id"`
	}
	if err := c.Do(ctx, "query-iothreads", nil, &threads); err != nil {
		return err
	}
	for _, t := range threads {
		if t.ID == ThreadID(name) {
			return c.Do(ctx, "object-del", map[string]any{"id": t.ID}, nil)
		}
	}
	return nil
}

// letGoTime is how long QEMU itself may still hold the node of a drive that is gone, and
// letGoInterval how often it is tried.
const (
	letGoTime     = 2 * time.Second
	letGoInterval = 10 * time.Millisecond
)

// dropNode removes a block node. A SCSI drive that is gone holds its own for a moment
// longer, until QEMU's other threads have seen that it is.
func dropNode(ctx context.Context, c *qmp.Conn, node string) error {
	waiting, cancel := context.WithTimeout(ctx, letGoTime)
	defer cancel()
	for {
		err := c.Do(ctx, "blockdev-del", map[string]any{"node-name": node}, nil)
		if _, refused := errors.AsType[*qmp.Error](err); !refused || pause(waiting, letGoInterval) != nil {
			return err
		}
	}
}

// ErrTrayLocked is a cdrom whose guest keeps its tray shut.
var ErrTrayLocked = errors.New("the guest has locked the tray")

// Medium puts the medium of the spec into a cdrom of a running machine, or takes out the
// one that is in it. It opens the tray as a person would: a guest that has locked it is
// told that somebody wants it opened, and keeps it shut as long as it likes.
func (d *Driver) Medium(ctx context.Context, vm *manifest.VirtualMachine, part driver.Part) error {
	name := vm.Metadata.Name
	i := slices.IndexFunc(vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == part.Name })
	if i < 0 {
		return fail("change the medium of disk "+part.Name+" of", name, errNoDisk, "")
	}
	want := vm.Spec.Disks[i]
	nodes, err := d.nodes(vm, want)
	if err == nil {
		err = d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
			return d.changeMedium(ctx, c, vm, want, nodes)
		})
	}
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "medium changed", slog.String("vm", name), slog.String("part", part.String()))
	}
	op := "change the medium of disk " + part.Name + " of"
	if errors.Is(err, ErrTrayLocked) {
		return fail(op, name, err, "eject it in the guest, and apply again")
	}
	return asOp(op, name, err)
}

func (d *Driver) changeMedium(ctx context.Context, c *qmp.Conn, vm *manifest.VirtualMachine, want manifest.Disk, nodes []command) error {
	record, err := d.readLaunched(vm.Metadata.Name)
	if err != nil || record == nil {
		return errors.Join(err, errNoLaunchRecord(record))
	}
	drive := map[string]any{"id": want.Name}
	if err := openTray(ctx, c, want.Name); err != nil {
		return err
	}
	part := driver.Part{List: driver.ListDisks, Name: want.Name}
	before := record.Spec
	err = d.updateLaunched(vm.Metadata.Name, record, func(l *driver.Launched) { l.Spec = part.Of(l.Spec, unlimited(&vm.Spec)) })
	if err == nil {
		err = c.Do(ctx, "blockdev-remove-medium", drive, nil)
	}
	if err == nil {
		err = dropDisk(ctx, c, want.Name)
	}
	var refused error
	for i := 0; err == nil && refused == nil && i < len(nodes); i++ {
		refused = c.Do(ctx, nodes[i].name, nodes[i].args, nil)
	}
	if err == nil && refused == nil && len(nodes) > 0 {
		refused = c.Do(ctx, "blockdev-insert-medium", map[string]any{"id": want.Name, "node-name": want.Name}, nil)
	}
	if refused != nil {
		// The tray is shut again, empty; the next look sees that.
		err = errors.Join(refused, dropDisk(ctx, c, want.Name),
			d.updateLaunched(vm.Metadata.Name, record, func(l *driver.Launched) { l.Spec = before }))
	}
	return errors.Join(err, c.Do(ctx, "blockdev-close-tray", drive, nil))
}

// openTray opens the tray of a cdrom, and is ErrTrayLocked where the guest forbids it.
func openTray(ctx context.Context, c *qmp.Conn, name string) error {
	refused := c.Do(ctx, "blockdev-open-tray", map[string]any{"id": name, "force": false}, nil)
	var drives []struct {
		QDev   string `json:"qdev"`
		Open   bool   `json:"tray_open"`
		Locked bool   `json:"locked"`
	}
	if err := c.Do(ctx, "query-block", nil, &drives); err != nil {
		return errors.Join(refused, err)
	}
	for _, d := range drives {
		named := blockDrive{QDev: d.QDev}
		switch {
		case named.name() != name:
		case d.Open:
			return nil
		case d.Locked:
			return fmt.Errorf("%w of %s", ErrTrayLocked, name)
		}
	}
	return refused
}
