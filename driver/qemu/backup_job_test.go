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

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// copyBench is a running machine whose disks are copied.
type copyBench struct {
	*snapBench
	*copier
	dir string
}

func newCopyBench(t *testing.T) *copyBench {
	t.Helper()
	b := newSnapBench(t)
	b.start(t)
	b.do(t, "cont", nil, nil)
	c := &copyBench{snapBench: b, copier: &copier{snapshots: b.snapshots}, dir: t.TempDir()}
	c.await = func(ctx context.Context, _ string, _ driver.Awaited) error {
		events := b.conn.Subscribe()
		defer events.Close()
		jobs := b.jobs(t) //nolint:contextcheck // the test's own
		if !slices.ContainsFunc(jobs, func(j driver.Job) bool { return j.Status != jobConcluded }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-events.C():
			return nil
		}
	}
	return c
}

// guestWrites writes a pattern to a disk as the guest would.
func (c *copyBench) guestWrites(t *testing.T, name, command string) {
	t.Helper()
	var said string
	c.do(t, "human-monitor-command", map[string]any{
		"command-line": `qemu-io -d /machine/peripheral/` + name + `/virtio-backend "` + command + `"`,
	}, &said)
	if said != "" {
		t.Fatalf("%s of %s: %s", command, name, said)
	}
}

// request copies both disks into files of that name in a folder.
func (c *copyBench) request(run, parent string) driver.CopyRequest {
	req := driver.CopyRequest{Kind: "backup"}
	for _, name := range []string{"root", "data"} {
		d := driver.CopyDisk{Name: name, Path: filepath.Join(c.dir, run, name+".qcow2"), Mark: "maqet-backup-" + run}
		if parent != "" {
			d.Backing, d.Since = "../"+parent+"/"+name+".qcow2", "maqet-backup-"+parent
		}
		req.Disks = append(req.Disks, d)
	}
	return req
}

func (c *copyBench) copy(t *testing.T, req driver.CopyRequest) (driver.Copy, error) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(req.Disks[0].Path), 0o700); err != nil {
		t.Fatal(err)
	}
	obs := c.observe(t)
	return c.all(t.Context(), "web", req, func(ctx context.Context) (driver.Copy, error) { return c.begin(ctx, c.vm, obs, req) }, nil)
}

// reads fails when a copy does not hold a pattern.
func (c *copyBench) reads(t *testing.T, run, name, command string) {
	t.Helper()
	out, err := exec.Command("qemu-io", "-r", "-f", "qcow2", "-c", command, filepath.Join(c.dir, run, name+".qcow2")).CombinedOutput() //nolint:gosec // G204: a tool of QEMU.
	if err != nil || strings.Contains(string(out), "failed") {
		t.Errorf("%s of %s, %s: %v\n%s", name, run, command, err, out)
	}
}

// nothingLeft fails when QEMU has anything of a copy.
func (c *copyBench) nothingLeft(t *testing.T, bitmaps ...string) {
	t.Helper()
	if jobs := c.jobs(t); len(jobs) > 0 {
		t.Errorf("jobs are left: %+v", jobs)
	}
	nodes, err := namedNodes(t.Context(), c.conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if strings.HasPrefix(n.Name, "maqet-") {
			t.Errorf("node %s is left", n.Name)
		}
		for _, m := range n.Bitmaps {
			if m.Name != "" && !slices.Contains(bitmaps, m.Name) {
				t.Errorf("bitmap %s of %s is left", m.Name, n.Name)
			}
		}
	}
	var sets []any
	c.do(t, "query-fdsets", nil, &sets)
	if len(sets) > 0 {
		t.Errorf("descriptors are left: %v", sets)
	}
}

func TestCopyDisks_fullAndItsDifferences_holdWhatTheDisksHeldThen(t *testing.T) {
	c := newCopyBench(t)
	c.guestWrites(t, "root", "write -P 1 0 2M")
	c.guestWrites(t, "data", "write -P 9 1M 64k")
	made, err := c.copy(t, c.request("a", ""))
	if err != nil {
		t.Fatal(err)
	}
	if made.Consistency != ConsistencyCrash || made.At.IsZero() || len(made.Disks) != 2 || made.Disks[0].Size != 8<<20 {
		t.Errorf("it says %+v", made)
	}
	c.guestWrites(t, "root", "write -P 2 512k 3k")
	if _, err := c.copy(t, c.request("b", "a")); err != nil {
		t.Fatal(err)
	}
	c.guestWrites(t, "root", "write -P 3 7M 1M")
	if _, err := c.copy(t, c.request("c", "b")); err != nil {
		t.Fatal(err)
	}
	c.nothingLeft(t, "maqet-backup-a", "maqet-backup-b", "maqet-backup-c")

	c.reads(t, "a", "root", "read -P 1 0 2M")
	c.reads(t, "a", "data", "read -P 9 1M 64k")
	c.reads(t, "b", "root", "read -P 2 512k 3k")
	c.reads(t, "b", "root", "read -P 1 515k 1533k")
	c.reads(t, "b", "root", "read -P 0 7M 1M")
	c.reads(t, "c", "root", "read -P 3 7M 1M")
	c.reads(t, "c", "root", "read -P 2 512k 3k")
	st, err := os.Stat(filepath.Join(c.dir, "b", "root.qcow2"))
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() > 512<<10 {
		t.Errorf("the difference: %v, %v", st, err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Blocks > 1024 {
		t.Errorf("%+v: blocks are still reserved for it", sys)
	}
}

func TestCopyDisks_guestWritesMeanwhile_areNotInTheCopy(t *testing.T) {
	c := newCopyBench(t)
	c.guestWrites(t, "root", "write -P 1 0 8M")
	req := c.request("a", "")
	req.RateLimit = 2 * 65536
	if err := os.MkdirAll(filepath.Dir(req.Disks[0].Path), 0o700); err != nil {
		t.Fatal(err)
	}
	before := c.drive(t)
	made, err := c.begin(t.Context(), c.vm, c.observe(t), req)
	if err != nil {
		t.Fatal(err)
	}
	c.looksTheSame(t, before)
	c.guestWrites(t, "root", "write -P 2 4M 4M")
	now, err := c.progress(t.Context(), "web", made)
	if err != nil || now.Over || now.Total == 0 {
		t.Fatalf("it should go on at its rate: %+v, %v", now, err)
	}
	c.do(t, "block-job-set-speed", map[string]any{"device": made.Disks[0].Job, "speed": 0}, nil)
	if err := errors.Join(c.wait(t.Context(), "web", made, nil), c.finish(t.Context(), "web", made)); err != nil {
		t.Fatal(err)
	}
	c.reads(t, "a", "root", "read -P 1 0 8M")
	// The bitmap has it, so the difference to this copy will.
	found, err := c.bitmaps(t.Context(), "web")
	if err != nil || len(found["root"]) != 1 || found["root"][0].Dirty != 4<<20 || !found["root"][0].Persistent || !found["root"][0].Recording {
		t.Errorf("bitmaps: %+v, %v", found, err)
	}
}

// drive is a disk as an observer has it.
func (c *copyBench) drive(t *testing.T) driver.GDisk {
	t.Helper()
	var drives []blockDrive
	c.do(t, "query-block", nil, &drives)
	found := driveOf(drives, "root")
	if found == nil {
		t.Fatalf("no root in %+v", drives)
	}
	return (&detail{qomItem: qomItem{"root", "virtio-blk-pci"}, drive: found}).disk()
}

// looksTheSame fails when the disk that is being copied looks like another one: the job
// puts a node of its own on top, which is no change of the machine.
func (c *copyBench) looksTheSame(t *testing.T, before driver.GDisk) {
	t.Helper()
	now := c.drive(t)
	if now.DetectZeroes != "" {
		t.Errorf("the filter's detect-zeroes %q is told as the disk's", now.DetectZeroes)
	}
	now.DetectZeroes = before.DetectZeroes
	if diff := cmp.Diff(before, now); diff != "" {
		t.Errorf("it looks different while it is copied (-before +now):\n%s", diff)
	}
}

func TestCopyDisks_cancelled_leavesNothing(t *testing.T) {
	c := newCopyBench(t)
	c.guestWrites(t, "root", "write -P 1 0 8M")
	req := c.request("a", "")
	req.RateLimit = 2 * 65536
	if err := os.MkdirAll(filepath.Dir(req.Disks[0].Path), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	obs := c.observe(t)
	_, err := c.all(ctx, "web", req, func(ctx context.Context) (driver.Copy, error) { return c.begin(ctx, c.vm, obs, req) },
		func(driver.CopyProgress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("the error is %v", err)
	}
	c.nothingLeft(t)
	c.noFiles(t, "a")
}

func (c *copyBench) noFiles(t *testing.T, run string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(c.dir, run))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestCleanCopies_leftByAKilledProcess_endsThem(t *testing.T) {
	c := newCopyBench(t)
	c.guestWrites(t, "root", "write -P 1 0 8M")
	req := c.request("a", "")
	req.RateLimit = 2 * 65536
	if err := os.MkdirAll(filepath.Dir(req.Disks[0].Path), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.begin(t.Context(), c.vm, c.observe(t), req); err != nil {
		t.Fatal(err)
	}
	if err := c.clean(t.Context(), "web", driver.Copy{Kind: "backup", UID: snapUID}, []string{"maqet-backup-a"}); err != nil {
		t.Fatal(err)
	}
	c.nothingLeft(t)
	// What is not there any more is no error.
	if err := c.clean(t.Context(), "web", driver.Copy{Kind: "backup", UID: snapUID}, []string{"maqet-backup-a"}); err != nil {
		t.Fatal(err)
	}
}

func TestCopyDisks_refused_leavesNothing(t *testing.T) {
	c := newCopyBench(t)
	req := c.request("b", "a")
	if _, err := c.copy(t, req); err == nil || !strings.Contains(err.Error(), "maqet-backup-a") {
		t.Errorf("without the bitmap: %v", err)
	}
	c.nothingLeft(t)
	c.noFiles(t, "b")

	req = c.request("c", "")
	req.Disks[1].Name = "nothing"
	if _, err := c.copy(t, req); err == nil || !strings.Contains(err.Error(), "no disk nothing") {
		t.Errorf("without the disk: %v", err)
	}
	c.nothingLeft(t)
	c.noFiles(t, "c")
}

func TestCopyDisks_required_isRefusedWithoutAFreeze(t *testing.T) {
	c := newCopyBench(t)
	req := c.request("a", "")
	req.Quiesce = manifest.QuiesceRequired
	if _, err := c.copy(t, req); !errors.Is(err, ErrNotQuiesced) {
		t.Errorf("the error is %v", err)
	}
	c.nothingLeft(t)
	c.noFiles(t, "a")
}

// all makes copies from beginning to end. The files are QEMU's no more when it returns,
// and gone when it fails.
func (p *copier) all(ctx context.Context, name string, req driver.CopyRequest, begin func(context.Context) (driver.Copy, error), tell func(driver.CopyProgress)) (driver.Copy, error) {
	made, err := begin(ctx)
	if err != nil {
		return made, err
	}
	if err = p.wait(ctx, name, made, tell); err == nil {
		err = p.finish(ctx, name, made)
	}
	if err == nil {
		for _, d := range made.Disks {
			err = errors.Join(err, disk.Settle(d.Path))
		}
	}
	if err != nil {
		err = errors.Join(err, p.undo(ctx, name, req, made))
	}
	return made, err
}

// bitmaps are the dirty bitmaps of the disks that QEMU has open.
func (p *copier) bitmaps(ctx context.Context, name string) (map[string][]driver.Bitmap, error) {
	found := map[string][]driver.Bitmap{}
	err := p.visit(ctx, name, func(ctx context.Context, c *qmp.Conn) error {
		nodes, err := namedNodes(ctx, c)
		for _, n := range nodes {
			if strings.HasPrefix(n.Name, "#") {
				continue
			}
			for _, m := range n.Bitmaps {
				if m.Name != "" {
					found[n.Name] = append(found[n.Name], m.bitmap())
				}
			}
		}
		return err
	})
	return found, err
}
