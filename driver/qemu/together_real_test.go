package qemu

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// jobOver waits until the machine's only job is over, and is what is seen then.
func (r *rig) jobOver(vm *manifest.VirtualMachine) driver.Observed {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(realTimeout)
	for {
		o := r.observe(vm, driver.DepthFull, driver.Alive)
		if len(o.Guest.Jobs) == 1 && o.Guest.Jobs[0].Status == jobConcluded {
			return o
		}
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("the jobs are %+v", o.Guest.Jobs)
		}
	}
}

// full takes a snapshot with memory.
func (r *rig) full(vm *manifest.VirtualMachine, tag string) {
	r.t.Helper()
	r.must(r.TakeSnapshot(r.t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Alive), fullIntent(tag)))
	r.must(r.FinishSnapshot(r.t.Context(), vm, r.jobOver(vm), fullIntent(tag)))
}

// TestOverlay_realQEMU_onVirtioSCSI_isTunedGrownSavedAndRestored is a disk of an image
// with all that any disk may have.
func TestOverlay_realQEMU_onVirtioSCSI_isTunedGrownSavedAndRestored(t *testing.T) {
	r := newRig(t)
	image := r.storeImage("c", "qcow2")
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{
			Name: "root", Image: "debian", Size: 2 << 20, Bus: manifest.BusVirtioSCSI, Serial: "ROOT-1", Cache: manifest.CacheNone,
			Discard: manifest.DiscardUnmap, DetectZeroes: manifest.DetectZeroesUnmap, Throttle: &manifest.Throttle{IOPS: 500, BPS: 4 << 20},
		}}
	})
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	if err := r.CreateDisk(t.Context(), vm, "root"); err == nil || !strings.Contains(err.Error(), "it is of an image") {
		t.Errorf("made without its image: %v", err)
	}
	r.must(r.CreateOverlay(t.Context(), vm, "root", image))
	first, err := r.Start(t.Context(), driver.StartRequest{VM: vm, Generation: 1})
	r.must(err)
	if first == nil || len(first.Guest.Disks) != 1 {
		t.Fatalf("the first look shows %+v", first)
	}
	tuned := func(when string, o driver.Observed, size int64) {
		t.Helper()
		want := driver.GDisk{
			Name: "root", Driver: "scsi-hd", File: r.layout.Disk("web", "root"), Format: "qcow2", Size: size, Serial: "ROOT-1",
			Cache: "none", DetectZeroes: "unmap", IOPS: 500, BPS: 4 << 20, IOStatus: "ok",
		}
		got := o.Guest.Disks[0]
		got.Snapshots = nil
		if !equalDisk(got, want) {
			t.Errorf("%s: the drive is %+v, want %+v", when, got, want)
		}
		if f := o.Files["root"]; f.Kind != "qcow2" || f.Image != image.Digest || f.Backing != image.Path || f.Lost || f.Size != size {
			t.Errorf("%s: the disk is %+v", when, f)
		}
	}
	tuned("at once", *first, 2<<20)
	look := func() driver.Observed { return r.observe(vm, driver.DepthFull, driver.Alive) }
	tuned("later", look(), 2<<20)

	r.full(vm, "small")
	vm.Spec.Disks[0].Size = 5 << 20
	r.must(r.GrowDisk(t.Context(), vm, look(), "root"))
	tuned("grown", look(), 5<<20)
	r.must(r.TakeSnapshot(t.Context(), vm, look(), diskIntent("large")))

	// The snapshot of then has the size of then.
	_, err = r.LoadSnapshot(t.Context(), vm, look(), fullIntent("small"))
	r.must(err)
	o := r.jobOver(vm)
	if o.Guest.Jobs[0].Error != "" {
		t.Fatalf("loading: %s", o.Guest.Jobs[0].Error)
	}
	r.must(r.FinishLoad(t.Context(), vm, o, fullIntent("small")))
	tuned("loaded", look(), 2<<20)
	r.must(r.SetPaused(t.Context(), "web", false))

	k := r.childOf("web")
	r.must(r.Quit(t.Context(), "web"))
	r.waitChild(k)
	stopped := func() driver.Observed { return r.observe(vm, driver.DepthFull, driver.Absent) }
	if _, err := r.RestoreSnapshot(t.Context(), vm, stopped(), "large"); err != nil {
		t.Fatal(err)
	}
	vm.Spec.Disks[0].Size = 7 << 20
	r.must(r.GrowDisk(t.Context(), vm, stopped(), "root"))
	if f := stopped().Files["root"]; f.Size != 7<<20 || f.Image != image.Digest || f.Lost || f.Err != "" {
		t.Errorf("grown in QEMU's absence: %+v", f)
	}
}

// equalDisk compares drives without their snapshots and bitmaps.
func equalDisk(a, b driver.GDisk) bool {
	a.Snapshots, a.Bitmaps, b.Snapshots, b.Bitmaps = nil, nil, nil, nil
	return a.Name == b.Name && a.Driver == b.Driver && a.File == b.File && a.Format == b.Format && a.ReadOnly == b.ReadOnly &&
		a.Size == b.Size && a.Serial == b.Serial && a.Cache == b.Cache && a.DetectZeroes == b.DetectZeroes &&
		a.IOPS == b.IOPS && a.BPS == b.BPS && a.IOStatus == b.IOStatus && a.IOThread == b.IOThread && a.Empty == b.Empty
}

// TestTakeSnapshot_realQEMU_otherStorage_isNamedAsTheBlocker takes snapshots of machines
// with disks that cannot hold them, or whose device QEMU cannot save.
func TestTakeSnapshot_realQEMU_otherStorage_isNamedAsTheBlocker(t *testing.T) {
	dir := shortDir(t)
	socket := filepath.Join(dir, "nbd.sock")
	serveNBD(t, rawFile(t, filepath.Join(dir, "served.raw"), 3<<20), "", "--socket="+socket)
	root := manifest.Disk{Name: "root", Size: 1 << 20}
	for name, tt := range map[string]struct {
		other manifest.Disk
		full  string // what keeps a snapshot with memory from being taken
		disk  string // and one of disks
	}{
		"nvme":         {manifest.Disk{Size: 1 << 20, Bus: manifest.BusNVMe, Serial: "A"}, "NVMe", ""},
		"virtio-scsi":  {manifest.Disk{Size: 1 << 20, Bus: manifest.BusVirtioSCSI}, "", ""},
		"usb":          {manifest.Disk{Size: 1 << 20, Bus: manifest.BusUSB}, "", ""},
		"sata":         {manifest.Disk{Size: 1 << 20, Bus: manifest.BusSATA}, "", ""},
		"iothread":     {manifest.Disk{Size: 1 << 20, IOThread: true}, "", ""},
		"empty cdrom":  {manifest.Disk{Media: manifest.MediaCDROM}, "", ""},
		"nbd":          {manifest.Disk{NBD: &manifest.NBD{Unix: socket}}, "raw and writable", "raw and writable"},
		"nbd, read":    {manifest.Disk{NBD: &manifest.NBD{Unix: socket}, ReadOnly: true}, "", ""},
		"block device": {manifest.Disk{File: "loop", Format: manifest.FormatRaw}, "raw and writable", "raw and writable"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if tt.other.File == "loop" {
				tt.other.File = loopDevice(t, rawFile(t, filepath.Join(shortDir(t), "disk"), 4<<20))
			}
			tt.other.Name = "other"
			vm := r.vm("web", func(s *manifest.VirtualMachineSpec) { s.Disks = []manifest.Disk{root, tt.other} })
			r.start(vm, false)
			for _, c := range []struct {
				intent driver.SnapshotIntent
				says   string
			}{{diskIntent("disk"), tt.disk}, {fullIntent("full"), tt.full}} {
				err := r.TakeSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Alive), c.intent)
				if c.says == "" {
					if err != nil {
						t.Fatalf("%s: %v", c.intent.Tag, err)
					}
					if c.intent.Method == manifest.SnapshotFull {
						if o := r.jobOver(vm); o.Guest.Jobs[0].Error != "" {
							t.Errorf("the job: %s", o.Guest.Jobs[0].Error)
						}
					}
					continue
				}
				blocked, ok := errors.AsType[*BlockedError](err)
				if !ok || len(blocked.Blockers) != 1 || blocked.Blockers[0].Disk != "other" || !strings.Contains(blocked.Blockers[0].Reason, c.says) {
					t.Errorf("%s: error %v", c.intent.Tag, err)
				}
			}
			k := r.childOf("web")
			r.must(r.Quit(t.Context(), "web"))
			r.waitChild(k)
			err := r.TakeSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Absent), diskIntent("stopped"))
			if (err == nil) != (tt.disk == "") || err != nil && !strings.Contains(err.Error(), "disk other: it is "+tt.disk) {
				t.Errorf("stopped: %v", err)
			}
		})
	}
}
