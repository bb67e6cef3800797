package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// backupRig is a machine with two disks and a target for its backups.
type backupRig struct {
	*rig
	t      *testing.T
	web    *manifest.VirtualMachine
	target string
	marker string
}

func newBackupRig(t *testing.T, change ...func(*manifest.VirtualMachineSpec)) *backupRig {
	t.Helper()
	return backupRigOn(t, newRig(t), change...)
}

func backupRigOn(t *testing.T, r *rig, change ...func(*manifest.VirtualMachineSpec)) *backupRig {
	t.Helper()
	b := &backupRig{rig: r, t: t, target: t.TempDir()}
	disks := func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Size: 8 << 20}, {Name: "data", Size: 4 << 20}}
	}
	b.web = r.vm("web", append([]func(*manifest.VirtualMachineSpec){disks}, change...)...)
	for i := range b.web.Spec.Disks {
		if d := &b.web.Spec.Disks[i]; d.Size > 0 {
			r.must(r.CreateDisk(t.Context(), b.web, d.Name))
		}
	}
	return b
}

// up starts the machine and lets it run.
func (b *backupRig) up() {
	b.t.Helper()
	b.start(b.web, false)
}

// down ends QEMU in good order.
func (b *backupRig) down() {
	b.t.Helper()
	k := b.childOf("web")
	b.must(b.Quit(b.t.Context(), "web"))
	b.waitChild(k)
	b.must(b.ClearRun(b.t.Context(), "web"))
}

// killed kills QEMU.
func (b *backupRig) killed() {
	b.t.Helper()
	k := b.childOf("web")
	b.signal("web", unix.SIGKILL)
	b.waitChild(k)
	b.must(b.ClearRun(b.t.Context(), "web"))
}

func (b *backupRig) request() driver.BackupRequest {
	return driver.BackupRequest{Target: b.target, Marker: b.marker, Mode: manifest.BackupIncremental}
}

func (b *backupRig) looks() driver.Observed {
	return b.Observe(b.t.Context(), "web", b.web, driver.DepthFull)
}

func (b *backupRig) begins(req driver.BackupRequest) (*Backup, error) {
	b.t.Helper()
	return b.beginBackup(b.t.Context(), b.web, b.looks(), req)
}

func (b *backupRig) backs(req driver.BackupRequest) (driver.BackupReport, error) {
	b.t.Helper()
	pending, err := b.BeginBackup(b.t.Context(), b.web, b.looks(), req)
	if err != nil {
		return driver.BackupReport{}, err
	}
	report, err := pending.Finish(b.t.Context(), nil)
	if err == nil {
		b.marker = report.Marker
	}
	return report, err
}

// made makes a backup that must be of that type, and which must say why.
func (b *backupRig) made(want manifest.BackupMode, why string) driver.BackupRun {
	b.t.Helper()
	report, err := b.backs(b.request())
	if err != nil {
		b.t.Fatal(err)
	}
	if report.Warning != "" {
		b.t.Errorf("warning: %s", report.Warning)
	}
	if run := report.Run; run.Type != want || !strings.Contains(run.Why, why) || (why == "") != (run.Why == "") {
		b.t.Fatalf("it is %s since %q, want %s since %q", run.Type, run.Why, want, why)
	}
	return report.Run
}

// writes writes as the guest would.
func (b *backupRig) writes(disk, command string) {
	b.t.Helper()
	var said string
	b.ask("web", "human-monitor-command", map[string]any{
		"command-line": fmt.Sprintf(`qemu-io -d /machine/peripheral/%s/virtio-backend "%s"`, disk, command),
	}, &said)
	if said != "" {
		b.t.Fatalf("%s: %s", command, said)
	}
}

// holds fails when a file does not have a pattern.
func (b *backupRig) holds(path, command string) {
	b.t.Helper()
	out, err := exec.Command("qemu-io", "-r", "-U", "-f", "qcow2", "-c", command, path).CombinedOutput() //nolint:gosec // G204: a tool of QEMU.
	if err != nil || strings.Contains(string(out), "failed") {
		b.t.Errorf("%s, %s: %v\n%s", path, command, err, out)
	}
}

func (b *backupRig) file(run driver.BackupRun, disk string) string {
	return filepath.Join(run.Folder, disk+".qcow2")
}

// clean fails when anything of a backup is left besides the runs and the bitmaps of the
// newest one.
func (b *backupRig) clean(bitmap string) {
	b.t.Helper()
	b.must(b.Visit(b.t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
		var jobs []driver.Job
		if err := c.Do(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		if len(jobs) > 0 {
			b.t.Errorf("jobs are left: %+v", jobs)
		}
		nodes, err := namedNodes(ctx, c)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if strings.HasPrefix(n.Name, "maqet-") || n.Driver == copyFilter {
				b.t.Errorf("node %s is left", n.Name)
			}
			for _, m := range n.Bitmaps {
				if m.Name != bitmap {
					b.t.Errorf("bitmap %s of %s is left", m.Name, n.Name)
				}
			}
		}
		return nil
	}))
	b.onlyRuns()
}

// onlyRuns fails when the target has anything but complete runs.
func (b *backupRig) onlyRuns() {
	b.t.Helper()
	all, err := filepath.Glob(filepath.Join(b.target, "*", "*"))
	b.must(err)
	for _, dir := range all {
		if _, err := os.Stat(filepath.Join(dir, "manifest")); err != nil {
			b.t.Errorf("%s is no run", dir)
		}
		files, err := os.ReadDir(dir)
		b.must(err)
		for _, f := range files {
			if !slices.Contains([]string{"manifest", "root.qcow2", "data.qcow2", "broken"}, f.Name()) {
				b.t.Errorf("%s is left", filepath.Join(dir, f.Name()))
			}
			if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
				b.t.Errorf("%s: %v, %v", f.Name(), info, err)
			}
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			b.t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}

// verifies checks a run and all it needs, also by restoring it.
func (b *backupRig) verifies(run string) []driver.BackupFinding {
	b.t.Helper()
	_, found, err := b.VerifyBackup(b.t.Context(), b.target, "web", run, true, func(driver.BackupStage) {})
	b.must(err)
	return found
}

func bitmapOf(run driver.BackupRun) string { return backupBitmap + run.ID }

// complete writes a run's manifest as Finish does, and no more.
func (b *Backup) complete(ctx context.Context) error {
	return b.folder.Complete(ctx, &b.run, func(int64, int64) {})
}
