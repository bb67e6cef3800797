package qemu

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

var updateArgv = flag.Bool("update", false, "rewrite the golden files")

// showCommand is a command as the golden files have it: an option and its value
// to a line, quoted for a shell, and the descriptors below.
func showCommand(c Command) string {
	var b strings.Builder
	for i, word := range c.Argv {
		text := quoteWord(word, i == 0)
		switch {
		case i == 0:
			b.WriteString(text)
		case strings.HasPrefix(word, "-"):
			b.WriteString(" \\\n  " + text)
		default:
			b.WriteString(" " + text)
		}
	}
	b.WriteString("\n")
	for i, f := range c.Files {
		fmt.Fprintf(&b, "# fd %d: %s %s\n", firstFile+i, f.Kind, f.NIC+f.Filesystem)
	}
	return b.String()
}

func TestRender_goldens(t *testing.T) {
	for _, c := range argvCases() {
		t.Run(c.name, func(t *testing.T) {
			host := testHost()
			if c.arm {
				host = armHost()
			}
			cmd, err := Render(c.renderInput(t, host, testLayout(), "/srv/vms"))
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "argv", c.name+".txt")
			got := showCommand(cmd)
			if *updateArgv {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("command line differs from %s; look at it, then run with -update (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestRender_goldenFiles_eachHasACase(t *testing.T) {
	known := map[string]bool{}
	for _, c := range argvCases() {
		known[c.name+".txt"] = true
	}
	entries, err := os.ReadDir(filepath.Join("testdata", "argv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			t.Errorf("testdata/argv/%s belongs to no case", e.Name())
		}
	}
}

func TestRender_absentKeys_nothingIsPassedForThem(t *testing.T) {
	in := argvCases()[0].renderInput(t, testHost(), testLayout(), "/srv/vms")
	cmd, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"-m", "-cpu", "-smp", "-accel", "-S", "-serial", "-kernel", "-initrd", "-append", "-device", "-blockdev", "-netdev", "-boot"} {
		for _, word := range cmd.Argv {
			if word == option {
				t.Errorf("%s is passed, although nobody asked for it", option)
			}
		}
	}
}

// TestRender_impossible checks that each fault names its field and a remedy.
func TestRender_impossible_isRefusedAtTheField(t *testing.T) {
	isapc := &manifest.Machine{Type: "isapc"}
	tests := []struct {
		name   string
		spec   manifest.VirtualMachineSpec
		change func(*RenderInput)
		path   string
		says   string
	}{
		{name: "virtio disk without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{sized("root")}}, path: "spec.disks[0]", says: "no PCI bus"},
		{name: "virtio nic without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, NICs: []manifest.NIC{userNIC("lan")}}, path: "spec.nics[0]", says: "no PCI bus"},
		{name: "PCI device without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, Devices: []manifest.Device{{Name: "rng", Driver: "virtio-rng-pci"}}}, path: "spec.devices[0]", says: "no PCI bus"},
		{
			name: "sata on pc",
			spec: manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "pc"}, Disks: []manifest.Disk{onBus("root", manifest.BusSATA)}},
			path: "spec.disks[0].bus", says: "no SATA controller",
		},
		{name: "unknown bus", spec: manifest.VirtualMachineSpec{Disks: []manifest.Disk{sized("root")}}, change: func(in *RenderInput) { in.VM.Spec.Disks[0].Bus = "floppy" }, path: "spec.disks[0].bus", says: "no bus"},
		{name: "virtio-scsi without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{onBus("root", manifest.BusVirtioSCSI)}}, path: "spec.disks[0]", says: "no PCI bus"},
		{name: "nvme without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{onBus("root", manifest.BusNVMe)}}, path: "spec.disks[0]", says: "no PCI bus"},
		{name: "usb without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{onBus("root", manifest.BusUSB)}}, path: "spec.disks[0]", says: "no PCI bus"},
		{name: "cdrom without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, Disks: []manifest.Disk{{Name: "cd", Media: manifest.MediaCDROM}}}, path: "spec.disks[0]", says: "no PCI bus"},
		{name: "agent without PCI", spec: manifest.VirtualMachineSpec{Machine: isapc, GuestAgent: &manifest.GuestAgent{}}, path: "spec.guestAgent", says: "no PCI bus"},
		{name: "hotplug ports on pc", spec: manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "pc", HotplugPorts: 1}}, path: "spec.machine.hotplugPorts", says: "no PCI Express"},
		{name: "too many hotplug ports", spec: manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "q35", HotplugPorts: 160}, Disks: []manifest.Disk{sized("root")}}, path: "spec.machine.hotplugPorts", says: "at most 159"},
		{name: "machine property that is two", spec: manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "q35", Properties: props("hpet=off,smm", "on")}}, path: "spec.machine.properties.hpet=off,smm", says: "no machine property"},
		{name: "machine property type", spec: manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "q35", Properties: props("type", "pc")}}, path: "spec.machine.properties.type", says: "spec.machine.type"},
		{name: "CPU features", spec: manifest.VirtualMachineSpec{CPU: &manifest.CPU{Model: "max,+avx"}}, path: "spec.cpu.model", says: "comma"},
		{name: "device property id", spec: manifest.VirtualMachineSpec{Devices: []manifest.Device{{Name: "p", Driver: "pvpanic", Properties: props("id", "q")}}}, path: "spec.devices[0].properties.id", says: "no property"},
		{name: "device property without value", spec: manifest.VirtualMachineSpec{Devices: []manifest.Device{{Name: "p", Driver: "pvpanic", Properties: props("events", nil)}}}, path: "spec.devices[0]", says: "no value"},
		{name: "nic without network", spec: manifest.VirtualMachineSpec{NICs: []manifest.NIC{{Name: "lan"}}}, path: "spec.nics[0]", says: "no network"},
		{name: "bad forward", spec: manifest.VirtualMachineSpec{NICs: []manifest.NIC{userNIC("lan", "tcp::1:2,x=y")}}, path: "spec.nics[0].user.forward", says: "2,x=y"},
		{name: "boot order", spec: manifest.VirtualMachineSpec{Boot: &manifest.Boot{Order: []string{"lna"}}}, path: "spec.boot.order[0]", says: "lna"},
		{name: "format unknown", spec: manifest.VirtualMachineSpec{Disks: []manifest.Disk{{Name: "d", File: "/x"}}}, path: "spec.disks[0].format", says: "qcow2 or raw"},
		{name: "NUL", spec: manifest.VirtualMachineSpec{Boot: &manifest.Boot{Kernel: &manifest.Kernel{Image: "/x", Cmdline: "a\x00b"}}}, path: "spec.boot.kernel.cmdline", says: "NUL"},
		{name: "not UTF-8", spec: manifest.VirtualMachineSpec{Disks: []manifest.Disk{{Name: "d", File: "/\xff", Format: manifest.FormatRaw}}}, path: "spec.disks[0]", says: "UTF-8"},
		{name: "noncharacter", spec: manifest.VirtualMachineSpec{Disks: []manifest.Disk{{Name: "d", File: "/\ufdd0", Format: manifest.FormatRaw}}}, path: "spec.disks[0]", says: "U+FDD0"},
		{name: "extra argument", spec: manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{ExtraArgs: []string{"-rtc", "\x00"}}}, path: "spec.emulator.extraArgs[1]", says: "NUL"},
		{name: "no uuid", change: func(in *RenderInput) { in.Identity.UID = "" }, says: "no uuid"},
		{name: "no machine type", change: func(in *RenderInput) { in.Identity.Machine.Type = "" }, path: "spec.machine.type", says: "no machine type"},
		{name: "machine type gone", change: func(in *RenderInput) { in.Identity.Machine.Type = "pc-i440fx-1.4" }, path: "spec.machine.type", says: "pc-i440fx-1.4"},
		{name: "no slot", spec: manifest.VirtualMachineSpec{Disks: []manifest.Disk{sized("root")}}, change: func(in *RenderInput) { in.Identity.Slots = nil }, path: "spec.disks[0]", says: "no pci slot"},
		{name: "no MAC", spec: manifest.VirtualMachineSpec{NICs: []manifest.NIC{userNIC("lan")}}, change: func(in *RenderInput) { in.Identity.MACs = nil }, path: "spec.nics[0].mac", says: "no MAC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vm := testVM("web", tt.spec)
			in := RenderInput{VM: vm, Identity: mustAllocate(t, driver.Identity{}, vm, testHost(), testRandom()), Host: testHost(), Layout: testLayout(), Kinds: testKinds()}
			if tt.change != nil {
				tt.change(&in)
			}
			cmd, err := Render(in)
			var refused *SpecError
			if !errors.As(err, &refused) {
				t.Fatalf("Render gave %v and %v, want a *SpecError", cmd, err)
			}
			if refused.VM != "web" || refused.Path != tt.path || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q at %q, want one at %q that says %q", err, refused.Path, tt.path, tt.says)
			}
		})
	}
}

func TestExactSize_anyNumber_isNotRounded(t *testing.T) {
	for size, want := range map[manifest.Quantity]string{1 << 20: "1M", 5 << 30: "5120M", 3 << 10: "3K", 1<<20 + 1: "1048577B"} {
		if got := exactSize(size); got != want {
			t.Errorf("exactSize(%d) = %q, want %q", size, got, want)
		}
	}
}
