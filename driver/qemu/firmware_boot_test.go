package qemu

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/maqet/maqet/manifest"
)

// efiDisk is a disk with one file: what UEFI firmware boots when nothing else is said.
func efiDisk(t *testing.T, program []byte) string {
	t.Helper()
	const size = 64 << 20
	path := filepath.Join(t.TempDir(), "efi.raw")
	image, err := file.CreateFromPath(path, size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	fsys, err := fat32.Create(image, size, 0, 512, "EFI", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := fsys.Mkdir("/EFI/BOOT"); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile("/EFI/BOOT/BOOTX64.EFI", os.O_CREATE|os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFirmware_secureBoot_runsNoCodeThatIsNotSigned boots one disk twice. Debian's
// kernel is an EFI program that is signed by Debian, and not by Microsoft.
func TestFirmware_secureBoot_runsNoCodeThatIsNotSigned(t *testing.T) {
	needFirmware(t)
	if testing.Short() {
		t.Skip("boots firmware")
	}
	var tiny manifest.VirtualMachineSpec
	tinyGuest(t, "")(&tiny)
	kernel, err := os.ReadFile(tiny.Boot.Kernel.Image)
	if err != nil {
		t.Fatal(err)
	}
	boot := efiDisk(t, kernel)
	for _, c := range []struct {
		secure bool
		says   string
	}{
		{false, "BdsDxe: starting Boot"},
		{true, "BdsDxe: failed to load Boot.*: Access Denied"},
	} {
		r := newRig(t)
		vm := r.vm("web", uefi(c.secure), func(s *manifest.VirtualMachineSpec) {
			s.Memory = &manifest.Memory{Size: 256 << 20}
			s.Serial = &manifest.Serial{Log: true}
			s.Disks = []manifest.Disk{{Name: "efi", File: boot, Format: manifest.FormatRaw, ReadOnly: true}}
		})
		r.start(vm, false)
		r.awaitSerial(c.says)
		r.end()
	}
}

// TestFirmware_secureBoot_guestKnowsOfIt asks the kernel.
func TestFirmware_secureBoot_guestKnowsOfIt(t *testing.T) {
	needFirmware(t)
	if testing.Short() {
		t.Skip("boots a guest")
	}
	r := newRig(t)
	vm := r.vm("web", tinyGuest(t, ""), uefi(true), func(s *manifest.VirtualMachineSpec) { s.Memory.Size = 256 << 20 })
	r.start(vm, false)
	r.shell().must("dmesg | grep 'secureboot: Secure boot enabled'")
}

// awaitSerial waits until the machine web has written something on its serial line.
func (r *rig) awaitSerial(pattern string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), guestTimeout)
	defer cancel()
	record, err := r.readLaunched("web")
	r.must(err)
	scan, err := newSerialScan(r.layout.SerialLog("web"), record.SerialOffset, pattern)
	r.must(err)
	for {
		found, err := scan.more()
		r.must(err)
		if found {
			return
		}
		if err := pause(ctx, firstTry); err != nil {
			text, _ := os.ReadFile(r.layout.SerialLog("web"))
			r.t.Fatalf("the guest never wrote %q, but %q", pattern, text)
		}
	}
}
