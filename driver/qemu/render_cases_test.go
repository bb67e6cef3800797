package qemu

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// argvCase is a machine whose command line is kept as a golden file and started
// on real QEMU.
type argvCase struct {
	name string
	// spec is the machine; dir is the folder its files lie in.
	spec func(dir string) manifest.VirtualMachineSpec
	// earlier is what the machine was before, whose places it keeps; may be nil.
	earlier func(dir string) manifest.VirtualMachineSpec
	paused  bool
	// arm is a machine of qemu-system-aarch64.
	arm bool
	// tap needs a tap device.
	tap bool
	// elsewhere has disks on servers and devices that only tests of their own make.
	elsewhere bool
}

// argvNow is when test identities are made.
var argvNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testRandom is a source of numbers that are the same each time.
func testRandom() *bytes.Reader {
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(i*7 + i/256)
	}
	return bytes.NewReader(b)
}

// testHost is a host such as QEMU 7.2 describes it, with fewer words.
func testHost() driver.Host {
	h := driver.Host{
		Binary: "/usr/bin/qemu-system-x86_64", Version: driver.Version{Major: 7, Minor: 2, Micro: 22}, Arch: "x86_64",
		Machines:     map[string]driver.MachineType{},
		CPUModels:    []string{"Haswell-v1", "base", "host", "max", "qemu64"},
		Accelerators: []string{"kvm", "tcg"},
	}
	addMachine(&h, driver.MachineType{Name: "pc-i440fx-7.2", Alias: "pc", MaxCPU: 255}, true)
	addMachine(&h, driver.MachineType{Name: "pc-i440fx-7.1", MaxCPU: 255}, false)
	addMachine(&h, driver.MachineType{Name: "pc-q35-7.2", Alias: "q35", MaxCPU: 288}, false)
	addMachine(&h, driver.MachineType{Name: "pc-q35-7.1", MaxCPU: 288}, false)
	addMachine(&h, driver.MachineType{Name: "isapc", MaxCPU: 1}, false)
	addMachine(&h, driver.MachineType{Name: "none", MaxCPU: 1}, false)
	h.PCIDevices = wordSet("virtio-blk-pci virtio-net-pci virtio-rng-pci virtio-serial-pci virtio-balloon-pci e1000 e1000e pcie-root-port qemu-xhci pvpanic-pci virtio-scsi-pci nvme i6300esb vhost-user-fs-pci virtio-9p-pci")
	h.Devices = wordSet(wordsOf(h.PCIDevices) + " isa-serial ne2k_isa ide-cd ide-hd scsi-cd scsi-hd ib700 usb-bot pvpanic virtserialport usb-kbd")
	return h
}

// armHost is a host of another architecture.
func armHost() driver.Host {
	h := testHost()
	h.Binary, h.Arch, h.DefaultMachine = "/usr/bin/qemu-system-aarch64", "aarch64", ""
	h.Machines = map[string]driver.MachineType{}
	addMachine(&h, driver.MachineType{Name: "virt-7.2", Alias: "virt", MaxCPU: 512}, false)
	return h
}

// testLayout is where a machine's files would be on a host.
func testLayout() layout.Layout {
	return layout.Layout{State: "/var/lib/maqet", Run: "/run/maqet"}
}

// testKinds are the kinds of storage that maqet has.
func testKinds() disk.Kinds {
	images := disk.New(disk.Config{Timing: timing.Default()})
	return disk.Kinds{disk.Made{Images: images}, disk.File{Images: images}, disk.Device{Images: images}, disk.NBD{}}
}

// testVM is a resolved machine.
func testVM(name string, spec manifest.VirtualMachineSpec) *manifest.VirtualMachine {
	return manifest.Resolve(&manifest.VirtualMachine{
		APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine,
		Metadata: manifest.Metadata{Name: name}, Spec: spec,
	}, "/srv/vms")
}

// renderInput is the case as Render gets it.
func (c argvCase) renderInput(t testing.TB, host driver.Host, l layout.Layout, dir string) RenderInput {
	t.Helper()
	rnd := testRandom()
	var id driver.Identity
	vm := testVM(c.name, c.spec(dir))
	if c.earlier != nil {
		id = mustAllocate(t, id, testVM(c.name, c.earlier(dir)), host, rnd)
	}
	id = withFirmware(mustAllocate(t, id, vm, host, rnd), vm)
	return RenderInput{VM: vm, Identity: id, Host: host, Layout: l, Kinds: testKinds(), Paused: c.paused}
}

func mustAllocate(t testing.TB, id driver.Identity, vm *manifest.VirtualMachine, host driver.Host, rnd *bytes.Reader) driver.Identity {
	t.Helper()
	next, _, err := Allocate(id, vm, host, rnd, argvNow)
	if err != nil {
		t.Fatalf("allocate: %v", err)
	}
	return next
}

func q35() *manifest.Machine { return &manifest.Machine{Type: "q35"} }

func userNIC(name string, forwards ...string) manifest.NIC {
	return manifest.NIC{Name: name, User: &manifest.UserNet{Forward: forwards}}
}

func sized(name string) manifest.Disk { return manifest.Disk{Name: name, Size: 1 << 30} }

func props(pairs ...any) map[string]manifest.Scalar {
	m := map[string]manifest.Scalar{}
	for pair := range slices.Chunk(pairs, 2) {
		m[fmt.Sprint(pair[0])] = manifest.ScalarOf(pair[1])
	}
	return m
}

// argvCases are all the cases: each feature alone, and together.
func argvCases() []argvCase {
	return slices.Concat(boardCases(), busCases(), agentCases(), provisioningCases(), filesystemCases(), deviceCases())
}

func boardCases() []argvCase {
	return []argvCase{
		{name: "minimal", spec: func(string) manifest.VirtualMachineSpec { return manifest.VirtualMachineSpec{} }},
		{name: "board-none", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "none"}, Serial: &manifest.Serial{Log: true}}
		}},
		{name: "board-isapc", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: &manifest.Machine{Type: "isapc"},
				NICs:    []manifest.NIC{{Name: "lan", Model: "ne2k_isa", User: &manifest.UserNet{}}},
			}
		}},
		{name: "board-pc", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: &manifest.Machine{Type: "pc"},
				Disks:   []manifest.Disk{sized("root"), sized("data")},
				NICs:    []manifest.NIC{userNIC("lan")},
				Devices: []manifest.Device{
					{Name: "fixed", Driver: "virtio-rng-pci", Properties: props("addr", "0x6")},
					{Name: "rng", Driver: "virtio-rng-pci"},
				},
			}
		}},
		{name: "board-virt", arm: true, spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Emulator: &manifest.Emulator{Binary: "qemu-system-aarch64"},
				Machine:  &manifest.Machine{Type: "virt"},
				CPU:      &manifest.CPU{Model: "max"},
				Disks:    []manifest.Disk{sized("root")},
				NICs:     []manifest.NIC{userNIC("lan")},
			}
		}},
		{name: "default-devices", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Emulator: &manifest.Emulator{DefaultDevices: true, ExtraArgs: []string{"-rtc", "base=utc"}},
				Machine:  q35(),
				Disks:    []manifest.Disk{sized("root")},
			}
		}},
		{name: "processor-and-memory", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Emulator: &manifest.Emulator{Accelerators: []string{"tcg"}},
				Machine:  &manifest.Machine{Type: "q35", Properties: props("hpet", false, "smm", "off", "max-ram-below-4g", int64(1<<30))},
				CPU:      &manifest.CPU{Model: "max", Topology: &manifest.Topology{Sockets: 1, Cores: 2, Threads: 2}},
				Memory:   &manifest.Memory{Size: 192 << 20},
			}
		}},
		{name: "vcpus-for-later", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: q35(),
				CPU:     &manifest.CPU{Count: 2, MaxCount: 4, Topology: &manifest.Topology{Sockets: 1, Cores: 2, Threads: 2}},
			}
		}},
		{name: "kernel", paused: true, spec: func(dir string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Boot:   &manifest.Boot{Kernel: &manifest.Kernel{Image: dir + "/vmlinuz", Initrd: dir + "/initrd", Cmdline: "console=ttyS0 quiet"}},
				Serial: &manifest.Serial{},
			}
		}},
	}
}

// agentCases are machines with a port for a guest agent, on each family of boards.
func agentCases() []argvCase {
	agent := func(s manifest.VirtualMachineSpec) func(string) manifest.VirtualMachineSpec {
		return func(string) manifest.VirtualMachineSpec {
			s.GuestAgent = &manifest.GuestAgent{}
			return s
		}
	}
	disk := []manifest.Disk{sized("root")}
	return []argvCase{
		{name: "agent", spec: agent(manifest.VirtualMachineSpec{Machine: q35(), Disks: disk})},
		{name: "agent-pc", spec: agent(manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "pc"}, Disks: disk})},
		{name: "agent-virt", arm: true, spec: agent(manifest.VirtualMachineSpec{
			Emulator: &manifest.Emulator{Binary: "qemu-system-aarch64"}, Machine: &manifest.Machine{Type: "virt"}, CPU: &manifest.CPU{Model: "max"}, Disks: disk,
		})},
		// What comes later does not move it.
		{
			name: "agent-disk-added", earlier: agent(manifest.VirtualMachineSpec{Machine: q35(), Disks: disk}),
			spec: agent(manifest.VirtualMachineSpec{Machine: q35(), Disks: append(disk, sized("data"))}),
		},
	}
}

func deviceCases() []argvCase {
	threeDisks := func(string) manifest.VirtualMachineSpec {
		return manifest.VirtualMachineSpec{
			Machine: q35(), Disks: []manifest.Disk{sized("root"), sized("swap"), sized("data")}, NICs: []manifest.NIC{userNIC("lan")},
		}
	}
	return []argvCase{
		{name: "web", spec: func(dir string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: &manifest.Machine{Type: "q35", HotplugPorts: 2},
				Memory:  &manifest.Memory{Size: 128 << 20},
				CPU:     &manifest.CPU{Count: 2},
				Boot:    &manifest.Boot{Order: []string{"lan", "root"}},
				Disks: []manifest.Disk{
					sized("root"),
					{Name: "shared", File: dir + "/shared.raw", Format: manifest.FormatRaw, ReadOnly: true},
					{Name: "iso", File: dir + "/installer.iso", Media: manifest.MediaCDROM},
				},
				NICs: []manifest.NIC{
					userNIC("lan", "tcp:127.0.0.1:23322:22", "udp::23353:53"),
					{Name: "old", Model: "e1000e", MAC: "52:54:00:12:34:56", User: &manifest.UserNet{}},
				},
				Serial:  &manifest.Serial{Log: true},
				Devices: []manifest.Device{{Name: "rng0", Driver: "virtio-rng-pci", Properties: props("max-bytes", 1024, "period", 1000)}},
			}
		}},
		{name: "middle-disk-gone", earlier: threeDisks, spec: func(dir string) manifest.VirtualMachineSpec {
			s := threeDisks(dir)
			s.Disks = []manifest.Disk{sized("root"), sized("data"), sized("later")}
			return s
		}},
		{name: "ten-ports", spec: func(string) manifest.VirtualMachineSpec {
			s := manifest.VirtualMachineSpec{Machine: &manifest.Machine{Type: "q35", HotplugPorts: 1}}
			for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
				s.Devices = append(s.Devices, manifest.Device{Name: name, Driver: "virtio-rng-pci"})
			}
			return s
		}},
		{name: "placed-by-hand", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Devices: []manifest.Device{
				{Name: "panic", Driver: "pvpanic"},
				{Name: "usb", Driver: "qemu-xhci", Properties: props("bus", "pcie.0", "addr", "0x1a")},
				{Name: "keys", Driver: "usb-kbd", Properties: props("bus", "usb.0")},
				{Name: "bridge", Driver: "pcie-root-port", Properties: props("chassis", 200)},
				{Name: "behind", Driver: "virtio-rng-pci", Properties: props("bus", "bridge")},
				// QEMU names the bus of this one port.0.
				{Name: "port", Driver: "virtio-serial-pci"},
				{Name: "line", Driver: "virtserialport", Properties: props("bus", "port.0")},
				{Name: "rng", Driver: "virtio-rng-pci"},
			}}
		}},
		{name: "cdroms", spec: func(dir string) manifest.VirtualMachineSpec {
			iso := manifest.Disk{File: dir + "/installer.iso", Media: manifest.MediaCDROM}
			s := manifest.VirtualMachineSpec{Machine: q35(), Boot: &manifest.Boot{Order: []string{"cd1"}}}
			for _, name := range []string{"cd0", "cd1", "cd2"} {
				iso.Name = name
				s.Disks = append(s.Disks, iso)
			}
			return s
		}},
		{name: "bridge", tap: true, spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Serial: &manifest.Serial{}, NICs: []manifest.NIC{
				userNIC("lan"), {Name: "dmz", Bridge: &manifest.BridgeNet{Name: "br0"}},
			}}
		}},
		{name: "tuning", spec: func(dir string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Disks: []manifest.Disk{
				{
					Name: "root", Size: 1 << 30, Serial: "A-1", Cache: manifest.CacheNone, AIO: manifest.AIONative,
					Discard: manifest.DiscardUnmap, DetectZeroes: manifest.DetectZeroesUnmap, IOThread: true,
				},
				{Name: "fast", Size: 1 << 30, Cache: manifest.CacheUnsafe, AIO: manifest.AIOThreads, Bus: manifest.BusVirtioSCSI},
				{Name: "safe", Size: 1 << 30, Cache: manifest.CacheWritethrough, DetectZeroes: manifest.DetectZeroesOn, IOThread: true},
				{Name: "iso", File: dir + "/installer.iso", Media: manifest.MediaCDROM, Cache: manifest.CacheDirectSync},
			}}
		}},
		{name: "storage", elsewhere: true, spec: func(dir string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Disks: []manifest.Disk{
				{Name: "lv", File: "/dev/vg0/a,b", Format: manifest.FormatRaw},
				{Name: "lvq", File: "/dev/vg0/q", Format: manifest.FormatQcow2, ReadOnly: true},
				{Name: "shm", File: "/dev/shm/a.raw", Format: manifest.FormatRaw},
				{Name: "socket", NBD: &manifest.NBD{Unix: dir + "/a,b.sock", Export: "pool/x"}},
				{Name: "server", NBD: &manifest.NBD{Host: "fd00::1"}},
				{Name: "iso", NBD: &manifest.NBD{Host: "storage", Port: 1, Export: "iso"}, Media: manifest.MediaCDROM},
			}}
		}},
		{name: "awkward", paused: true, spec: awkwardSpec},
	}
}

// awkward holds what ends words, begins keys or changes meaning somewhere on the
// way from a manifest to QEMU.
const awkward = "a,b=c, d 'e' \"f\" \\g $h `i` ü漢🙂%n"

// awkwardSpec has awkward text wherever a manifest takes free text.
func awkwardSpec(dir string) manifest.VirtualMachineSpec {
	return manifest.VirtualMachineSpec{
		Emulator: &manifest.Emulator{ExtraArgs: []string{"-fw_cfg", "name=opt/org.example/x,string=d 'e' \"f\" \\g ü漢🙂\n"}},
		Machine:  &manifest.Machine{Type: "q35", Properties: props("x-oem-id", "a,b=c", "x-oem-table-id", "d, 'e'ü")},
		Boot:     &manifest.Boot{Kernel: &manifest.Kernel{Image: dir + "/" + awkward + ".vmlinuz", Initrd: dir + "/" + awkward + ".initrd", Cmdline: "x=" + awkward + "\n--"}},
		Disks: []manifest.Disk{
			{Name: "commas", File: dir + "/" + awkward + ",locking=off.qcow2", Format: manifest.FormatQcow2},
			{Name: "newline", File: dir + "/two\nlines\t.raw", Format: manifest.FormatRaw},
			{Name: "pseudo", File: dir + "/json:{\"driver\":\"null-co\"}", Format: manifest.FormatRaw, ReadOnly: true},
			{Name: "protocol", File: dir + "/nbd:unix:x", Format: manifest.FormatRaw, ReadOnly: true},
		},
		Serial: &manifest.Serial{Log: true},
		Devices: []manifest.Device{
			{Name: "serials", Driver: "virtio-serial-pci"},
			{Name: "agent", Driver: "virtserialport", Properties: props("name", awkward+"\n,id=x", "bus", "serials.0")},
		},
	}
}
