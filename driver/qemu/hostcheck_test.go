package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/manifest"
)

func TestCheck_whatTheHostCannotDo_isFoundAtItsField(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	writeTestFile(t, image, []byte("x"))
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	isapc := &manifest.Machine{Type: "isapc"}
	pc := &manifest.Machine{Type: "pc"}
	tests := []struct {
		name string
		spec manifest.VirtualMachineSpec
		path string
		says string
		hint string
	}{
		{"machine type", manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "q36"}}, "spec.machine.type", `"q36"`, `did you mean "q35"?`},
		{"machine type, nothing near", manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "raspberry"}}, "spec.machine.type", "raspberry", "-machine help"},
		{"hotplug ports", manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "pc", HotplugPorts: 2}}, "spec.machine.hotplugPorts", "no PCI Express", "q35"},
		{"CPU model", manifest.VirtualMachineSpec{CPU: &manifest.CPU{Model: "haswel-v1"}}, "spec.cpu.model", "haswel-v1", `"Haswell-v1"`},
		{"vCPUs", manifest.VirtualMachineSpec{CPU: &manifest.CPU{Count: 256}}, "spec.cpu.count", "256 vCPUs", "lower"},
		{"device", manifest.VirtualMachineSpec{Devices: []manifest.Device{{Name: "r", Driver: "virtio-rgn-pci"}}}, "spec.devices[0].driver", "virtio-rgn-pci", `"virtio-rng-pci"`},
		{"device by its short name", manifest.VirtualMachineSpec{Devices: []manifest.Device{{Name: "r", Driver: "virtio-rng"}}}, "spec.devices[0].driver", "virtio-rng", `"virtio-rng-pci"`},
		{"PCI device without PCI", manifest.VirtualMachineSpec{Machine: isapc, Devices: []manifest.Device{{Name: "r", Driver: "e1000"}}}, "spec.devices[0].driver", "no PCI bus", "q35"},
		{"nic model", manifest.VirtualMachineSpec{NICs: []manifest.NIC{{Name: "lan", Model: "e10000", User: &manifest.UserNet{}}}}, "spec.nics[0].model", "e10000", `"e1000"`},
		{"nic without PCI", manifest.VirtualMachineSpec{Machine: isapc, NICs: []manifest.NIC{userNIC("lan")}}, "spec.nics[0].model", "no PCI bus", "q35"},
		{"guest agent without PCI", manifest.VirtualMachineSpec{Machine: isapc, GuestAgent: &manifest.GuestAgent{}}, "spec.guestAgent", "no PCI bus", "q35"},
		{"bridge", manifest.VirtualMachineSpec{NICs: []manifest.NIC{{Name: "lan", Bridge: &manifest.BridgeNet{Name: "br-none"}}}}, "spec.nics[0].bridge.name", "no bridge", "ip link add br-none type bridge"},
		{"bridge that is none", manifest.VirtualMachineSpec{NICs: []manifest.NIC{{Name: "lan", Bridge: &manifest.BridgeNet{Name: "lo"}}}}, "spec.nics[0].bridge.name", "but no bridge", "port of"},
		{"disk without PCI", manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{sized("root")}}, "spec.disks[0]", "no PCI bus", "q35"},
		{"usb disk without PCI", manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{onBus("root", manifest.BusUSB)}}, "spec.disks[0]", "no PCI bus", "q35"},
		{"sata disk on pc", manifest.VirtualMachineSpec{Machine: pc, Disks: []manifest.Disk{onBus("root", manifest.BusSATA)}}, "spec.disks[0].bus", "no SATA", "virtio-scsi"},
		{"sata on pc", manifest.VirtualMachineSpec{Machine: pc, Disks: []manifest.Disk{{Name: "cd", File: image, Media: manifest.MediaCDROM, Bus: manifest.BusSATA}}}, "spec.disks[0].bus", "no SATA", "virtio"},
		{"accelerator unknown", manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Accelerators: []string{"kwm"}}}, "spec.emulator.accelerators[0]", "kwm", `"kvm"`},
		{"accelerator not compiled in", manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Accelerators: []string{"xen"}}}, "spec.emulator.accelerators[0]", "built without", "kvm and tcg"},
		{"kvm", manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Accelerators: []string{"kvm"}}}, "spec.emulator.accelerators[0]", "does not exist", "modprobe"},
		{"kernel", manifest.VirtualMachineSpec{Boot: &manifest.Boot{Kernel: &manifest.Kernel{Image: dir + "/vmlinuz"}}}, "spec.boot.kernel.image", "does not exist", "relative paths"},
		{"initrd", manifest.VirtualMachineSpec{Boot: &manifest.Boot{Kernel: &manifest.Kernel{Image: image, Initrd: dir}}}, "spec.boot.kernel.initrd", "is a folder", "file in it"},
		{"disk file", manifest.VirtualMachineSpec{Disks: []manifest.Disk{{Name: "d", File: dir + "/none", Format: manifest.FormatRaw}}}, "spec.disks[0].file", "does not exist", "create"},
		{"disk file below a file", manifest.VirtualMachineSpec{Disks: []manifest.Disk{{Name: "d", File: image + "/x", Format: manifest.FormatRaw}}}, "spec.disks[0].file", "cannot be looked at", "permissions"},
		{"disk file that is a pipe", manifest.VirtualMachineSpec{Disks: []manifest.Disk{{Name: "d", File: fifo, Format: manifest.FormatRaw}}}, "spec.disks[0].file", "is no file", "name a file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := testProber(t)
			p.kvm = filepath.Join(dir, "kvm")
			if tt.spec.Emulator == nil {
				tt.spec.Emulator = &manifest.Emulator{}
			}
			tt.spec.Emulator.Binary = fakeHost(t, p, testHost())
			_, findings, err := p.Check(t.Context(), testVM("web", tt.spec))
			if err != nil || len(findings) != 1 {
				t.Fatalf("error %v, findings %+v; want one", err, findings)
			}
			got := findings[0]
			if got.Path != tt.path || !strings.Contains(got.Msg, tt.says) || !strings.Contains(got.Hint, tt.hint) {
				t.Errorf("finding is %+v, want one at %s that says %q and %q", got, tt.path, tt.says, tt.hint)
			}
		})
	}
}

func TestCheck_qemuWithoutTheDevicesOfABus_isFound(t *testing.T) {
	for bus, missing := range map[manifest.Bus][]string{
		manifest.BusVirtioSCSI: {"scsi-hd", "virtio-scsi-pci"}, manifest.BusUSB: {"qemu-xhci", "usb-bot"},
		manifest.BusNVMe: {"nvme"}, manifest.BusSATA: {"ide-hd"}, manifest.BusVirtio: {"virtio-blk-pci"},
	} {
		for _, name := range missing {
			t.Run(string(bus)+" "+name, func(t *testing.T) {
				p, host := testProber(t), testHost()
				delete(host.Devices, name)
				spec := boardQ35.spec(onBus("root", bus))
				spec.Emulator = &manifest.Emulator{Binary: fakeHost(t, p, host)}
				_, findings, err := p.Check(t.Context(), testVM("web", spec))
				if err != nil || len(findings) != 1 || findings[0].Path != "spec.disks[0].bus" || !strings.Contains(findings[0].Msg, "built without "+name) {
					t.Errorf("error %v, findings %+v", err, findings)
				}
			})
		}
	}
}

func TestCheck_moreCDROMsThanPorts_areEachFound(t *testing.T) {
	p := testProber(t)
	iso := filepath.Join(t.TempDir(), "x.iso")
	writeTestFile(t, iso, nil)
	spec := manifest.VirtualMachineSpec{Machine: q35(), Emulator: &manifest.Emulator{Binary: fakeHost(t, p, testHost())}}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		spec.Disks = append(spec.Disks, manifest.Disk{Name: name, File: iso, Media: manifest.MediaCDROM})
	}
	_, findings, err := p.Check(t.Context(), testVM("web", spec))
	if err != nil || len(findings) != 2 || findings[0].Path != "spec.disks[6].bus" || findings[1].Path != "spec.disks[7].bus" {
		t.Errorf("error %v, findings %+v", err, findings)
	}
}

func TestCheck_unreadableFile_isFound(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything; run the tests as an ordinary user to see this one")
	}
	p := testProber(t)
	file := filepath.Join(t.TempDir(), "d.raw")
	writeTestFile(t, file, nil)
	if err := os.Chmod(file, 0o400); err != nil {
		t.Fatal(err)
	}
	spec := manifest.VirtualMachineSpec{
		Emulator: &manifest.Emulator{Binary: fakeHost(t, p, testHost())},
		Disks:    []manifest.Disk{{Name: "d", File: file, Format: manifest.FormatRaw}, {Name: "e", File: file, Format: manifest.FormatRaw, ReadOnly: true}},
	}
	_, findings, err := p.Check(t.Context(), testVM("web", spec))
	if err != nil || len(findings) != 1 || findings[0].Path != "spec.disks[0].file" || !strings.Contains(findings[0].Hint, "readOnly") {
		t.Errorf("error %v, findings %+v", err, findings)
	}
}

func TestCheck_severalFaults_areAllFound(t *testing.T) {
	p := testProber(t)
	spec := manifest.VirtualMachineSpec{
		Emulator: &manifest.Emulator{Binary: fakeHost(t, p, testHost())},
		CPU:      &manifest.CPU{Model: "maxx"},
		NICs:     []manifest.NIC{{Name: "lan", Model: "e1001", User: &manifest.UserNet{}}},
		Disks:    []manifest.Disk{{Name: "d", File: "/nowhere", Format: manifest.FormatRaw}},
	}
	_, findings, err := p.Check(t.Context(), testVM("web", spec))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range findings {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"spec.cpu.model", "spec.nics[0].model", "spec.disks[0].file"}, paths); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCheck_missingBinary_isAFinding(t *testing.T) {
	_, findings, err := testProber(t).Check(t.Context(), testVM("web", manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Binary: "qemu-system-none"}}))
	if err != nil || len(findings) != 1 || findings[0].Path != "spec.emulator.binary" || !strings.Contains(findings[0].Msg, "qemu-system-none is not in PATH") {
		t.Errorf("error %v, findings %+v", err, findings)
	}
}

func TestCheck_cancelled_isAnErrorAndNoFinding(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, findings, err := testProber(t).Check(ctx, testVM("web", manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Binary: program(t, "exec sleep 1000")}}))
	if !errors.Is(err, context.Canceled) || len(findings) != 0 {
		t.Errorf("error %v, findings %+v", err, findings)
	}
}

func TestCheck_realQEMU_kvmThenTCG_isFineWhenOneInitialises(t *testing.T) {
	realHost(t)
	p := testProber(t)
	p.kvm = filepath.Join(t.TempDir(), "kvm") // not there
	spec := manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Binary: "qemu-system-x86_64", Accelerators: []string{"kvm", "tcg"}}}
	host, findings, err := p.Check(t.Context(), testVM("web", spec))
	if err != nil || len(findings) != 0 || host.Arch != "x86_64" {
		t.Errorf("host %s, error %v, findings %+v", host.Arch, err, findings)
	}
}

// TestCheck_realQEMU_goldens checks that what starts is not refused.
func TestCheck_realQEMU_goldens_haveNoFindings(t *testing.T) {
	realHost(t)
	p := testProber(t)
	for _, c := range argvCases() {
		if c.arm || c.tap || c.elsewhere {
			continue // no such QEMU, no such bridge, no such server
		}
		t.Run(c.name, func(t *testing.T) {
			in := realInput(t, c, testHost())
			prepareFiles(t, in)
			if _, findings, err := p.Check(t.Context(), in.VM); err != nil || len(findings) != 0 {
				t.Errorf("error %v, findings %+v", err, findings)
			}
		})
	}
}
