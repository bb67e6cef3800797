package qemu

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
)

// awaitUnplug returns when one of the devices is gone that the guest was asked to let
// go of, or when it has said that it does not. It listens at the socket for events when
// nobody else does, and asks again and again otherwise.
func (d *Driver) awaitUnplug(ctx context.Context, name string) error {
	lock, err := d.locks.TryLock(d.layout.QMPLock(name))
	if err != nil {
		return d.pollUnplugs(ctx, name)
	}
	defer func() { _ = lock.Unlock() }() // the kernel frees it all the same
	var there []qomItem
	list := qomList(peripherals, &there)
	conn, err := qmp.DialPipelined(ctx, d.layout.QMPSocket(name), qmp.Options{Handshake: d.timing.Greeting}, list)
	if err != nil {
		return d.pollUnplugs(ctx, name)
	}
	defer func() { _ = conn.Close() }() // it only listened
	events := conn.Subscribe()
	if err := list.Wait(ctx); err != nil {
		return endedIsFine(err)
	}
	if gone, err := d.unplugged(name, there); gone || err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-events.C():
			if !ok || e.Name == "DEVICE_DELETED" || e.Name == "DEVICE_UNPLUG_GUEST_ERROR" || events.Dropped() > 0 {
				return nil
			}
		}
	}
}

// unplugged tells whether a device is gone that the guest was asked to let go of, or
// whether none is asked for any more.
func (d *Driver) unplugged(name string, there []qomItem) (bool, error) {
	record, err := d.readLaunched(name)
	if err != nil || record == nil || len(record.Unplugs) == 0 {
		return true, err
	}
	for device := range record.Unplugs {
		if !slices.ContainsFunc(there, func(i qomItem) bool { return i.Name == device }) {
			return true, nil
		}
	}
	return false, nil
}

// unplugInterval is how often QEMU is asked while somebody else listens to its events.
const unplugInterval = 100 * time.Millisecond

// pollUnplugs asks for the devices until one is gone. A visit that fails is tried again:
// what is in its way may pass, and the wait has an end of its own.
func (d *Driver) pollUnplugs(ctx context.Context, name string) error {
	for {
		var there []qomItem
		err := d.Visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, d.timing.Query)
			defer cancel()
			return c.Do(ctx, "qom-list", map[string]any{"path": peripherals}, &there)
		})
		if errors.Is(err, ErrNotRunning) || errors.Is(err, driver.ErrForeign) {
			return nil
		}
		if err == nil {
			if gone, err := d.unplugged(name, there); gone || err != nil {
				return err
			}
		}
		if err := pause(ctx, unplugInterval); err != nil {
			return err
		}
	}
}
