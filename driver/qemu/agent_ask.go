package qemu

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qga"
)

// AskGuest asks the agent in a guest for the guest's name, system and addresses, within
// the time of a look. What the agent does not have, or is not permitted to tell, is left
// out. Nil is an agent that did not answer in time, or that somebody else visits: asking
// it is never worth a wait, and never an error.
func (d *Driver) AskGuest(ctx context.Context, name string) *driver.GuestInfo {
	if d.usable(name) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.timing.AgentLook)
	defer cancel()
	var info *driver.GuestInfo
	err := d.atAgent(ctx, name, d.timing.AgentLook, func(ctx context.Context, c *qga.Conn) (err error) {
		info, err = guestInfo(ctx, c)
		return err
	})
	if err != nil {
		return nil
	}
	return info
}

// maxGuestAddresses is how many of a guest's addresses are shown in one place.
const maxGuestAddresses = 64

// guestInfo asks one thing after the other. A refusal leaves out what was refused.
func guestInfo(ctx context.Context, c *qga.Conn) (*driver.GuestInfo, error) {
	info := &driver.GuestInfo{Addresses: []string{}, Interfaces: []driver.GuestInterface{}}
	var err error
	if info.AgentVersion, err = c.Version(ctx); fatal(err) {
		return nil, err
	}
	if info.Hostname, err = c.HostName(ctx); fatal(err) {
		return nil, err
	}
	os, err := c.OSInfo(ctx)
	switch {
	case fatal(err):
		return nil, err
	case err == nil:
		info.OS = &driver.GuestOS{ID: os.ID, Name: os.Pretty, Version: os.Version, Kernel: os.Kernel, Machine: os.Machine}
		if info.OS.Name == "" {
			info.OS.Name = os.Name
		}
	}
	all, err := c.Interfaces(ctx)
	if fatal(err) {
		return nil, err
	}
	for _, n := range all {
		i := driver.GuestInterface{Name: n.Name, MAC: n.MAC, Addresses: []string{}}
		for _, ip := range n.IPs {
			i.Addresses = append(i.Addresses, fmt.Sprintf("%s/%d", ip.Address, ip.Prefix))
			if a, err := netip.ParseAddr(ip.Address); err == nil && !a.IsLoopback() && !a.IsLinkLocalUnicast() && len(info.Addresses) < maxGuestAddresses {
				info.Addresses = append(info.Addresses, a.WithZone("").String())
			}
		}
		info.Interfaces = append(info.Interfaces, i)
	}
	return info, nil
}

// fatal tells whether an agent cannot be asked more.
func fatal(err error) bool {
	_, refused := errors.AsType[*qga.Error](err)
	return err != nil && !refused
}
