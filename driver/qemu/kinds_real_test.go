package qemu

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// rawFile makes a raw image.
func rawFile(t testing.TB, path string, size int64) string {
	t.Helper()
	writeTestFile(t, path, nil)
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// serveNBD serves a raw image until the test ends. At is where: options of qemu-nbd.
func serveNBD(t testing.TB, image, export string, at ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-nbd"); err != nil {
		t.Skip("qemu-nbd is not installed (Debian package qemu-utils)")
	}
	ready := filepath.Join(shortDir(t), "pid")
	args := append([]string{"--persistent", "--shared=2", "--format=raw", "--export-name=" + export, "--pid-file=" + ready}, at...)
	cmd := exec.Command("qemu-nbd", append(args, image)...) //nolint:gosec // G204: a test's own arguments.
	var words lastWords
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // It was killed, as the status says.
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(realTimeout); ; {
		if _, err := os.Stat(ready); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("qemu-nbd does not serve: %s", words.line())
		}
	}
}

// loopDevice is a block device over a file, or skips the test where none can be made.
func loopDevice(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.Command("losetup", "-f", "--show", path).Output() //nolint:gosec // G204: a test's own path.
	if err != nil {
		t.Skipf("no block device can be made here: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		// A QEMU that was just killed may hold it for a moment.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), realTimeout)
		defer cancel()
		for ctx.Err() == nil {
			if exec.Command("losetup", "-d", device).Run() == nil { //nolint:gosec // G204: as above.
				return
			}
			_ = pause(ctx, firstTry) // its end is the loop's
		}
		t.Errorf("the loop device %s could not be removed", device)
	})
	return device
}

// TestKinds_realQEMU_everyKind_isOpenedAndObserved starts a machine with a disk of
// each kind, which QEMU then describes as it was asked for.
func TestKinds_realQEMU_everyKind_isOpenedAndObserved(t *testing.T) {
	r := newRig(t)
	dir := shortDir(t)
	socket := filepath.Join(dir, "a, b.sock")
	serveNBD(t, rawFile(t, filepath.Join(dir, "served.raw"), 3<<20), "pool/x", "--socket="+socket)
	port := freePort(t)
	serveNBD(t, rawFile(t, filepath.Join(dir, "served2.raw"), 4<<20), "", "--bind=127.0.0.1", "--port="+strconv.Itoa(port))
	disks := []manifest.Disk{
		{Name: "made", Size: 1 << 20},
		{Name: "file", File: rawFile(t, filepath.Join(dir, "a, b.raw"), 2<<20), Format: manifest.FormatRaw},
		{Name: "export", NBD: &manifest.NBD{Unix: socket, Export: "pool/x"}},
		{Name: "tcp", NBD: &manifest.NBD{Host: "127.0.0.1", Port: port}},
		{Name: "cd", NBD: &manifest.NBD{Unix: socket, Export: "pool/x"}, Media: manifest.MediaCDROM},
	}
	want := map[string]driver.GDisk{
		"made":   {Size: 1 << 20, Format: "qcow2", File: r.layout.Disk("web", "made")},
		"file":   {Size: 2 << 20, Format: "raw", File: disks[1].File},
		"export": {Size: 3 << 20, Format: "raw", File: "nbd+unix:///pool/x?socket=" + socket},
		"tcp":    {Size: 4 << 20, Format: "raw", File: "nbd://127.0.0.1:" + strconv.Itoa(port)},
		"cd":     {Size: 3 << 20, Format: "raw", File: "nbd+unix:///pool/x?socket=" + socket, ReadOnly: true},
	}
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Disks = disks })
	before := r.observe(vm, driver.DepthFull, driver.Absent)
	for name, kind := range map[string]string{"made": "qcow2", "file": "file", "export": "nbd", "tcp": "nbd", "cd": "nbd"} {
		if f := before.Files[name]; f.Kind != kind || f.Err != "" || f.Exists != (name != "made") {
			t.Errorf("disk %s before: %+v", name, f)
		}
	}
	r.start(vm, true)
	o := r.observe(vm, driver.DepthGuest, driver.Alive)
	if len(o.Guest.Disks) != len(want) {
		t.Errorf("QEMU has %+v", o.Guest.Disks)
	}
	for _, got := range o.Guest.Disks {
		w := want[got.Name]
		if got.Size != w.Size || got.Format != w.Format || got.File != w.File || got.ReadOnly != w.ReadOnly {
			t.Errorf("disk %s is %+v, want %+v", got.Name, got, w)
		}
		if f := o.Files[got.Name]; !f.Exists || f.Size != w.Size || f.Path != w.File {
			t.Errorf("disk %s: its storage is %+v", got.Name, f)
		}
	}
}

func TestKinds_realQEMU_blockDevice_isOpenedAndObserved(t *testing.T) {
	r := newRig(t)
	device := loopDevice(t, rawFile(t, filepath.Join(shortDir(t), "disk"), 4<<20))
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", File: device, Format: manifest.FormatRaw}}
	})
	r.start(vm, true)
	o := r.observe(vm, driver.DepthGuest, driver.Alive)
	if d := o.Guest.Disks[0]; d.File != device || d.Size != 4<<20 || d.Format != "raw" {
		t.Errorf("the disk is %+v", d)
	}
	if f := o.Files["root"]; f.Kind != "device" || f.Size != 4<<20 || f.Err != "" {
		t.Errorf("its storage is %+v", f)
	}
	k := r.childOf("web")
	r.must(r.Quit(t.Context(), "web"))
	r.waitChild(k)
}

// nullKind is a kind that this package knows nothing of.
type nullKind struct{ disk.File }

func (nullKind) Holds(d *manifest.Disk) bool { return strings.HasPrefix(d.File, "/null/") }

func (nullKind) Source(d *manifest.Disk, _ string) disk.Source {
	return disk.Source{Name: d.File, Options: []disk.Option{{Key: "driver", Value: "null-co"}, {Key: "size", Value: 5 << 20}, {Key: "read-zeroes", Value: true}}}
}

func TestKinds_realQEMU_aNewKind_needsNoChangeElsewhere(t *testing.T) {
	r := newRig(t)
	r.kinds = append(disk.Kinds{nullKind{disk.File{Images: r.images}}}, r.kinds...)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "zero", File: "/null/a", Format: manifest.FormatRaw}, {Name: "root", Size: 1 << 20}}
	})
	r.start(vm, true)
	for _, d := range r.observe(vm, driver.DepthGuest, driver.Alive).Guest.Disks {
		if d.Name == "zero" && d.Size != 5<<20 || d.Name == "root" && d.Size != 1<<20 {
			t.Errorf("disk %+v", d)
		}
	}
}

func TestCheck_sourcesOfDisks_areFoundWhenTheyCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		disk       manifest.Disk
		path, says string
	}{
		"no device":       {manifest.Disk{File: "/dev/null", Format: manifest.FormatRaw}, "spec.disks[0].file", "no block device"},
		"no such device":  {manifest.Disk{File: "/dev/maqet-none", Format: manifest.FormatRaw}, "spec.disks[0].file", "does not exist"},
		"no such socket":  {manifest.Disk{NBD: &manifest.NBD{Unix: dir + "/none"}}, "spec.disks[0].nbd", "no such file"},
		"not a socket":    {manifest.Disk{NBD: &manifest.NBD{Unix: fifo}}, "spec.disks[0].nbd", "is no socket"},
		"pipe, no device": {manifest.Disk{File: fifo, Format: manifest.FormatRaw}, "spec.disks[0].file", "is no file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := testProber(t)
			tt.disk.Name = "d"
			spec := manifest.VirtualMachineSpec{Emulator: &manifest.Emulator{Binary: fakeHost(t, p, testHost())}, Disks: []manifest.Disk{tt.disk}}
			_, findings, err := p.Check(t.Context(), testVM("web", spec))
			if err != nil || len(findings) != 1 || findings[0].Path != tt.path || !strings.Contains(findings[0].Msg, tt.says) {
				t.Errorf("error %v, findings %+v", err, findings)
			}
		})
	}
}
