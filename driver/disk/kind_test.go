package disk

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

func allKinds(images *Images) Kinds {
	return Kinds{Made{images}, File{images}, Device{images}, NBD{}}
}

func TestKinds_everyDisk_hasOneKindAndItsSource(t *testing.T) {
	kinds := allKinds(newImages(t))
	for _, c := range []struct {
		disk manifest.Disk
		kind string
		want Source
	}{
		{manifest.Disk{Size: 1}, "qcow2", fileSource("file", "/made")},
		{manifest.Disk{File: "/srv/a,b=c.raw"}, "file", fileSource("file", "/srv/a,b=c.raw")},
		{manifest.Disk{File: "/dev/shm/a.raw"}, "file", fileSource("file", "/dev/shm/a.raw")},
		{manifest.Disk{File: "/device/a"}, "file", fileSource("file", "/device/a")},
		{manifest.Disk{File: "/dev/vg0/data"}, "device", fileSource("host_device", "/dev/vg0/data")},
		{manifest.Disk{File: "/dev/shm/../sdb"}, "device", fileSource("host_device", "/dev/shm/../sdb")},
		{manifest.Disk{NBD: &manifest.NBD{Unix: "/run/a,b.sock", Export: "x"}}, "nbd", Source{
			Path: "/run/a,b.sock", Name: "nbd+unix:///x?socket=/run/a,b.sock",
			Options: []Option{{"driver", "nbd"}, {"server", []Option{{"type", "unix"}, {"path", "/run/a,b.sock"}}}, {"export", "x"}},
		}},
		{manifest.Disk{NBD: &manifest.NBD{Host: "::1", Port: 7}}, "nbd", Source{
			Name:    "nbd://::1:7",
			Options: []Option{{"driver", "nbd"}, {"server", []Option{{"type", "inet"}, {"host", "::1"}, {"port", "7"}}}},
		}},
	} {
		kind, err := kinds.Of(&c.disk)
		if err != nil || kind.Name() != c.kind {
			t.Errorf("%+v: kind %v, error %v; want %s", c.disk, kind, err, c.kind)
			continue
		}
		if diff := cmp.Diff(c.want, kind.Source(&c.disk, "/made")); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.disk, diff)
		}
		if _, err := kinds.Maker(&c.disk); (err == nil) != (c.kind == "qcow2") {
			t.Errorf("%+v: maqet makes it: %v", c.disk, err)
		}
	}
}

func TestKinds_diskOfNoKind_isAnErrorInWords(t *testing.T) {
	kinds := Kinds{File{newImages(t)}}
	d := &manifest.Disk{Name: "a", Size: 1}
	_, err := kinds.Source(d, "/made")
	if !errors.Is(err, ErrNoKind) || !strings.Contains(err.Error(), "disk a") {
		t.Errorf("error %v", err)
	}
	if file, _ := kinds.Look(t.Context(), d, "/made", true); file.Err == "" || file.Exists {
		t.Errorf("looked at: %+v", file)
	}
}

// loopDevice makes a block device of a file, or skips the test where that is not
// allowed.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	out, err := command(t, "losetup", "-f", "--show", path).Output()
	if err != nil {
		t.Skipf("no block device can be made here: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())                                                       // which has ended by now
		if out, err := exec.CommandContext(ctx, "losetup", "-d", device).CombinedOutput(); err != nil { //nolint:gosec // G204: a device of this test.
			t.Errorf("losetup -d: %v: %s", err, out)
		}
	})
	return device
}

func TestKinds_whatIsThere_isLookedAt(t *testing.T) {
	images := newImages(t)
	kinds, dir := allKinds(images), t.TempDir()
	raw := filepath.Join(dir, "a.raw")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	look := func(d manifest.Disk, deep bool) driver.DiskFile {
		file, _ := kinds.Look(t.Context(), &d, filepath.Join(dir, "made.qcow2"), deep)
		return file
	}
	rawDisk := manifest.Disk{File: raw, Format: manifest.FormatRaw}
	if got := look(rawDisk, false); !got.Exists || got.Size != 0 || got.Allocated != 1<<20 || got.Total <= got.Free || got.Free <= 0 || got.Path != raw || got.Kind != "file" {
		t.Errorf("a file, not looked into: %+v", got)
	}
	if got := look(rawDisk, true); got.Size != 1<<20 || got.Format != "raw" || got.Err != "" {
		t.Errorf("a file: %+v", got)
	}
	if got := look(manifest.Disk{Size: 1}, true); got.Exists || got.Err != "" || got.Kind != "qcow2" {
		t.Errorf("nothing yet: %+v", got)
	}
	for want, d := range map[string]manifest.Disk{
		"it is no file (d":             {File: dir, Format: manifest.FormatRaw},
		"it is no file (D":             {File: "/proc/self/root/dev/null", Format: manifest.FormatRaw},
		"it is no block device":        {File: "/dev/null", Format: manifest.FormatRaw},
		"is no socket":                 {NBD: &manifest.NBD{Unix: raw}},
		"Image is not in qcow2 format": {File: raw, Format: manifest.FormatQcow2},
	} {
		if got := look(d, true); !strings.Contains(got.Err, want) {
			t.Errorf("%+v: %+v, want an error that says %q", d, got, want)
		}
	}
	if got := look(manifest.Disk{NBD: &manifest.NBD{Unix: socket}, Format: manifest.FormatRaw}, true); !got.Exists || got.Err != "" {
		t.Errorf("a socket: %+v", got)
	}
	if got := look(manifest.Disk{NBD: &manifest.NBD{Unix: socket + "2"}}, true); got.Exists || got.Err != "" {
		t.Errorf("no socket: %+v", got)
	}
	if got := look(manifest.Disk{NBD: &manifest.NBD{Host: "192.0.2.1", Port: 1}}, true); !got.Exists || got.Err != "" {
		t.Errorf("a server elsewhere: %+v", got)
	}
}

func TestKinds_blockDevice_isADiskOfItsSize(t *testing.T) {
	images := newImages(t)
	kinds, path := allKinds(images), filepath.Join(t.TempDir(), "a.raw")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	device := loopDevice(t, path)
	got, _ := kinds.Look(t.Context(), &manifest.Disk{File: device, Format: manifest.FormatRaw}, "", true)
	if !got.Exists || got.Size != 4<<20 || got.Err != "" || got.Kind != "device" || got.Total != 0 {
		t.Errorf("a device: %+v", got)
	}
	// The same device under a name that says it is a file.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(device, link); err != nil {
		t.Fatal(err)
	}
	got, _ = kinds.Look(t.Context(), &manifest.Disk{File: link, Format: manifest.FormatRaw}, "", true)
	if !strings.Contains(got.Err, "name it by its path below /dev") {
		t.Errorf("a device by a link: %+v", got)
	}
}
