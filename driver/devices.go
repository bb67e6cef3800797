package driver

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// The ids of devices that maqet makes of keys of their own, which are the names of
// their slots in an identity, too. No name of a manifest has a dot.
const (
	// SeedDevice is the controller with the drive that holds the seed.
	SeedDevice = "maqet.seed"
	// WatchdogDevice is the watchdog.
	WatchdogDevice = "maqet.watchdog"
	// TPMDevice is the trusted platform module.
	TPMDevice = "maqet.tpm"
)

// The drivers of devices that share a folder of the host with the guest.
const (
	// DeviceVirtioFS is QEMU's part of virtiofs.
	DeviceVirtioFS = "vhost-user-fs-pci"
	// Device9P is QEMU's own server of 9p.
	Device9P = "virtio-9p-pci"
)

// DeviceDifferences are the ways in which two guests differ that forbid loading the
// memory of one into the other, in words; empty when there are none. QEMU itself
// notices only some of them, and after the others it and the guest disagree about
// what is there. Without an observation of the guest of then nothing can be said.
func DeviceDifferences(then, now *Guest) []string {
	if then == nil || now == nil || then.Brief || now.Brief {
		return []string{"the devices are not known"}
	}
	var all []string
	differ := func(what string, a, b any) {
		if a != b {
			all = append(all, fmt.Sprintf("%s: %v then, %v now", what, a, b))
		}
	}
	differ("machine type", then.MachineType, now.MachineType)
	differ("CPU model", then.CPUModel, now.CPUModel)
	differ("vCPUs", then.CPUs, now.CPUs)
	differ("vCPUs that were added", then.AddedCPUs, now.AddedCPUs)
	differ("topology", then.Topology, now.Topology)
	differ("memory", then.Memory, now.Memory)
	if then.Ports > 0 && now.Ports > 0 {
		// What was plugged in used up a spare port, and the next start made another.
		differ("root ports", then.Ports, now.Ports)
	}
	differ("NVRAM", nvramOf(then), nvramOf(now))
	differ("TPM", cmp.Or(then.TPM, "none"), cmp.Or(now.TPM, "none"))
	differ("watchdog", cmp.Or(then.Watchdog, "none"), cmp.Or(now.Watchdog, "none"))
	a, b := devicesOf(then), devicesOf(now)
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if _, there := b[name]; !there {
			all = append(all, name+" was there then and is not now")
		} else {
			differ(name, a[name], b[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, there := a[name]; !there {
			all = append(all, name+" is there now and was not then")
		}
	}
	return all
}

// nvramOf names the NVRAM of a guest.
func nvramOf(g *Guest) string {
	if g.NVRAM == nil {
		return "none"
	}
	return g.NVRAM.Name
}

// devicesOf are a guest's devices, by name, with what the guest knows them by.
func devicesOf(g *Guest) map[string]string {
	all := map[string]string{}
	for _, d := range g.Disks {
		all["disk "+d.Name] = d.Driver
	}
	for _, n := range g.NICs {
		all["nic "+n.Name] = n.Model + " " + n.MAC
	}
	for _, f := range g.Filesystems {
		all["filesystem "+f.Name] = f.Driver
	}
	for _, d := range g.Devices {
		all["device "+d.Name] = d.Driver
	}
	return all
}
