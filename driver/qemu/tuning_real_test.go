package qemu

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

var cacheModes = []manifest.CacheMode{
	"", manifest.CacheWriteback, manifest.CacheNone, manifest.CacheWritethrough, manifest.CacheDirectSync, manifest.CacheUnsafe,
}

// tunedDisks are a disk on each bus in each cache mode, with the other keys spread
// over them.
func tunedDisks() []manifest.Disk {
	var all []manifest.Disk
	for _, bus := range []manifest.Bus{
		manifest.BusVirtio, manifest.BusVirtioSCSI, manifest.BusNVMe, manifest.BusSATA, manifest.BusUSB,
	} {
		for i, mode := range cacheModes {
			if bus == manifest.BusUSB && i%2 == 0 {
				continue // fewer will do, there are not that many ports
			}
			d := manifest.Disk{Name: fmt.Sprintf("d%d", len(all)), Size: 1 << 20, Bus: bus, Cache: mode, Serial: fmt.Sprintf("S-%d", len(all))}
			d.IOThread = bus == manifest.BusVirtio && i%2 == 0
			if isDirect(mode) {
				d.AIO = manifest.AIONative
			}
			if i%2 == 1 {
				d.Discard, d.DetectZeroes = manifest.DiscardUnmap, manifest.DetectZeroesUnmap
			} else if mode != "" {
				d.AIO, d.DetectZeroes = manifest.AIOIOUring, manifest.DetectZeroesOn
			}
			all = append(all, d)
		}
	}
	for _, mode := range cacheModes {
		all = append(all, manifest.Disk{Name: fmt.Sprintf("d%d", len(all)), Media: manifest.MediaCDROM, Bus: manifest.BusUSB, Serial: fmt.Sprintf("S-%d", len(all)), Cache: mode})
	}
	return all
}

// TestTuning_realQEMU_everyKey_isReadBack starts a machine with all of them, and
// asks QEMU for each.
func TestTuning_realQEMU_everyKey_isReadBack(t *testing.T) {
	r := newRig(t)
	iso := rawFile(t, shortDir(t)+"/iso", 1<<20)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Disks = tunedDisks()
		for i := range s.Disks {
			if s.Disks[i].Media == manifest.MediaCDROM {
				s.Disks[i].File = iso
			}
		}
	})
	r.start(vm, true)
	type tuning struct{ Cache, DetectZeroes, IOThread, Serial string }
	want, got := map[string]tuning{}, map[string]tuning{}
	for _, d := range vm.Spec.Disks {
		w := tuning{string(manifest.CacheWriteback), string(manifest.DetectZeroesOff), "", d.Serial}
		if d.Cache != "" {
			w.Cache = string(d.Cache)
		}
		if d.DetectZeroes != "" {
			w.DetectZeroes = string(d.DetectZeroes)
		}
		if d.IOThread {
			w.IOThread = d.Name + ".iothread"
		}
		want[d.Name] = w
	}
	for _, d := range r.observe(vm, driver.DepthGuest, driver.Alive).Guest.Disks {
		got[d.Name] = tuning{d.Cache, d.DetectZeroes, d.IOThread, d.Serial}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("QEMU says otherwise (-asked +read):\n%s", diff)
	}
	var threads []struct {
		ID string `json:"id"`
	}
	r.ask("web", "query-iothreads", nil, &threads)
	asked := 0
	for _, w := range want {
		if w.IOThread != "" {
			asked++
		}
	}
	if asked == 0 || len(threads) != asked {
		t.Errorf("QEMU has the threads %v, want %d", threads, asked)
	}
}
