package qemu

import (
	"path/filepath"
	"testing"

	"github.com/maqet/maqet/driver/disk"
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

// prepareProvisioning makes what provisioning adds to a command line's files.
func prepareProvisioning(t testing.TB, in RenderInput) {
	t.Helper()
	if in.VM.Spec.CloudInit == nil {
		return
	}
	files, err := seedFiles(in.VM, in.Identity.UID)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteISO(in.Layout.Seed(in.VM.Metadata.Name), filepath.Join(t.TempDir(), "scratch"), seedLabel, files); err != nil {
		t.Fatal(err)
	}
}
