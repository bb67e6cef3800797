package qemu

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// snapTool runs a tool of QEMU.
func (r *rig) snapTool(words ...string) {
	r.t.Helper()
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil { //nolint:gosec // G204: a tool of QEMU
		r.t.Fatalf("%q: %v\n%s", words, err, out)
	}
}

// withSnapshot is a stopped machine with a disk of an image and one of its own, both full
// of '1' in a snapshot "then" and of '2' since.
func (r *rig) withSnapshot() (*manifest.VirtualMachine, *driver.Identity, driver.ImageState) {
	r.t.Helper()
	image := r.storeImage("d", "qcow2")
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Image: "debian", Size: 2 << 20}, {Name: "data", Size: 4 << 20}}
	})
	_, err := r.EnsureIdentity(r.t.Context(), vm)
	r.must(err)
	r.must(r.CreateOverlay(r.t.Context(), vm, "root", image))
	r.must(r.CreateDisk(r.t.Context(), vm, "data"))
	for _, name := range []string{"root", "data"} {
		path := r.layout.Disk("web", name)
		r.snapTool("qemu-io", "-f", "qcow2", "-c", "write -P 0x31 1M 1M", path)
		r.snapTool("qemu-img", "snapshot", "-c", "then", path)
		r.snapTool("qemu-io", "-f", "qcow2", "-c", "write -P 0x32 1M 1M", path)
	}
	id, err := r.readIdentity("web")
	r.must(err)
	return vm, id, image
}

// reads tells whether a range of an image holds a pattern.
func (r *rig) reads(format, path, pattern, where string) bool {
	r.t.Helper()
	return exec.Command("qemu-io", "-r", "-f", format, "-c", "read -P "+pattern+" "+where, path).Run() == nil //nolint:gosec // G204: a tool of QEMU
}

func unheard(float64) {}

func TestCloneSnapshot_placed_isAMachineOfItsOwn(t *testing.T) {
	r := newRig(t)
	vm, id, image := r.withSnapshot()
	both := []string{"root", "data"}
	clone, err := r.CloneSnapshot(t.Context(), driver.CloneRequest{VM: vm, Identity: id, Tag: "then", Disks: both, New: "web2"}, unheard)
	r.must(err)
	defer clone.Discard()
	if _, err := os.Stat(r.layout.DiskDir("web2")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is in sight before it is placed: %v", err)
	}
	r.must(clone.Place(t.Context()))
	got, err := r.readIdentity("web2")
	r.must(err)
	if got.UID == id.UID || got.UID != clone.UID || len(got.MACs) > 0 {
		t.Errorf("its identity is %+v", got)
	}
	if !cmp.Equal(got.Machine, id.Machine) || !cmp.Equal(got.Slots, id.Slots) || len(id.Slots) != 2 || !cmp.Equal(got.Images, id.Images) {
		t.Errorf("its places and images are %+v, want those of %+v", got, id)
	}
	for _, name := range both {
		path := r.layout.Disk("web2", name)
		if !r.reads("qcow2", path, "0x31", "1M 1M") {
			t.Errorf("%s is not of then", name)
		}
		h, err := readHeader(path)
		if err != nil || (h.Backing == image.Path) != (name == "root") {
			t.Errorf("%s reads from %q, %v", name, h.Backing, err)
		}
		if _, mode := fileOwner(t, path); mode != 0o600 {
			t.Errorf("%s has the mode %#o", name, mode)
		}
	}
	// It starts with what it has.
	second := vm.DeepCopy()
	second.Metadata.Name = "web2"
	r.start(second, true)
	if o := r.observe(second, driver.DepthFull, driver.Alive); o.Guest.UID != clone.UID {
		t.Errorf("QEMU has the uuid %s", o.Guest.UID)
	}

	// The name is taken now.
	_, err = r.CloneSnapshot(t.Context(), driver.CloneRequest{VM: vm, Identity: id, Tag: "then", Disks: both, New: "web2"}, unheard)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one: %v", err)
	}
}

// A snapshot that is deleted while it is copied leaves clusters to others.
func TestExportSnapshot_deletedMeanwhile_makesNothing(t *testing.T) {
	r := newRig(t)
	vm, id, _ := r.withSnapshot()
	to := t.TempDir()
	again := func(float64) {
		path := r.layout.Disk("web", "data")
		r.snapTool("qemu-img", "snapshot", "-d", "then", path)
		r.snapTool("qemu-img", "snapshot", "-c", "then", path)
	}
	files := map[string]string{"data": filepath.Join(to, "data.qcow2"), "root": filepath.Join(to, "root.qcow2")}
	_, err := r.ExportSnapshot(t.Context(), driver.ExportRequest{VM: vm, Identity: id, Tag: "then", Files: files, Format: manifest.FormatQcow2}, again)
	if err == nil || !strings.Contains(err.Error(), "deleted while it was copied") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestExportSnapshot_notPossible_makesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(r *rig, to string)
		says  string
	}{
		"a file is there": {func(r *rig, to string) {
			r.must(os.WriteFile(filepath.Join(to, "data.qcow2"), []byte("mine"), 0o600))
		}, "not overwritten"},
		"it reads from a file that nobody knows": {func(r *rig, _ string) {
			r.snapTool("qemu-img", "rebase", "-u", "-b", "/etc/passwd", "-F", "raw", r.layout.Disk("web", "data"))
		}, "no image that maqet stores"},
		"it reads from another image than it was made of": {func(r *rig, _ string) {
			other := r.storeImage("e", "qcow2")
			r.snapTool("qemu-img", "rebase", "-u", "-b", other.Path, "-F", "qcow2", r.layout.Disk("web", "root"))
		}, "was made of"},
		"it is smaller now": {func(r *rig, _ string) {
			path := r.layout.Disk("web", "data")
			r.snapTool("qemu-img", "snapshot", "-c", "small", path)
			r.snapTool("qemu-img", "snapshot", "-d", "then", path)
			r.snapTool("qemu-img", "resize", "-q", path, "6M")
			r.snapTool("qemu-img", "snapshot", "-c", "then", path)
			r.snapTool("qemu-img", "snapshot", "-a", "small", path)
		}, "restore then first"},
		"a disk does not have it": {func(r *rig, _ string) {
			r.snapTool("qemu-img", "snapshot", "-d", "then", r.layout.Disk("web", "root"))
		}, "disk root"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			vm, id, _ := r.withSnapshot()
			to := t.TempDir()
			test.spoil(r, to)
			before, err := os.ReadDir(to)
			r.must(err)
			files := map[string]string{"data": filepath.Join(to, "data.qcow2"), "root": filepath.Join(to, "root.qcow2")}
			_, err = r.ExportSnapshot(t.Context(), driver.ExportRequest{VM: vm, Identity: id, Tag: "then", Files: files, Format: manifest.FormatQcow2}, unheard)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if after, err := os.ReadDir(to); err != nil || len(after) != len(before) {
				t.Errorf("the folder has %v, %v", after, err)
			}
		})
	}
}

// A user who has taken over his QEMU can write any name into the header of a disk. What
// root copies for the owner of the host must not be a file that this user cannot read.
func TestExportSnapshot_runAs_readsWithTheUsersRights(t *testing.T) {
	r, a := newAccountRig(t)
	dir := filepath.Join(filepath.Dir(r.layout.State), "files")
	r.must(os.Mkdir(dir, 0o711))
	r.must(os.Chmod(dir, 0o711))
	theirs, secret := filepath.Join(dir, "theirs.qcow2"), filepath.Join(dir, "secret")
	vm := r.vm("web", runAs(a.name), func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "data", Size: 4 << 20}, {Name: "theirs", File: theirs, Format: manifest.FormatQcow2}}
	})
	r.must(os.WriteFile(secret, []byte(strings.Repeat("s", 1<<20)), 0o600))
	r.snapTool("qemu-img", "create", "-q", "-f", "qcow2", theirs, "4M")
	r.must(os.Chown(theirs, a.uid, a.gid))
	r.start(vm, true)
	obs := r.observe(vm, driver.DepthFull, driver.Alive)
	r.must(r.TakeSnapshot(t.Context(), vm, obs, diskIntent("then")))
	to := t.TempDir()
	export := func(name string) (string, error) {
		path := filepath.Join(to, name+".raw")
		_, err := r.ExportSnapshot(t.Context(), driver.ExportRequest{
			VM: vm, Identity: obs.Identity, Tag: "then", Files: map[string]string{name: path}, Format: manifest.FormatRaw,
		}, unheard)
		return path, err
	}
	path, err := export("data")
	r.must(err)
	if uid, mode := fileOwner(t, path); uid != 0 || mode != 0o600 {
		t.Errorf("the export belongs to %d with mode %#o", uid, mode)
	}
	_, err = export("theirs")
	r.must(err)
	r.must(os.Remove(filepath.Join(to, "theirs.raw")))
	k := r.childOf("web")
	r.must(r.Quit(t.Context(), "web"))
	r.waitChild(k)
	r.snapTool("qemu-img", "rebase", "-u", "-b", secret, "-F", "raw", theirs)
	if path, err := export("theirs"); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		text, _ := os.ReadFile(path)
		t.Errorf("got %v; the secret is in it: %v", err, strings.Contains(string(text), "sss"))
	}
}

// writeWildly changes a disk that QEMU has open as a guest would, and takes and deletes
// other snapshots of it, until stop.
func writeWildly(ctx context.Context, c *qmp.Conn, size int, stop *atomic.Bool, wrote chan<- struct{}) error {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // places, not secrets
	var others []string
	io := func(format string, args ...any) error {
		var said string
		line := fmt.Sprintf(`qemu-io -d /machine/peripheral/data/virtio-backend "`+format+`"`, args...)
		if err := c.Do(ctx, "human-monitor-command", map[string]any{"command-line": line}, &said); err != nil {
			return err
		}
		if strings.Contains(said, "rror") || strings.Contains(said, "failed") {
			return fmt.Errorf("%s: %s", line, said)
		}
		return nil
	}
	for done := 0; !stop.Load(); done++ {
		at := random.IntN(size-128<<10) &^ 511
		var err error
		switch n := random.IntN(20); {
		case n < 12:
			err = io("write -P %d %d %d", 1+random.IntN(254), at, 512<<random.IntN(8))
		case n < 15:
			err = io("discard %d 128k", at)
		case n < 18:
			err = io("write -z -u %d 128k", at)
		case n == 18:
			others = append(others, fmt.Sprintf("other%d", done))
			err = c.Do(ctx, "blockdev-snapshot-internal-sync", map[string]any{"device": "data", "name": others[len(others)-1]}, nil)
		case len(others) > 0:
			err = c.Do(ctx, "blockdev-snapshot-delete-internal-sync", map[string]any{"device": "data", "name": others[0]}, nil)
			others = others[1:]
		}
		if err != nil {
			return err
		}
		select {
		case wrote <- struct{}{}:
		default:
		}
	}
	return nil
}

// TestExportSnapshot_realQEMU_underWrites_isOfThen reads a snapshot again and again (6
// times, 500 in soak) while the disk that it is in is written to, discarded and
// snapshotted: it is the same each time.
func TestExportSnapshot_realQEMU_underWrites_isOfThen(t *testing.T) {
	rounds := 6
	if os.Getenv("MAQET_SOAK") != "" {
		rounds = 500
	}
	for _, cache := range []manifest.CacheMode{manifest.CacheWriteback, manifest.CacheNone} {
		t.Run(string(cache), func(t *testing.T) {
			r := newRig(t)
			const size = 12 << 20
			vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
				s.Disks = []manifest.Disk{{Name: "data", Size: size, Cache: cache, Discard: manifest.DiscardUnmap}}
			})
			content := make([]byte, size)
			random := rand.NewChaCha8([32]byte{7})
			_, _ = random.Read(content[1<<20 : 10<<20])
			raw := filepath.Join(t.TempDir(), "raw")
			r.must(os.WriteFile(raw, content, 0o600))
			r.must(os.MkdirAll(r.layout.DiskDir("web"), 0o700))
			r.snapTool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, r.layout.Disk("web", "data"))
			r.start(vm, true)
			obs := r.observe(vm, driver.DepthFull, driver.Alive)
			r.must(r.TakeSnapshot(t.Context(), vm, obs, diskIntent("then")))

			var stop atomic.Bool
			wrote := make(chan struct{}, 1)
			ended := make(chan error, 1)
			go func() {
				ended <- r.Visit(t.Context(), "web", func(ctx context.Context, c *qmp.Conn) error {
					return writeWildly(ctx, c, size, &stop, wrote)
				})
			}()
			want := sha256.Sum256(content)
			to := t.TempDir()
			for n := range rounds {
				// Each round has seen a write of its own.
				for range 2 {
					select {
					case <-wrote:
					case err := <-ended:
						t.Fatalf("the writes ended: %v", err)
					}
				}
				path := filepath.Join(to, fmt.Sprintf("%d.raw", n))
				_, err := r.ExportSnapshot(t.Context(), driver.ExportRequest{
					VM: vm, Identity: obs.Identity, Tag: "then", Files: map[string]string{"data": path}, Format: manifest.FormatRaw,
				}, unheard)
				r.must(err)
				text, err := os.ReadFile(path)
				r.must(err)
				r.must(os.Remove(path))
				if sha256.Sum256(text) != want {
					t.Errorf("export %d is not what was then", n)
				}
			}
			stop.Store(true)
			r.must(<-ended)
			if s, err := disk.SnapshotOf(r.layout.Disk("web", "data"), "then"); err != nil || s.Size != size {
				t.Errorf("then is %+v, %v", s, err)
			}
		})
	}
}
