package qemu

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// storeImage puts an image into the rig's folder of images, as if it was fetched.
func (r *rig) storeImage(digit, format string) driver.ImageState {
	r.t.Helper()
	digest := "sha256:" + strings.Repeat(digit, 64)
	path := r.layout.Image(layout.ImageKey(digest), format)
	r.must(os.MkdirAll(filepath.Dir(path), 0o700))
	for _, words := range [][]string{
		{"qemu-img", "create", "-q", "-f", format, path, "1M"},
		{"qemu-io", "-f", format, "-c", "write -P 0x61 0 64k", path},
	} {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil { //nolint:gosec // G204: a tool of QEMU
			r.t.Fatalf("%v: %v: %s", words, err, out)
		}
	}
	r.must(os.Chmod(path, 0o400))
	return driver.ImageState{Digest: digest, Present: true, Path: path, Format: format, Size: 1 << 20}
}

func ofImage(s *manifest.VirtualMachineSpec) {
	s.Disks = []manifest.Disk{{Name: "root", Image: "debian", Size: 2 << 20}}
}

func TestCreateOverlay_machine_isBoundToTheImageAndStarts(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		t.Run(format, func(t *testing.T) {
			r := newRig(t)
			image := r.storeImage("a", format)
			before, err := os.ReadFile(image.Path)
			r.must(err)
			vm := r.vm("web", ofImage)
			_, err = r.EnsureIdentity(t.Context(), vm)
			r.must(err)
			r.must(r.CreateOverlay(t.Context(), vm, "root", image))
			r.start(vm, true)
			for _, depth := range []driver.Depth{driver.DepthBrief, driver.DepthGuest, driver.DepthFull} {
				f := r.observe(vm, depth, driver.Alive).Files["root"]
				if f.Image != image.Digest || f.Backing != image.Path || f.Lost || !f.Exists {
					t.Errorf("at depth %d: %+v", depth, f)
				}
			}
			o := r.observe(vm, driver.DepthFull, driver.Alive)
			if o.Files["root"].Size != 2<<20 || len(o.Guest.Disks) != 1 || o.Guest.Disks[0].Format != "qcow2" {
				t.Errorf("disk %+v, guest %+v", o.Files["root"], o.Guest.Disks)
			}
			// A second disk of the same image, while the first is read.
			db := r.vm("db", ofImage)
			r.must(r.CreateOverlay(t.Context(), db, "root", image))
			r.start(db, true)
			after, err := os.ReadFile(image.Path)
			r.must(err)
			if !bytes.Equal(before, after) {
				t.Error("the image has changed")
			}
		})
	}
}

// TestObserve_bindingOfADisk_outlivesWhatLiesAroundIt takes away, one by one, what
// tells which image a disk is of.
func TestObserve_bindingOfADisk_outlivesWhatLiesAroundIt(t *testing.T) {
	r := newRig(t)
	image := r.storeImage("b", "raw")
	vm := r.vm("web", ofImage)
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	r.must(r.CreateOverlay(t.Context(), vm, "root", image))
	look := func() driver.DiskFile {
		t.Helper()
		return r.observe(vm, driver.DepthGuest, driver.Absent).Files["root"]
	}
	r.must(os.Rename(image.Path, image.Path+".away"))
	if f := look(); f.Image != image.Digest || !f.Lost {
		t.Errorf("without the image: %+v", f)
	}
	r.must(os.Rename(image.Path+".away", image.Path))
	identity, err := os.ReadFile(r.layout.Identity("web"))
	r.must(err)
	r.must(os.Remove(r.layout.Identity("web")))
	if f := look(); f.Image != image.Digest || f.Lost {
		t.Errorf("without the identity: %+v", f)
	}
	r.must(os.WriteFile(r.layout.Identity("web"), identity, 0o600)) //nolint:gosec // G703: a file of the rig
	flat := r.layout.Disk("web", "root")
	if out, err := exec.Command("qemu-img", "rebase", "-F", "raw", "-b", "", flat).CombinedOutput(); err != nil { //nolint:gosec // G204: a tool of QEMU
		t.Fatalf("%v: %s", err, out)
	}
	if f := look(); f.Image != image.Digest || f.Backing != "" || f.Lost {
		t.Errorf("made whole by hand: %+v", f)
	}
}

func TestCreateOverlay_imageAwayOrTooLarge_isRefused(t *testing.T) {
	r := newRig(t)
	image := r.storeImage("c", "raw")
	vm := r.vm("web", ofImage)
	if err := r.CreateOverlay(t.Context(), vm, "root", driver.ImageState{}); err == nil || !strings.Contains(err.Error(), "maqet image pull debian") {
		t.Errorf("not here: %v", err)
	}
	if err := r.CreateOverlay(t.Context(), vm, "other", image); err == nil || !strings.Contains(err.Error(), "no such disk") {
		t.Errorf("no such disk: %v", err)
	}
	image.Size = 4 << 20
	if err := r.CreateOverlay(t.Context(), vm, "root", image); !errors.Is(err, disk.ErrSmaller) {
		t.Errorf("too large: %v", err)
	}
	if _, err := os.Lstat(r.layout.Disk("web", "root")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}

func TestSetAside_disk_isKeptAndANewOneIsBoundAnew(t *testing.T) {
	r := newRig(t)
	old, next := r.storeImage("d", "raw"), r.storeImage("e", "qcow2")
	vm := r.vm("web", ofImage)
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	r.must(r.CreateOverlay(t.Context(), vm, "root", old))
	r.start(vm, true)
	if _, err := r.SetAside(t.Context(), vm, "root"); err == nil {
		t.Error("the disk of a running machine was moved")
	}
	r.must(r.Quit(t.Context(), "web"))
	r.waitEnd("web")
	r.must(r.ClearRun(t.Context(), "web"))
	var kept []string
	for _, image := range []driver.ImageState{next, old} {
		at, err := r.SetAside(t.Context(), vm, "root")
		r.must(err)
		kept = append(kept, at)
		r.must(r.CreateOverlay(t.Context(), vm, "root", image))
		if f := r.observe(vm, driver.DepthGuest, driver.Absent).Files["root"]; f.Image != image.Digest || f.Backing != image.Path {
			t.Errorf("the new disk is %+v", f)
		}
	}
	for i, image := range []driver.ImageState{old, next} {
		below := strings.HasPrefix(kept[i], filepath.Dir(r.layout.Kept("web", "x"))+"/web-")
		if h, err := disk.ReadHeader(kept[i]); err != nil || h.Backing != image.Path || !below {
			t.Errorf("kept at %s: %+v, %v", kept[i], h, err)
		}
	}
	// An empty disk in its place is of no image.
	_, err = r.SetAside(t.Context(), vm, "root")
	r.must(err)
	empty := vm.DeepCopy()
	empty.Spec.Disks[0].Image = ""
	r.must(r.CreateDisk(t.Context(), empty, "root"))
	if f := r.observe(empty, driver.DepthGuest, driver.Absent).Files["root"]; f.Image != "" || f.Backing != "" {
		t.Errorf("the empty disk is %+v", f)
	}
	// A disk that is there stays of what it is.
	r.must(os.Remove(r.layout.Disk("web", "root")))
	r.must(r.CreateOverlay(t.Context(), vm, "root", next))
	r.must(r.CreateDisk(t.Context(), empty, "root"))
	if id, err := r.readIdentity("web"); err != nil || id.Images["root"] != next.Digest {
		t.Errorf("identity %+v, %v", id, err)
	}
	// What is not there needs no moving.
	r.must(os.Remove(r.layout.Disk("web", "root")))
	if _, err := r.SetAside(t.Context(), vm, "root"); err != nil {
		t.Error(err)
	}
}

func TestStart_runAs_imageIsReadableAndStaysMaqets(t *testing.T) {
	r, a := newAccountRig(t)
	image := r.storeImage("f", "raw")
	vm := r.vm("web", runAs(a.name), ofImage)
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	r.must(r.CreateOverlay(t.Context(), vm, "root", image))
	r.start(vm, true)
	for path, want := range map[string]fs.FileMode{image.Path: 0o444, r.layout.ImageDir(): 0o711} {
		if uid, mode := fileOwner(t, path); uid != 0 || mode != want {
			t.Errorf("%s belongs to %d with mode %#o, want root with %#o", path, uid, mode, want)
		}
	}
	if uid, _ := fileOwner(t, r.layout.Disk("web", "root")); uid != a.uid {
		t.Errorf("the disk belongs to %d", uid)
	}
}
