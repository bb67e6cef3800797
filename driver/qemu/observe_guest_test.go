package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// TestObserve_everyKindOfDevice_isSeenAsItIs asks real machines: one whose board
// lists the CPUs that can be plugged, one whose board does not, and one without.
func TestObserve_everyKindOfDevice_isSeenAsItIs(t *testing.T) {
	cases := map[string]struct {
		change func(r *rig, s *manifest.VirtualMachineSpec)
		want   func(r *rig) driver.Guest
	}{
		"q35": {
			change: func(r *rig, s *manifest.VirtualMachineSpec) {
				s.CPU = &manifest.CPU{Count: 4, Topology: &manifest.Topology{Sockets: 2, Cores: 1, Threads: 2}, Model: "Nehalem"}
				s.Disks = []manifest.Disk{
					{Name: "root", Size: 1 << 20},
					{Name: "iso", File: r.file("a.iso"), Format: manifest.FormatRaw, Media: manifest.MediaCDROM},
				}
				s.NICs = []manifest.NIC{
					{Name: "lan", User: &manifest.UserNet{}, MAC: "52:54:00:00:00:0a"},
					{Name: "dmz", Model: "e1000e", User: &manifest.UserNet{}, MAC: "52:54:00:00:00:0b"},
				}
				s.Devices = []manifest.Device{{Name: "rng0", Driver: "virtio-rng-pci"}}
				s.Emulator.ExtraArgs = []string{
					// A drive without a medium, and one that is the drive of another device.
					"-device", "ide-cd,id=empty,bus=ide.5",
					"-blockdev", "driver=file,node-name=stick.file,filename=" + r.file("stick") + ",read-only=on",
					"-device", "qemu-xhci,id=usb", "-device", "usb-storage,id=stick,drive=stick.file,bus=usb.0",
					"-blockdev", "driver=null-co,node-name=other",
					"-device", "virtio-scsi-pci,id=bus0", "-device", "scsi-hd,id=far,drive=other,bus=bus0.0",
				}
			},
			want: func(r *rig) driver.Guest {
				return driver.Guest{
					MachineType: "pc-q35-7.2", CPUs: 4, Topology: driver.Topology{Sockets: 2, Cores: 1, Threads: 2}, CPUModel: "Nehalem-x86_64-cpu",
					Disks: []driver.GDisk{
						{Name: "empty", Driver: "ide-cd", ReadOnly: true, Empty: true, IOStatus: "ok"},
						usual(driver.GDisk{Name: "far", Driver: "scsi-hd", File: "null-co://", Format: "null-co", Size: 1 << 30}),
						usual(driver.GDisk{Name: "iso", Driver: "ide-cd", File: r.file("a.iso"), Format: "raw", ReadOnly: true, Size: 1 << 20}),
						usual(driver.GDisk{Name: "root", Driver: "virtio-blk-pci", File: r.layout.Disk("web", "root"), Format: "qcow2", Size: 1 << 20}),
						usual(driver.GDisk{Name: "stick", Driver: "usb-storage", File: r.file("stick"), Format: "file", ReadOnly: true, Size: 1 << 20}),
					},
					NICs: []driver.GNIC{
						{Name: "dmz", Model: "e1000e", MAC: "52:54:00:00:00:0b"},
						{Name: "lan", Model: "virtio-net-pci", MAC: "52:54:00:00:00:0a"},
					},
					Devices: []driver.GDevice{
						{Name: "bus0", Driver: "virtio-scsi-pci"},
						{Name: "rng0", Driver: "virtio-rng-pci"},
						{Name: "usb", Driver: "qemu-xhci"},
					},
					Ports: 4,
				}
			},
		},
		"microvm": {
			change: func(_ *rig, s *manifest.VirtualMachineSpec) {
				s.Machine = &manifest.Machine{Type: "microvm"}
				s.CPU = &manifest.CPU{Count: 3, Topology: &manifest.Topology{Sockets: 1, Cores: 3, Threads: 1}}
			},
			want: func(*rig) driver.Guest {
				return driver.Guest{MachineType: "microvm", CPUs: 3, Topology: driver.Topology{Sockets: 1, Cores: 3, Threads: 1}, CPUModel: "qemu64-x86_64-cpu"}
			},
		},
		"none": {
			change: func(_ *rig, s *manifest.VirtualMachineSpec) { bareBoard(s) },
			want: func(*rig) driver.Guest {
				return driver.Guest{MachineType: "none", CPUs: 1, Topology: driver.Topology{Sockets: 1, Cores: 1, Threads: 1}}
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { c.change(r, s) })
			r.start(vm, false)
			got := r.observe(vm, driver.DepthFull, driver.Alive).Guest
			want := c.want(r)
			want.RunState, want.Accelerator, want.UID, want.Version, want.Memory = "running", "tcg", got.UID, got.Version, got.Memory
			if want.MachineType != "none" && got.Memory != 32<<20 {
				t.Errorf("memory %d, want 32 MiB", got.Memory)
			}
			if diff := cmp.Diff(want, *got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("guest (-want +got):\n%s", diff)
			}
		})
	}
}

// usual is a drive with what QEMU has where nothing else is said.
func usual(d driver.GDisk) driver.GDisk {
	d.Cache, d.DetectZeroes, d.IOStatus = string(manifest.CacheWriteback), string(manifest.DetectZeroesOff), "ok"
	return d
}

// file is an empty image of 1 MiB.
func (r *rig) file(name string) string {
	path := filepath.Join(filepath.Dir(r.layout.State), name)
	r.must(os.WriteFile(path, make([]byte, 1<<20), 0o600))
	return path
}
