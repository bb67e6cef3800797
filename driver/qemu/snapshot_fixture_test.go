package qemu

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

const (
	snapUID = "0fe4c9d2-3a43-4a57-9f0e-6d4f2b1c8a55"
	snapJob = "maqet-snapshot-0fe4c9d2"
)

// snapBench is a machine with disks, on a bare QEMU or stopped, and what takes its
// snapshots.
type snapBench struct {
	*snapshots
	vm   *manifest.VirtualMachine
	args []string // further arguments of QEMU

	qemu *exec.Cmd
	conn *qmp.Conn
}

// newSnapBench makes the images of a stopped machine "web".
func newSnapBench(t *testing.T, disks ...manifest.Disk) *snapBench {
	t.Helper()
	for _, tool := range []string{"qemu-img", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian packages qemu-utils and qemu-system-x86)", tool)
		}
	}
	if len(disks) == 0 {
		disks = []manifest.Disk{{Name: "root", Size: 8 << 20}, {Name: "data", Size: 8 << 20}}
	}
	b := &snapBench{
		snapshots: &snapshots{
			images: disk.New(disk.Config{Timing: timing.Default()}), layout: layout.Layout{State: t.TempDir()},
			timing: timing.Default(), log: slog.New(slog.DiscardHandler),
		},
		vm: &manifest.VirtualMachine{Metadata: manifest.Metadata{Name: "web"}, Spec: manifest.VirtualMachineSpec{Disks: disks}},
	}
	b.visit = func(ctx context.Context, _ string, do func(context.Context, *qmp.Conn) error) error {
		return do(ctx, b.conn)
	}
	for i := range b.vm.Spec.Disks {
		d := &b.vm.Spec.Disks[i]
		if d.Size == 0 && d.File == "" {
			d.File = filepath.Join(t.TempDir(), d.Name+"."+string(diskFormat(d)))
		}
		path := b.path(b.vm, d.Name)
		if diskFormat(d) == manifest.FormatRaw {
			if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := b.images.Create(t.Context(), path, 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// start starts the machine, paused unless cont is called.
func (b *snapBench) start(t *testing.T) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	args := []string{
		"-machine", "q35", "-m", "64", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S", "-uuid", snapUID,
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	}
	for i := range b.vm.Spec.Disks {
		d := &b.vm.Spec.Disks[i]
		node, err := json.Marshal(map[string]any{
			"driver": diskFormat(d), "node-name": d.Name, "read-only": !writableDisk(d),
			"file": map[string]any{"driver": "file", "filename": b.path(b.vm, d.Name)},
		})
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "-blockdev", string(node), "-device", "virtio-blk-pci,id="+d.Name+",drive="+d.Name)
	}
	b.qemu = exec.Command("qemu-system-x86_64", append(args, b.args...)...) //nolint:gosec // G204: made above.
	b.qemu.Stderr, b.qemu.ExtraFiles = os.Stderr, []*os.File{theirs}
	if err := b.qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.stop(t) })
	_ = theirs.Close()
	nc, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	if b.conn, err = qmp.New(t.Context(), nc, qmp.Options{}); err != nil {
		t.Fatal(err)
	}
}

// stop kills QEMU, if there is one.
func (b *snapBench) stop(t *testing.T) {
	t.Helper()
	if b.qemu == nil {
		return
	}
	_ = b.qemu.Process.Kill() // gone already when the test was over first
	_ = b.qemu.Wait()         // it was killed
	if err := b.conn.Close(); err != nil {
		t.Error(err)
	}
	b.qemu, b.conn = nil, nil
}

// do sends one command.
func (b *snapBench) do(t *testing.T, command string, args, result any) {
	t.Helper()
	if err := b.conn.Do(t.Context(), command, args, result); err != nil {
		t.Fatal(err)
	}
}

// observe is what an observer would say of the machine.
func (b *snapBench) observe(t *testing.T) driver.Observed {
	t.Helper()
	obs := driver.Observed{
		Name: "web", Presence: driver.Absent, Identity: &driver.Identity{UID: snapUID},
		Files: map[string]driver.DiskFile{}, Snapshots: map[string]driver.SnapshotState{}, SnapshotsKnown: true,
	}
	if b.conn != nil {
		b.observeGuest(t, &obs)
	}
	for i := range b.vm.Spec.Disks {
		d := &b.vm.Spec.Disks[i]
		path := b.path(b.vm, d.Name)
		info, err := b.images.InfoAs(t.Context(), path, string(diskFormat(d)))
		if err != nil {
			t.Fatal(err)
		}
		obs.Files[d.Name] = driver.DiskFile{Path: path, Exists: true, Size: info.VirtualSize, Format: info.Format}
		for _, s := range info.Snapshots {
			state := obs.Snapshots[s.Tag]
			state.Tag, state.Disks = s.Tag, append(state.Disks, d.Name)
			obs.Snapshots[s.Tag] = state
		}
	}
	return obs
}

func (b *snapBench) observeGuest(t *testing.T, obs *driver.Observed) {
	t.Helper()
	var status struct{ Status string }
	b.do(t, "query-status", nil, &status)
	obs.Presence = driver.Alive
	obs.Launched = &driver.Launched{Version: driver.LaunchedVersion, UID: snapUID, Argv: b.qemu.Args}
	obs.Guest = &driver.Guest{RunState: status.Status, UID: snapUID, CPUs: 1, Memory: 64 << 20}
	var nodes []struct {
		Name    string `json:"node-name"`
		Driver  string `json:"drv"`
		RO      bool   `json:"ro"`
		Bitmaps []struct {
			Name string `json:"name"`
		} `json:"dirty-bitmaps"`
	}
	b.do(t, "query-named-block-nodes", map[string]any{"flat": true}, &nodes)
	found, err := onlinePlace{b.conn}.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.vm.Spec.Disks {
		name := b.vm.Spec.Disks[i].Name
		for _, n := range nodes {
			if n.Name != name {
				continue
			}
			d := driver.GDisk{Name: name, Format: n.Driver, ReadOnly: n.RO, Snapshots: found[name]}
			for _, m := range n.Bitmaps {
				d.Bitmaps = append(d.Bitmaps, m.Name)
			}
			obs.Guest.Disks = append(obs.Guest.Disks, d)
		}
	}
}

// tagged are the disks that have a tag now.
func (b *snapBench) tagged(t *testing.T, tag string) []string {
	t.Helper()
	return tagged(b.observe(t), tag)
}

// jobs are the jobs that QEMU knows.
func (b *snapBench) jobs(t *testing.T) []driver.Job {
	t.Helper()
	var jobs []driver.Job
	b.do(t, "query-jobs", nil, &jobs)
	return jobs
}

// fill writes a pattern to the first sectors of a stopped machine's disk, and holds
// looks for it.
func (b *snapBench) fill(t *testing.T, name, pattern string) {
	t.Helper()
	b.io(t, name, "write -P "+pattern+" 0 4096")
}

func (b *snapBench) holds(t *testing.T, name, pattern string) bool {
	t.Helper()
	return b.ioCommand(t, name, "read -P "+pattern+" 0 4096").Run() == nil
}

func (b *snapBench) io(t *testing.T, name, command string) {
	t.Helper()
	if out, err := b.ioCommand(t, name, command).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io %s: %v\n%s", command, err, out)
	}
}

func (b *snapBench) ioCommand(t *testing.T, name, command string) *exec.Cmd {
	t.Helper()
	return exec.Command("qemu-io", "-f", "qcow2", "-c", command, b.path(b.vm, name)) //nolint:gosec // G204: a tool of QEMU.
}

// addBitmap gives a stopped machine's disk a dirty bitmap.
func (b *snapBench) addBitmap(t *testing.T, name, bitmap string) {
	t.Helper()
	cmd := exec.Command("qemu-img", "bitmap", "--add", b.path(b.vm, name), bitmap) //nolint:gosec // G204: a tool of QEMU.
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("qemu-img bitmap: %v\n%s", err, out)
	}
}

// recorded is the record of a snapshot, which must be there.
func (b *snapBench) recorded(t *testing.T, tag string) *driver.SnapshotRecord {
	t.Helper()
	record, err := b.record("web", tag)
	if err != nil {
		t.Fatal(err)
	}
	if record == nil {
		t.Fatalf("the snapshot %s has no record", tag)
	}
	st, err := os.Stat(b.layout.Snapshot("web", tag))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("the record has mode %v, want 0600", st.Mode().Perm())
	}
	return record
}

// noRecord fails when anything is recorded of a tag.
func (b *snapBench) noRecord(t *testing.T, tag string) {
	t.Helper()
	record, err := b.record("web", tag)
	if record != nil || err != nil {
		t.Errorf("the snapshot %s has the record %+v, %v", tag, record, err)
	}
	b.noDraft(t, tag)
}

func (b *snapBench) noDraft(t *testing.T, tag string) {
	t.Helper()
	draft, err := b.draft("web", tag)
	if draft != nil || err != nil {
		t.Errorf("the snapshot %s has the draft %+v, %v", tag, draft, err)
	}
}

func diskIntent(tag string) driver.SnapshotIntent {
	return driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotDisk}
}

func fullIntent(tag string) driver.SnapshotIntent {
	return driver.SnapshotIntent{Tag: tag, Method: manifest.SnapshotFull, Job: snapJob}
}

// awaitJob waits until the job is over.
func (b *snapBench) awaitJob(t *testing.T) driver.Job {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, j := range b.jobs(t) {
			if j.ID == snapJob && j.Status == jobConcluded {
				return j
			}
		}
		select {
		case <-tick.C:
		case <-time.After(30 * time.Second):
			t.Fatal("the job did not end")
		}
	}
}
