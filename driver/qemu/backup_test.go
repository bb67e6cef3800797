package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk/backups"
	"github.com/maqet/maqet/manifest"
)

func TestBackup_chain_holdsEachMoment(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("root", "write -P 1 0 4M")
	first := b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 2 1M 3k")
	second := b.made(manifest.BackupIncremental, "")
	b.writes("data", "write -P 3 0 64k")
	third := b.made(manifest.BackupIncremental, "")
	if second.Parent != first.ID || third.Parent != second.ID || third.UID != b.looks().Guest.UID || third.Method != driver.BackupJob {
		t.Errorf("the chain is %s, %s, %s", first.ID, second.Parent, third.Parent)
	}
	b.clean(bitmapOf(third))
	b.holds(b.file(first, "root"), "read -P 1 0 4M")
	b.holds(b.file(second, "root"), "read -P 2 1M 3k")
	b.holds(b.file(third, "root"), "read -P 2 1M 3k")
	b.holds(b.file(third, "root"), "read -P 1 2M 2M")
	b.holds(b.file(second, "data"), "read -P 0 0 64k")
	b.holds(b.file(third, "data"), "read -P 3 0 64k")
	if found := b.verifies(third.ID); len(found) > 0 {
		t.Errorf("found: %+v", found)
	}
	b.onlyRuns() // and no scratch folder

	// Bitmaps last while QEMU does not run.
	b.down()
	b.up()
	b.writes("root", "write -P 4 3M 64k")
	fourth := b.made(manifest.BackupIncremental, "")
	b.holds(b.file(fourth, "root"), "read -P 4 3M 64k")
	b.clean(bitmapOf(fourth))
}

func TestBackup_diedWhileQEMUCopied_theNextGoesOnWithIt(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("root", "write -P 1 0 8M")
	req := b.request()
	req.RateLimit = 4 * 65536
	left, err := b.begins(req)
	b.must(err)
	b.writes("root", "write -P 2 0 8M")
	root := left.copied.Disks[slices.IndexFunc(left.copied.Disks, func(d driver.CopyMade) bool { return d.Name == "root" })]
	b.ask("web", "block-job-set-speed", map[string]any{"device": root.Job, "speed": 0}, nil)
	run := b.made(manifest.BackupFull, "first")
	if run.ID != left.run.ID {
		t.Errorf("%s was made instead of %s", run.ID, left.run.ID)
	}
	b.holds(b.file(run, "root"), "read -P 1 0 8M")
	b.clean(bitmapOf(run))
	next := b.made(manifest.BackupIncremental, "")
	b.holds(b.file(next, "root"), "read -P 2 0 8M")
}

func TestBackup_diedBeforeTheManifest_theNextHasAllSinceTheOneBefore(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("root", "write -P 1 0 4M")
	first := b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 2 0 64k")
	left, err := b.begins(b.request())
	b.must(err)
	b.must(left.copy(t.Context(), func(driver.BackupStage) {}))
	b.writes("root", "write -P 3 1M 64k")

	second := b.made(manifest.BackupIncremental, "")
	if second.Parent != first.ID {
		t.Errorf("the parent is %s", second.Parent)
	}
	b.holds(b.file(second, "root"), "read -P 2 0 64k")
	b.holds(b.file(second, "root"), "read -P 3 1M 64k")
	b.clean(bitmapOf(second))
}

func TestBackup_diedBeforeTheOldBitmapWent_theNextCountsFromTheNewRun(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 2 0 64k")
	left, err := b.begins(b.request())
	b.must(err)
	b.must(left.copy(t.Context(), func(driver.BackupStage) {}))
	b.must(left.complete(t.Context()))
	b.writes("root", "write -P 3 1M 64k")

	third := b.made(manifest.BackupIncremental, "")
	if third.Parent != left.run.ID {
		t.Errorf("the parent is %s, want %s", third.Parent, left.run.ID)
	}
	b.holds(b.file(third, "root"), "read -P 2 0 64k")
	b.holds(b.file(third, "root"), "read -P 3 1M 64k")
	b.clean(bitmapOf(third))
}

func TestBackup_qemuKilledWhileItCopied_healsByAFull(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 1 0 8M")
	req := b.request()
	req.RateLimit = 4 * 65536
	left, err := b.begins(req)
	b.must(err)
	b.killed()
	if _, err := left.Finish(t.Context(), nil); !errors.Is(err, ErrCopyLost) {
		t.Errorf("the error is %v", err)
	}
	b.onlyRuns()
	b.up()
	b.writes("root", "write -P 5 0 64k")
	// QEMU writes a bitmap down when it ends: this one never was.
	run := b.made(manifest.BackupFull, "gone from the disk")
	b.holds(b.file(run, "root"), "read -P 5 0 64k")
	b.clean(bitmapOf(run))
	b.made(manifest.BackupIncremental, "")
}

func TestBackup_bitmapBroken_healsByAFull(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.made(manifest.BackupFull, "first")
	b.down()
	b.up()
	b.killed()
	b.up()
	b.writes("root", "write -P 5 0 64k")
	run := b.made(manifest.BackupFull, "is broken")
	b.holds(b.file(run, "root"), "read -P 5 0 64k")
	b.clean(bitmapOf(run))
	b.made(manifest.BackupIncremental, "")
}

func TestBackup_targetVanishes_isRefusedAndNotFilled(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.made(manifest.BackupFull, "first")
	away := b.target + "-away"
	b.must(os.Rename(b.target, away))
	if _, err := b.backs(b.request()); !errors.Is(err, backups.ErrNoTarget) {
		t.Errorf("without a folder: %v", err)
	}
	b.must(os.Mkdir(b.target, 0o700))
	_, err := b.backs(b.request())
	if !errors.Is(err, backups.ErrVanished) || !strings.Contains(err.Error(), "--accept-target") {
		t.Errorf("an empty folder: %v", err)
	}
	if left, err := os.ReadDir(b.target); err != nil || len(left) > 0 {
		t.Errorf("it was filled: %v, %v", left, err)
	}
	b.must(os.Remove(b.target))
	b.must(os.Rename(away, b.target))
	b.made(manifest.BackupIncremental, "")
}

func TestBackup_targetVanishesMeanwhile_isNoBackup(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	left, err := b.begins(b.request())
	b.must(err)
	b.must(os.Rename(filepath.Join(b.target, ".maqet-backup"), filepath.Join(b.target, ".away")))
	b.must(os.WriteFile(filepath.Join(b.target, ".maqet-backup"), []byte("another\n"), 0o600))
	if _, err := left.Finish(t.Context(), nil); !errors.Is(err, backups.ErrVanished) {
		t.Errorf("the error is %v", err)
	}
	b.clean("")
}

func TestBackup_targetFull_failsBeforeTheGuestNotices(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	b := newBackupRig(t)
	if err := syscall.Mount("none", b.target, "tmpfs", 0, "size=20m,mode=0700"); err != nil {
		t.Skipf("this host lets nobody mount: %v", err)
	}
	t.Cleanup(func() { b.must(syscall.Unmount(b.target, syscall.MNT_DETACH)) })
	b.up()
	b.writes("root", "write -P 1 0 8M")
	ballast := filepath.Join(b.target, "ballast")
	b.must(os.WriteFile(ballast, make([]byte, 8<<20), 0o600))
	_, err := b.backs(b.request())
	if !errors.Is(err, syscall.ENOSPC) || strings.Count(err.Error(), "MiB are free") != 1 || strings.Count(err.Error(), "make room") != 1 {
		t.Errorf("the error is %v", err)
	}
	b.writes("root", "write -P 2 0 8M")
	if o := b.looks(); o.Guest.RunState != "running" || o.Guest.Disks[0].IOStatus == "nospace" {
		t.Errorf("the guest is %s, its disk %s", o.Guest.RunState, o.Guest.Disks[0].IOStatus)
	}
	b.clean("")
	b.must(os.Remove(ballast))
	b.must(syscall.Mount("none", b.target, "tmpfs", syscall.MS_REMOUNT, "size=64m,mode=0700"))
	run := b.made(manifest.BackupFull, "first")
	b.holds(b.file(run, "root"), "read -P 2 0 8M")
}

func TestBackup_fileLies_verifyNamesItAndTheNextIsAFull(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("root", "write -P 1 0 4M")
	first := b.made(manifest.BackupFull, "first")
	second := b.made(manifest.BackupIncremental, "")
	path := b.file(first, "root")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	b.must(err)
	_, err = f.WriteAt([]byte{9}, first.Disks[0].Bytes-100)
	b.must(errors.Join(err, f.Close()))

	found := b.verifies(second.ID)
	if len(found) != 1 || found[0].File != path || !strings.Contains(found[0].Problem, "sha256") {
		t.Errorf("found: %+v", found)
	}
	if _, err := b.RestoreBackupTo(t.Context(), "web", b.target, second.ID, t.TempDir(), func(driver.BackupStage) {}); !errors.Is(err, ErrBackupBroken) {
		t.Errorf("restored all the same: %v", err)
	}
	third := b.made(manifest.BackupFull, first.ID+" is broken")
	if found := b.verifies(third.ID); len(found) > 0 {
		t.Errorf("the new one: %+v", found)
	}
	b.clean(bitmapOf(third))
}

func TestBackup_fileOfTheChainIsGone_theNextIsAFull(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	first := b.made(manifest.BackupFull, "first")
	b.made(manifest.BackupIncremental, "")
	b.must(os.Remove(b.file(first, "data")))
	b.made(manifest.BackupFull, "data.qcow2")
}

func TestBackup_rawDisk_isCopiedWholeEachTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raw,disk.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBackupRig(t, func(s *manifest.VirtualMachineSpec) {
		s.Disks[1] = manifest.Disk{Name: "data", File: path, Format: manifest.FormatRaw}
	})
	b.up()
	b.writes("data", "write -P 7 0 64k")
	b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 8 0 64k")
	run := b.made(manifest.BackupIncremental, "disk data: only a qcow2")
	b.holds(b.file(run, "data"), "read -P 7 0 64k")
	b.holds(b.file(run, "root"), "read -P 8 0 64k")
	b.clean(bitmapOf(run))
}

// TestBackup_diskWithABackingFile also has what only that holds.
func TestBackup_diskWithABackingFile_isWhole(t *testing.T) {
	dir := t.TempDir()
	base, overlay := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "over.qcow2")
	for _, args := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", base, "4M"},
		{"qemu-io", "-f", "qcow2", "-c", "write -P 6 0 128k", base},
		{"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // G204: tools of QEMU.
			t.Fatalf("%v: %s", err, out)
		}
	}
	b := newBackupRig(t, func(s *manifest.VirtualMachineSpec) {
		s.Disks[1] = manifest.Disk{Name: "data", File: overlay, Format: manifest.FormatQcow2}
	})
	b.up()
	b.writes("data", "write -P 7 64k 64k")
	run := b.made(manifest.BackupFull, "first")
	b.must(os.Remove(base))
	b.holds(b.file(run, "data"), "read -P 6 0 64k")
	b.holds(b.file(run, "data"), "read -P 7 64k 64k")
}

func TestBackup_stopped_isConvertedAndTheNextCountsFromIt(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("root", "write -P 1 0 64k")
	b.made(manifest.BackupFull, "first")
	b.down()
	stopped := b.made(manifest.BackupFull, "stopped")
	if stopped.Consistency != ConsistencyStopped || stopped.Method != driver.BackupConvert {
		t.Errorf("it says %s, %s", stopped.Consistency, stopped.Method)
	}
	b.holds(b.file(stopped, "root"), "read -P 1 0 64k")
	b.up()
	b.writes("root", "write -P 2 64k 64k")
	run := b.made(manifest.BackupIncremental, "")
	if run.Parent != stopped.ID {
		t.Errorf("its parent is %s", run.Parent)
	}
	b.holds(b.file(run, "root"), "read -P 2 64k 64k")
	b.clean(bitmapOf(run))
}

func TestBackup_modeFull_leavesNoBitmap(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.made(manifest.BackupFull, "first")
	req := b.request()
	req.Mode = manifest.BackupFull
	report, err := b.backs(req)
	b.must(err)
	if report.Run.Type != manifest.BackupFull {
		t.Errorf("it is %s", report.Run.Type)
	}
	b.clean("")
}

func TestBackup_runAs_needsNoRightToTheTarget(t *testing.T) {
	r, a := newAccountRig(t)
	b := backupRigOn(t, r, runAs(a.name))
	b.must(os.Chmod(b.target, 0o700))
	b.up()
	b.writes("root", "write -P 1 0 64k")
	b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 2 0 64k")
	run := b.made(manifest.BackupIncremental, "")
	b.holds(b.file(run, "root"), "read -P 2 0 64k")
	b.clean(bitmapOf(run))
}

func TestBackup_cancelled_leavesNothing(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 1 0 8M")
	req := b.request()
	req.RateLimit = 4 * 65536
	pending, err := b.begins(req)
	b.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := pending.Finish(ctx, func(driver.BackupStage) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	runs, err := pending.folder.Runs()
	b.must(err)
	b.clean(bitmapOf(runs[0]))
	b.made(manifest.BackupIncremental, "")
}

func TestBackup_secrets_areNotInTheManifest(t *testing.T) {
	b := newBackupRig(t, func(s *manifest.VirtualMachineSpec) {
		s.CloudInit = &manifest.CloudInit{UserData: "#cloud-config\npassword: hunter2\n"}
		s.Emulator.ExtraArgs = []string{"-fw_cfg", "name=opt/secret,string=hunter2"}
	})
	b.up()
	run := b.made(manifest.BackupFull, "first")
	text, err := os.ReadFile(filepath.Join(run.Folder, "manifest"))
	b.must(err)
	if strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), "spec.cloudInit.userData") || !strings.Contains(string(text), "spec.emulator.extraArgs") {
		t.Errorf("the manifest says\n%s", text)
	}
}

// TestRestoreBackup_cutOff_noEmptyDiskIsMade is a restore that was killed when one of two
// disks had its name: the other one is not made anew, until the restore was seen through.
func TestRestoreBackup_cutOff_noEmptyDiskIsMade(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("data", "write -P 1 0 64k")
	run := b.made(manifest.BackupFull, "first")
	b.down()
	data := b.layout.Disk("web", "data")
	b.must(os.Rename(data, data+waitingSuffix))
	if err := b.CreateDisk(t.Context(), b.web, "data"); err == nil || !strings.Contains(err.Error(), waitingSuffix) {
		t.Fatalf("an empty disk was made: %v", err)
	}
	_, err := b.RestoreBackup(t.Context(), b.web, b.looks(), b.target, run.ID, true, func(driver.BackupStage) {})
	b.must(err)
	b.holds(data, "read -P 1 0 64k")
}

func TestRestoreBackup_stopped_setsDisksAndKeepsTheOld(t *testing.T) {
	b := newBackupRig(t)
	b.up()
	b.writes("root", "write -P 1 0 64k")
	first := b.made(manifest.BackupFull, "first")
	b.writes("root", "write -P 2 0 64k")
	second := b.made(manifest.BackupIncremental, "")
	b.writes("root", "write -P 3 0 64k")
	restore := func(run string, safety bool) (driver.BackupRestored, error) {
		return b.RestoreBackup(t.Context(), b.web, b.looks(), b.target, run, safety, func(driver.BackupStage) {})
	}
	if _, err := restore(first.ID, true); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "maqet stop web") {
		t.Errorf("while it runs: %v", err)
	}
	b.down()
	done, err := restore(second.ID, true)
	b.must(err)
	root := b.layout.Disk("web", "root")
	b.holds(root, "read -P 2 0 64k")
	if len(done.KeptAt) != 2 {
		t.Fatalf("kept: %q", done.KeptAt)
	}
	b.holds(done.KeptAt[slices.Index(done.Disks, "root")], "read -P 3 0 64k")

	done, err = restore(first.ID, false)
	b.must(err)
	if len(done.KeptAt) > 0 {
		t.Errorf("kept: %q", done.KeptAt)
	}
	b.holds(root, "read -P 1 0 64k")

	// Disks and identity that are gone.
	uid := b.looks().Identity.UID
	b.must(os.RemoveAll(b.layout.DiskDir("web")))
	_, err = restore("latest", true)
	b.must(err)
	b.holds(root, "read -P 2 0 64k")
	if id := b.looks().Identity; id == nil || id.UID != uid {
		t.Errorf("the identity is %+v, want %s", id, uid)
	}
	b.up()
	b.made(manifest.BackupFull, "gone from the disk")
}
