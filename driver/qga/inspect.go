package qga

import (
	"context"
	"slices"
)

// Bounds of what is taken over from an agent's account of its guest: enough for any
// guest, and for one that lies no more than this.
const (
	maxText       = 256
	maxInterfaces = 256
	maxAddresses  = 64
	maxMounts     = 1024
)

// OSInfo is what the guest runs. What the agent does not know is empty.
type OSInfo struct {
	// ID is a short name such as debian, Name and Pretty are for people.
	ID      string `json:"id"`
	Name    string `json:"name"`
	Pretty  string `json:"pretty-name"`
	Version string `json:"version-id"`
	// Kernel is the kernel's release, Machine its architecture.
	Kernel  string `json:"kernel-release"`
	Machine string `json:"machine"`
}

// OSInfo asks which operating system the guest runs.
func (c *Conn) OSInfo(ctx context.Context) (OSInfo, error) {
	var r OSInfo
	err := c.Do(ctx, "guest-get-osinfo", nil, &r)
	for _, text := range []*string{&r.ID, &r.Name, &r.Pretty, &r.Version, &r.Kernel, &r.Machine} {
		*text = Clean(*text, maxText)
	}
	return r, err
}

// HostName asks for the guest's host name.
func (c *Conn) HostName(ctx context.Context) (string, error) {
	var r struct {
		Name string `json:"host-name"`
	}
	err := c.Do(ctx, "guest-get-host-name", nil, &r)
	return Clean(r.Name, maxText), err
}

// Version asks for the agent's own version.
func (c *Conn) Version(ctx context.Context) (string, error) {
	var r struct {
		Version string `json:"version"`
	}
	err := c.Do(ctx, "guest-info", nil, &r)
	return Clean(r.Version, maxText), err
}

// Interface is a network interface of the guest.
type Interface struct {
	Name string `json:"name"`
	MAC  string `json:"hardware-address"`
	IPs  []IP   `json:"ip-addresses"`
}

// IP is an address of an interface.
type IP struct {
	Address string `json:"ip-address"`
	Prefix  int    `json:"prefix"`
}

// Interfaces asks for the guest's network interfaces and their addresses.
func (c *Conn) Interfaces(ctx context.Context) ([]Interface, error) {
	var all []Interface
	err := c.Do(ctx, "guest-network-get-interfaces", nil, &all)
	all = all[:min(len(all), maxInterfaces)]
	for i := range all {
		n := &all[i]
		n.Name, n.MAC = Clean(n.Name, maxText), Clean(n.MAC, maxText)
		n.IPs = n.IPs[:min(len(n.IPs), maxAddresses)]
		for j := range n.IPs {
			n.IPs[j].Address = Clean(n.IPs[j].Address, maxText)
		}
	}
	return all, err
}

// Mountpoints asks for the mount points of the guest's file systems on disks, each
// once, sorted.
func (c *Conn) Mountpoints(ctx context.Context) ([]string, error) {
	var all []struct {
		Mountpoint string `json:"mountpoint"`
	}
	err := c.Do(ctx, "guest-get-fsinfo", nil, &all)
	points := make([]string, 0, min(len(all), maxMounts))
	for _, fs := range all[:min(len(all), maxMounts)] {
		points = append(points, Clean(fs.Mountpoint, maxText))
	}
	slices.Sort(points)
	return slices.Compact(points), err
}

// Freeze writes out and freezes every file system on a disk of the guest that can be
// frozen, and returns how many. Until Thaw the agent refuses nearly everything else.
// When it fails, the agent has thawed all again.
func (c *Conn) Freeze(ctx context.Context) (int, error) {
	var n int
	err := c.Do(ctx, "guest-fsfreeze-freeze", nil, &n)
	return n, err
}

// Thaw lets every frozen file system go on, and returns how many were frozen.
func (c *Conn) Thaw(ctx context.Context) (int, error) {
	var n int
	err := c.Do(ctx, "guest-fsfreeze-thaw", nil, &n)
	return n, err
}

// Frozen asks whether file systems are frozen, as far as the agent knows.
func (c *Conn) Frozen(ctx context.Context) (bool, error) {
	var status string
	err := c.Do(ctx, "guest-fsfreeze-status", nil, &status)
	return status == "frozen", err
}
