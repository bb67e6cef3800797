package reconcile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// machineToClone is resolved, as what was applied is.
func machineToClone(change func(*manifest.VirtualMachineSpec)) *manifest.VirtualMachine {
	vm := &manifest.VirtualMachine{
		APIVersion: manifest.APIVersion, Kind: manifest.KindVirtualMachine,
		Metadata: manifest.Metadata{Name: "web", Labels: map[string]string{"tier": "front"}},
		Spec: manifest.VirtualMachineSpec{
			Machine: &manifest.Machine{Type: "q35"},
			Disks:   []manifest.Disk{{Name: "root", Size: 8 << 20}},
		},
	}
	change(&vm.Spec)
	return manifest.Resolve(vm, "/vms")
}

func TestCloned_whatOnlyOneMayHave_isRemovedAndTold(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*manifest.VirtualMachineSpec)
		in     []string
		want   func(*manifest.VirtualMachineSpec)
		copied []string
		says   []string
	}{
		"nothing of the kind": {
			change: func(*manifest.VirtualMachineSpec) {}, want: func(*manifest.VirtualMachineSpec) {},
			says: []string{"host name, machine-id, SSH host keys and static addresses of web"},
		},
		"a fixed address and forwards": {
			change: func(s *manifest.VirtualMachineSpec) {
				s.NICs = []manifest.NIC{
					{Name: "lan", MAC: "52:54:00:00:00:01", User: &manifest.UserNet{Forward: []string{"tcp:127.0.0.1:2222:22"}}},
					{Name: "dmz", Bridge: &manifest.BridgeNet{Name: "br0"}},
				}
				s.Readiness = &manifest.Readiness{TCP: &manifest.TCPReadiness{Port: 22}}
			},
			want: func(s *manifest.VirtualMachineSpec) {
				s.NICs[0].MAC, s.NICs[0].User.Forward, s.Readiness = "", nil, nil
			},
			says: []string{"52:54:00:00:00:01 is removed", "tcp:127.0.0.1:2222:22 are removed", "port 22 by a forward"},
		},
		"readiness by the guest's own address": {
			change: func(s *manifest.VirtualMachineSpec) {
				s.Readiness = &manifest.Readiness{TCP: &manifest.TCPReadiness{Port: 80, Host: "192.0.2.1"}}
			},
			want: func(s *manifest.VirtualMachineSpec) { s.Readiness = nil },
			says: []string{"192.0.2.1 port 80, which is the other machine"},
		},
		"a folder that both write to": {
			change: func(s *manifest.VirtualMachineSpec) {
				s.Filesystems = []manifest.Filesystem{{Name: "src", Path: "/srv/src", Driver: manifest.Filesystem9P}, {Name: "docs", Path: "/srv/docs", ReadOnly: true, Driver: manifest.Filesystem9P}}
			},
			want: func(*manifest.VirtualMachineSpec) {},
			says: []string{"both machines write to /srv/src"},
		},
		"files": {
			change: func(s *manifest.VirtualMachineSpec) {
				s.Disks = append(s.Disks,
					manifest.Disk{Name: "mine", File: "/srv/mine.qcow2", Format: manifest.FormatQcow2},
					manifest.Disk{Name: "ro", File: "/srv/ro.raw", Format: manifest.FormatRaw, ReadOnly: true},
					manifest.Disk{Name: "iso", File: "/srv/a.iso", Format: manifest.FormatRaw, Media: manifest.MediaCDROM},
					manifest.Disk{Name: "tray", Media: manifest.MediaCDROM},
				)
			},
			in:     []string{"mine", "root"},
			want:   func(s *manifest.VirtualMachineSpec) { s.Disks[1].File, s.Disks[1].Size = "", 4<<20 },
			copied: []string{"root", "mine"},
			says:   []string{"a copy of /srv/mine.qcow2"},
		},
		"disks of other times": {
			change: func(s *manifest.VirtualMachineSpec) {
				s.Disks = append(s.Disks, manifest.Disk{Name: "later", Size: 1 << 20})
				s.Boot = &manifest.Boot{Order: []string{"later", "root"}}
			},
			in: []string{"earlier", "root"},
			want: func(s *manifest.VirtualMachineSpec) {
				s.Disks, s.Boot.Order = s.Disks[:1], []string{"root"}
			},
			says: []string{"later: removed, since snapshot one does not have it", "earlier: left out"},
		},
		"firmware": {
			change: func(s *manifest.VirtualMachineSpec) { s.Firmware = &manifest.Firmware{UEFI: true} },
			in:     []string{"root", driver.FirmwareUEFI.NVRAMNode()},
			want:   func(*manifest.VirtualMachineSpec) {},
			copied: []string{"root", driver.FirmwareUEFI.NVRAMNode()},
		},
		"what a person has to see to": {
			change: func(s *manifest.VirtualMachineSpec) {
				s.Emulator = &manifest.Emulator{ExtraArgs: []string{"-rtc", "base=utc"}}
				s.TPM, s.CloudInit = &manifest.TPM{}, &manifest.CloudInit{UserData: "#cloud-config\n"}
				s.Devices = []manifest.Device{{Name: "gpu", Driver: "vfio-pci"}, {Name: "rng", Driver: "virtio-rng-pci"}}
			},
			want: func(*manifest.VirtualMachineSpec) {},
			says: []string{"-rtc base=utc", "device gpu", "tpm: it is a new one", "provisions at its first start"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			from := machineToClone(test.change)
			before := from.DeepCopy()
			if test.in == nil {
				test.in = []string{"root"}
			}
			if test.copied == nil {
				test.copied = []string{"root"}
			}
			vm, copied, notes := cloned(from, "web2", "one", test.in)
			sizeClone(vm, []driver.CopiedDisk{{Disk: "mine", Size: 4 << 20}, {Disk: "root", Size: 1 << 20}})
			want := before.DeepCopy()
			want.Metadata.Name = "web2"
			test.want(&want.Spec)
			opts := cmp.AllowUnexported(manifest.Scalar{}, manifest.Free{})
			if diff := cmp.Diff(want, vm, opts); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, from, opts); diff != "" {
				t.Errorf("the old machine was changed:\n%s", diff)
			}
			if !cmp.Equal(copied, test.copied) {
				t.Errorf("copied are %q, want %q", copied, test.copied)
			}
			for _, word := range test.says {
				if !strings.Contains(strings.Join(notes, "\n"), word) {
					t.Errorf("the notes do not say %q:\n%s", word, strings.Join(notes, "\n"))
				}
			}
			// What is printed can be loaded.
			text, err := manifest.MarshalYAML(vm)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "web2.yaml")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := manifest.Load(t.Context(), []string{path}, manifest.LoadOptions{}); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}
