package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

// provisioningCases are machines with what provisions a guest.
func provisioningCases() []argvCase {
	seeded := func(board string) func(string) manifest.VirtualMachineSpec {
		return func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: &manifest.Machine{Type: board}, Disks: []manifest.Disk{sized("root")}, NICs: []manifest.NIC{userNIC("lan")},
				CloudInit: &manifest.CloudInit{UserData: "#cloud-config\npassword: secret\n"},
			}
		}
	}
	return []argvCase{
		{name: "cloud-init", spec: func(dir string) manifest.VirtualMachineSpec {
			// The seed came after the first disk and before the second.
			s := seeded("q35")(dir)
			s.Disks = append(s.Disks, sized("data"))
			return s
		}, earlier: seeded("q35")},
		{name: "cloud-init-pc", spec: seeded("pc")},
		{name: "uefi", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Firmware: &manifest.Firmware{UEFI: true}, Disks: []manifest.Disk{sized("root")}}
		}},
		{name: "uefi-secureboot", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine: &manifest.Machine{Type: "q35", Properties: props("hpet", false)}, Firmware: &manifest.Firmware{UEFI: true, SecureBoot: true},
			}
		}},
		{name: "tpm", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), TPM: &manifest.TPM{}, Firmware: &manifest.Firmware{UEFI: true}}
		}},
		{name: "watchdog", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{Machine: q35(), Disks: []manifest.Disk{sized("root")}, Watchdog: &manifest.Watchdog{}}
		}},
		{name: "watchdog-isa", spec: func(string) manifest.VirtualMachineSpec {
			return manifest.VirtualMachineSpec{
				Machine:  &manifest.Machine{Type: "isapc"},
				Watchdog: &manifest.Watchdog{Model: manifest.WatchdogIB700, Action: manifest.WatchdogInjectNMI},
			}
		}},
	}
}

// caseNamed is one of the cases.
func caseNamed(t testing.TB, name string) argvCase {
	t.Helper()
	for _, c := range argvCases() {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("there is no case %s", name)
	return argvCase{}
}

// needFirmware skips a test where Debian's package ovmf is not installed.
func needFirmware(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(testFirmware()[driver.FirmwareUEFI].Code); err != nil {
		t.Skip("the package ovmf is not installed")
	}
}

// testFirmware is where Debian's package ovmf has its files.
func testFirmware() map[driver.FirmwareKind]driver.Firmware {
	const dir = "/usr/share/OVMF/"
	return map[driver.FirmwareKind]driver.Firmware{
		driver.FirmwareUEFI:       {Code: dir + "OVMF_CODE_4M.fd", CodeFormat: "raw", Template: dir + "OVMF_VARS_4M.fd", TemplateFormat: "raw"},
		driver.FirmwareSecureBoot: {Code: dir + "OVMF_CODE_4M.ms.fd", CodeFormat: "raw", Template: dir + "OVMF_VARS_4M.ms.fd", TemplateFormat: "raw", SMM: true},
	}
}

// withFirmware adds the firmware that a machine asks for to its identity.
func withFirmware(id driver.Identity, vm *manifest.VirtualMachine) driver.Identity {
	if kind := driver.FirmwareKindOf(&vm.Spec); kind != "" {
		id.Firmware = map[driver.FirmwareKind]driver.Firmware{kind: testFirmware()[kind]}
	}
	return id
}

// prepareProvisioning makes what provisioning adds to a command line's files.
func prepareProvisioning(t testing.TB, in RenderInput) {
	t.Helper()
	if kind := driver.FirmwareKindOf(&in.VM.Spec); kind != "" {
		needFirmware(t)
		f := in.Identity.Firmware[kind]
		path := in.Layout.NVRAM(in.VM.Metadata.Name, string(kind))
		images := disk.New(disk.Config{Timing: timing.Default()})
		if err := images.CreateFrom(t.Context(), path, f.Template, manifest.DiskFormat(f.TemplateFormat)); err != nil {
			t.Fatal(err)
		}
	}
	if in.VM.Spec.CloudInit == nil {
		return
	}
	files, err := seedFiles(t.Context(), nil, in.VM, in.Identity.UID)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteISO(in.Layout.Seed(in.VM.Metadata.Name), filepath.Join(t.TempDir(), "scratch"), seedLabel, files); err != nil {
		t.Fatal(err)
	}
}
