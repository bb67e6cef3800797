package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// Plug adds an item of the spec to a running machine, at the place that it will have at
// each later start, too. That place and the launch record are written first, so that
// whoever comes after a crash knows what was under way. An item whose device QEMU
// refuses leaves nothing behind. The caller holds the machine's lock.
func (d *Driver) Plug(ctx context.Context, vm *manifest.VirtualMachine, part driver.Part) error {
	op := "plug " + part.Noun() + " into"
	err := d.Visit(ctx, vm.Metadata.Name, func(ctx context.Context, c *qmp.Conn) error {
		p := &plugging{driver: d, conn: c, vm: vm, part: part}
		return p.run(ctx)
	})
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "plugged in", slog.String("vm", vm.Metadata.Name), slog.String("part", part.String()))
	}
	return asOp(op, vm.Metadata.Name, err)
}

// plugging is one item being plugged in.
type plugging struct {
	driver *Driver
	conn   *qmp.Conn
	vm     *manifest.VirtualMachine
	part   driver.Part
	// record is the launch record, id the identity with a place for the item.
	record *driver.Launched
	id     driver.Identity
	render *renderer
}

// errNotInSpec is about a part that the manifest does not have.
var errNotInSpec = errors.New("the manifest has no such part")

func (p *plugging) run(ctx context.Context) error {
	if err := p.prepare(ctx); err != nil {
		return err
	}
	behind, devices, err := p.objects(ctx)
	if err != nil {
		return err
	}
	before := p.record.Spec
	err = p.driver.updateLaunched(p.vm.Metadata.Name, p.record, func(l *driver.Launched) {
		l.Ports = l.PortCount()
		l.Identity.MACs, l.Identity.Slots = p.id.MACs, p.id.Slots
		l.Spec = p.part.Of(l.Spec, unlimited(&p.vm.Spec))
		l.Unplugs = withoutUnplug(l.Unplugs, p.part.Name)
	})
	if err != nil {
		return err
	}
	// What is left of an earlier try, or of the item as it was before.
	if err := dropBehind(ctx, p.conn, p.part); err != nil {
		return err
	}
	if err = p.add(ctx, behind, devices); err == nil {
		return nil
	}
	clean := context.WithoutCancel(ctx)
	err = errors.Join(err, dropBehind(clean, p.conn, p.part))
	if _, refused := errors.AsType[*qmp.Error](err); !refused {
		return err // It may be there all the same, and the record must know it then.
	}
	return errors.Join(err, p.driver.updateLaunched(p.vm.Metadata.Name, p.record, func(l *driver.Launched) { l.Spec = before }))
}

// prepare reads the records and finds a place.
func (p *plugging) prepare(ctx context.Context) error {
	d, name := p.driver, p.vm.Metadata.Name
	var err error
	if p.record, err = d.readLaunched(name); err != nil {
		return err
	}
	recorded, err := d.readIdentity(name)
	if err != nil {
		return err
	}
	if p.record == nil || recorded == nil {
		return errors.New("the records of its start or its identity are gone; restart it")
	}
	host, err := d.hostOf(ctx, p.vm)
	if err != nil {
		return err
	}
	p.id = *recorded
	p.id.MACs, p.id.Slots = maps.Clone(recorded.MACs), maps.Clone(recorded.Slots)
	if p.id.MACs == nil {
		p.id.MACs = map[string]string{}
	}
	if p.id.Slots == nil {
		p.id.Slots = map[string]driver.Slot{}
	}
	if err := allocateMACs(p.id.MACs, p.vm, rand.Reader); err != nil {
		return err
	}
	if err := p.place(host); err != nil {
		return err
	}
	if !sameEntries(p.id.MACs, recorded.MACs) || !sameEntries(p.id.Slots, recorded.Slots) {
		if err := d.writeIdentity(name, p.id); err != nil {
			return err
		}
	}
	p.render = newRenderer(RenderInput{VM: p.vm, Identity: p.id, Host: host, Layout: d.layout, Kinds: d.kinds})
	// The board is the one of the process, whatever the next start would take.
	p.render.family = driver.BusFamilyOf(p.record.Machine)
	p.render.bootOrder()
	return p.render.err
}

// place finds the item's place, in the process and at each later start.
func (p *plugging) place(host driver.Host) error {
	name := p.part.Name
	pci, scsi := false, false
	switch p.part.List {
	case driver.ListNICs:
		i := slices.IndexFunc(p.vm.Spec.NICs, func(n manifest.NIC) bool { return n.Name == name })
		pci = i >= 0 && host.PCIDevices[p.vm.Spec.NICs[i].Model]
	case driver.ListDisks:
		i := slices.IndexFunc(p.vm.Spec.Disks, func(d manifest.Disk) bool { return d.Name == name })
		pci = i >= 0 && (p.vm.Spec.Disks[i].Bus == manifest.BusVirtio || p.vm.Spec.Disks[i].Bus == manifest.BusNVMe)
		scsi = i >= 0 && p.vm.Spec.Disks[i].Bus == manifest.BusVirtioSCSI
	case driver.ListDevices:
		i := slices.IndexFunc(p.vm.Spec.Devices, func(d manifest.Device) bool { return d.Name == name })
		pci = i >= 0 && needsSlot(p.vm.Spec.Devices[i], host)
	}
	ok := true
	switch {
	case pci:
		_, ok = p.record.PlugPlace(p.id.Slots, &p.vm.Spec, name)
	case scsi:
		_, ok = p.record.PlugSCSI(p.id.Slots, &p.vm.Spec, name)
	}
	if !ok {
		return fmt.Errorf("no place is left for %s; restart the machine, with more machine.hotplugPorts for the next one", p.part.Noun())
	}
	return nil
}

// command is one command of QMP.
type command struct {
	name string
	args object
}

// objects are what is added behind the device, and the device itself.
func (p *plugging) objects(ctx context.Context) (behind []command, devices []object, err error) {
	switch p.part.List {
	case driver.ListNICs:
		return p.nic(ctx)
	case driver.ListDisks:
		return p.disk()
	case driver.ListDevices:
		return p.device()
	default:
		return nil, nil, errNotInSpec
	}
}

// nic are the network and the card.
func (p *plugging) nic(ctx context.Context) ([]command, []object, error) {
	i := slices.IndexFunc(p.vm.Spec.NICs, func(n manifest.NIC) bool { return n.Name == p.part.Name })
	if i < 0 {
		return nil, nil, errNotInSpec
	}
	n := p.vm.Spec.NICs[i]
	card := p.render.card(p.part.String(), n)
	if p.render.err != nil {
		return nil, nil, p.render.err
	}
	var netdev object
	var err error
	switch {
	case n.User != nil:
		netdev, err = userNetdev(n)
	case n.Bridge != nil:
		netdev, err = p.tap(ctx, n)
	default:
		err = fmt.Errorf("nic %s has no network", n.Name)
	}
	return []command{{"netdev_add", netdev}}, []object{card}, err
}

// tap opens a tap on the nic's bridge and hands it over. QEMU keeps it under a name
// until netdev_add takes it; an older one of that name is closed.
func (p *plugging) tap(ctx context.Context, n manifest.NIC) (object, error) {
	f, err := p.driver.openTap(ctx, n.Bridge.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // QEMU has its own
	name := NetdevID(n.Name)
	if err := p.conn.DoWithFile(ctx, "getfd", map[string]any{"fdname": name}, nil, f); err != nil {
		return nil, err
	}
	return tapNetdev(n, name), nil
}

// add adds what is behind the device, and the device.
func (p *plugging) add(ctx context.Context, behind []command, devices []object) error {
	for _, c := range behind {
		if err := p.conn.Do(ctx, c.name, c.args, nil); err != nil {
			return err
		}
	}
	for _, o := range devices {
		if err := p.conn.Do(ctx, "device_add", o, nil); err != nil {
			return err
		}
	}
	return nil
}

// Unplug asks the guest of a running machine to let go of a device. When it is gone is
// seen by looking again. That it was asked is written into the launch record first.
func (d *Driver) Unplug(ctx context.Context, name string, part driver.Part, u driver.Unplug) error {
	op := "unplug " + part.Noun() + " from"
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		record, err := d.readLaunched(name)
		if err != nil || record == nil {
			return errors.Join(err, errNoLaunchRecord(record))
		}
		before := record.Unplugs
		err = d.updateLaunched(name, record, func(l *driver.Launched) {
			l.Unplugs = maps.Clone(l.Unplugs)
			if l.Unplugs == nil {
				l.Unplugs = map[string]driver.Unplug{}
			}
			l.Unplugs[part.Name] = u
		})
		if err != nil {
			return err
		}
		err = c.Do(ctx, "device_del", map[string]any{"id": part.Name}, nil)
		if err == nil || qmp.IsDeviceNotFound(err) {
			return nil
		}
		if _, again := before[part.Name]; again {
			// Newer ones refuse to be asked again while the guest is busy with it.
			return nil
		}
		return errors.Join(err, d.updateLaunched(name, record, func(l *driver.Launched) { l.Unplugs = withoutUnplug(l.Unplugs, part.Name) }))
	})
	if err == nil {
		d.log.LogAttrs(ctx, slog.LevelInfo, "asked to let go", slog.String("vm", name), slog.String("part", part.String()))
	}
	return asOp(op, name, err)
}

// errNoLaunchRecord is the error of a running machine without a launch record.
func errNoLaunchRecord(record *driver.Launched) error {
	if record == nil {
		return errors.New("the record of its start is gone; restart it")
	}
	return nil
}

// Drop removes what is behind a device that is gone from a running machine, and the
// item from the launch record.
func (d *Driver) Drop(ctx context.Context, name string, part driver.Part) error {
	op := "remove what was behind " + part.Noun() + " of"
	err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		record, err := d.readLaunched(name)
		if err != nil || record == nil {
			return errors.Join(err, errNoLaunchRecord(record))
		}
		var there []qomItem
		if err := c.Do(ctx, "qom-list", map[string]any{"path": peripherals}, &there); err != nil {
			return err
		}
		if slices.ContainsFunc(there, func(i qomItem) bool { return i.Name == part.Name }) {
			return fmt.Errorf("%s is there again", part.Noun())
		}
		if err := dropBehind(ctx, c, part); err != nil {
			return err
		}
		return d.updateLaunched(name, record, func(l *driver.Launched) {
			l.Spec = part.Of(l.Spec, &manifest.VirtualMachineSpec{})
			l.Unplugs = withoutUnplug(l.Unplugs, part.Name)
		})
	})
	return asOp(op, name, err)
}

// dropBehind removes what was behind a device that is gone. What is not there is no error.
func dropBehind(ctx context.Context, c *qmp.Conn, part driver.Part) error {
	switch part.List {
	case driver.ListNICs:
		err := c.Do(ctx, "netdev_del", map[string]any{"id": NetdevID(part.Name)}, nil)
		if err != nil && !qmp.IsDeviceNotFound(err) {
			return err
		}
	case driver.ListDisks:
		return dropDisk(ctx, c, part.Name)
	}
	return nil
}

// withoutUnplug is the map without a name.
func withoutUnplug(all map[string]driver.Unplug, name string) map[string]driver.Unplug {
	all = maps.Clone(all)
	delete(all, name)
	if len(all) == 0 {
		return nil
	}
	return all
}
