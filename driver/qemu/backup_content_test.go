package qemu

import (
	"os/exec"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// TestBackup_whatIncrementsMustNotMiss has zeroes over data, a disk that ends within a
// cluster, one that grows, and threads of their own.
func TestBackup_whatIncrementsMustNotMiss(t *testing.T) {
	b := newBackupRig(t, func(s *manifest.VirtualMachineSpec) {
		s.Disks[0].Discard = manifest.DiscardUnmap
		s.Disks[1].Size = 4<<20 + 512
	})
	b.up()
	b.writes("root", "write -P 1 0 8M")
	b.writes("data", "write -P 2 4M 512")
	b.made(manifest.BackupFull, "first")

	b.writes("root", "write -z 1M 128k")
	b.writes("root", "discard 2M 128k")
	b.writes("root", "write -z -u 3M 128k")
	b.writes("data", "write -P 3 4M 512")
	second := b.made(manifest.BackupIncremental, "")
	for _, zero := range []string{"1M", "2M", "3M"} {
		b.holds(b.file(second, "root"), "read -P 0 "+zero+" 128k")
	}
	b.holds(b.file(second, "root"), "read -P 1 0 1M")
	b.holds(b.file(second, "root"), "read -P 1 4M 4M")
	b.holds(b.file(second, "data"), "read -P 3 4M 512")

	b.web.Spec.Disks[0].Size = 12 << 20
	b.must(b.GrowDisk(t.Context(), b.web, b.looks(), "root"))
	b.writes("root", "write -P 4 10M 64k")
	third := b.made(manifest.BackupIncremental, "")
	b.holds(b.file(third, "root"), "read -P 4 10M 64k")
	b.holds(b.file(third, "root"), "read -P 0 11M 1M")
	b.holds(b.file(third, "root"), "read -P 1 0 1M")
	if found := b.verifies(third.ID); len(found) > 0 {
		t.Errorf("found: %+v", found)
	}

	// And while it is off.
	b.down()
	b.web.Spec.Disks[0].Size = 16 << 20
	b.must(b.GrowDisk(t.Context(), b.web, b.looks(), "root"))
	b.up()
	b.writes("root", "write -P 5 15M 64k")
	fourth := b.made(manifest.BackupIncremental, "")
	b.holds(b.file(fourth, "root"), "read -P 5 15M 64k")
	b.holds(b.file(fourth, "root"), "read -P 4 10M 64k")
	b.clean(bitmapOf(fourth))
}

// TestBackup_diskWithAThread is written to by a tool while it is off, which its bitmap
// notes as well.
func TestBackup_diskWithAThread_isCopied(t *testing.T) {
	b := newBackupRig(t, func(s *manifest.VirtualMachineSpec) { s.Disks[0].IOThread, s.Disks[1].IOThread = true, true })
	tool := func(command string) {
		t.Helper()
		if out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", command, b.layout.Disk("web", "root")).CombinedOutput(); err != nil { //nolint:gosec // G204: a tool of QEMU.
			t.Fatalf("%v: %s", err, out)
		}
	}
	tool("write -P 1 0 4M")
	b.up()
	first := b.made(manifest.BackupFull, "first")
	b.holds(b.file(first, "root"), "read -P 1 0 4M")
	b.down()
	tool("write -P 2 1M 64k")
	b.up()
	second := b.made(manifest.BackupIncremental, "")
	b.holds(b.file(second, "root"), "read -P 2 1M 64k")
	b.holds(b.file(second, "root"), "read -P 1 2M 2M")
	b.clean(bitmapOf(second))
}

// TestBackup_firmware also copies what the firmware remembers.
func TestBackup_firmware_isPartOfIt(t *testing.T) {
	b := newBackupRig(t, uefi(false))
	b.up()
	b.made(manifest.BackupFull, "first")
	run := b.made(manifest.BackupIncremental, "")
	if len(run.Disks) != 3 || run.Disks[2].Name != driver.FirmwareUEFI.NVRAMNode() {
		t.Errorf("the disks are %+v", run.Disks)
	}
	if found := b.verifies(run.ID); len(found) > 0 {
		t.Errorf("found: %+v", found)
	}
	b.down()
	done, err := b.RestoreBackup(t.Context(), b.web, b.looks(), b.target, run.ID, true, func(driver.BackupStage) {})
	b.must(err)
	if len(done.Disks) != 3 || len(done.KeptAt) != 3 {
		t.Errorf("restored: %+v", done)
	}
	b.up()
	if n := b.looks().Guest.NVRAM; n == nil {
		t.Error("it runs without its NVRAM")
	}
}
