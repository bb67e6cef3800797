package qemu

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/driver/qmp"
	"github.com/maqet/maqet/manifest"
)

// onEveryBus is a machine with one disk of 1 MiB on each bus, called like the bus.
func onEveryBus(r *rig, change ...func(*manifest.VirtualMachineSpec)) *manifest.VirtualMachine {
	return r.vm("web", slices.Concat([]func(*manifest.VirtualMachineSpec){func(s *manifest.VirtualMachineSpec) {
		for _, bus := range []manifest.Bus{manifest.BusVirtio, manifest.BusVirtioSCSI, manifest.BusNVMe, manifest.BusSATA, manifest.BusUSB} {
			d := onBus(string(bus), bus)
			d.Size = 1 << 20
			s.Disks = append(s.Disks, d)
		}
	}}, change)...)
}

// drive is what QEMU says of a drive of the machine web.
func (r *rig) drive(vm *manifest.VirtualMachine, name string) driver.GDisk {
	r.t.Helper()
	for _, d := range r.observe(vm, driver.DepthGuest, driver.Alive).Guest.Disks {
		if d.Name == name {
			return d
		}
	}
	r.t.Fatalf("no drive %s", name)
	return driver.GDisk{}
}

func TestGrowDisk_realQEMU_everyBus_growsLiveOrWhenStopped(t *testing.T) {
	r := newRig(t)
	vm := onEveryBus(r)
	r.start(vm, true)
	o := r.observe(vm, driver.DepthGuest, driver.Alive)
	larger := vm.DeepCopy()
	for i := range larger.Spec.Disks {
		d := &larger.Spec.Disks[i]
		d.Size = 3 << 20
		err := r.GrowDisk(t.Context(), larger, o, d.Name)
		got := r.drive(vm, d.Name)
		switch refused, ok := errors.AsType[*qmp.Error](err); {
		case d.Bus == manifest.BusNVMe:
			// What the plan counts on: QEMU itself cannot.
			if !ok || !strings.Contains(refused.Desc, "resize") || got.Size != 1<<20 {
				t.Errorf("%s: error %v, size %d", d.Name, err, got.Size)
			}
		case err != nil || got.Size != 3<<20:
			t.Errorf("%s: error %v, size %d", d.Name, err, got.Size)
		}
	}
	if err := r.GrowDisk(t.Context(), larger, o, "virtio"); err != nil {
		t.Errorf("growing to the same size: %v", err)
	}
	// The launch-time size is now too small.
	err := r.GrowDisk(t.Context(), vm, o, "virtio")
	if !errors.Is(err, disk.ErrShrink) || r.drive(vm, "virtio").Size != 3<<20 {
		t.Errorf("shrinking: %v, size %d", err, r.drive(vm, "virtio").Size)
	}

	k := r.childOf("web")
	r.must(r.Quit(t.Context(), "web"))
	r.waitChild(k)
	o = r.observe(larger, driver.DepthFull, driver.Absent)
	for i := range larger.Spec.Disks {
		r.must(r.GrowDisk(t.Context(), larger, o, larger.Spec.Disks[i].Name))
	}
	for name, f := range r.observe(larger, driver.DepthFull, driver.Absent).Files {
		if f.Size != 3<<20 {
			t.Errorf("%s has %d bytes after it was grown in QEMU's absence", name, f.Size)
		}
	}
	if err := r.GrowDisk(t.Context(), vm, o, "nvme"); !errors.Is(err, disk.ErrShrink) {
		t.Errorf("shrinking in QEMU's absence: %v", err)
	}
}

func TestGrowDisk_fileOfTheUsers_isRefused(t *testing.T) {
	r := newRig(t)
	file := rawFile(t, shortDir(t)+"/a.raw", 1<<20)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", File: file, Format: manifest.FormatRaw}}
	})
	o := r.observe(vm, driver.DepthFull, driver.Absent)
	err := r.GrowDisk(t.Context(), vm, o, "root")
	if err == nil || !strings.Contains(err.Error(), "its file is not maqet's") {
		t.Errorf("error %v", err)
	}
	if err := r.CreateDisk(t.Context(), vm, "root"); err == nil || !strings.Contains(err.Error(), "its file is not maqet's") {
		t.Errorf("error %v", err)
	}
	if err := r.CreateDisk(t.Context(), vm, "data"); err == nil || !strings.Contains(err.Error(), "no such disk") {
		t.Errorf("error %v", err)
	}
}

func TestThrottle_realQEMU_everyBus_isThereAfterTheStartAndChangesLive(t *testing.T) {
	r := newRig(t)
	vm := onEveryBus(r, func(s *manifest.VirtualMachineSpec) {
		for i := range s.Disks {
			s.Disks[i].Throttle = &manifest.Throttle{IOPS: 100 + i, BPS: 1 << 20}
		}
		s.Disks = append(s.Disks, manifest.Disk{Name: "tray", Media: manifest.MediaCDROM})
	})
	r.start(vm, true)
	limits := func(name string) [2]int64 {
		d := r.drive(vm, name)
		return [2]int64{d.IOPS, d.BPS}
	}
	for i := range vm.Spec.Disks[:5] {
		d := &vm.Spec.Disks[i]
		if got, want := limits(d.Name), [2]int64{int64(100 + i), 1 << 20}; got != want {
			t.Errorf("%s was started with the limits %v, want %v", d.Name, got, want)
		}
		d.Throttle = &manifest.Throttle{BPS: manifest.Quantity(2+i) << 20}
		r.must(r.ThrottleDisk(t.Context(), vm, d.Name))
		if got, want := limits(d.Name), [2]int64{0, int64(2+i) << 20}; got != want {
			t.Errorf("%s has the limits %v, want %v", d.Name, got, want)
		}
		if record, err := r.readLaunched("web"); err != nil || *record.Spec.Disks[i].Throttle != *d.Throttle {
			t.Errorf("%s: the launch record has %+v, error %v", d.Name, record.Spec.Disks[i].Throttle, err)
		}
		d.Throttle = nil
		r.must(r.ThrottleDisk(t.Context(), vm, d.Name))
		if got := limits(d.Name); got != [2]int64{} {
			t.Errorf("%s has the limits %v still", d.Name, got)
		}
	}
	// An empty drive has nothing to limit, as QEMU says itself.
	if err := r.ThrottleDisk(t.Context(), vm, "tray"); err == nil || !strings.Contains(err.Error(), "no medium") {
		t.Errorf("error %v", err)
	}
	if err := r.ThrottleDisk(t.Context(), vm, "none"); !errors.Is(err, errNoDisk) {
		t.Errorf("a disk that is not in the manifest: %v", err)
	}
}
