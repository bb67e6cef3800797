package qemu

import (
	"strings"
	"testing"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// guestDisk is a drive as QEMU shows it.
func guestDisk(name, format string, readOnly bool, bitmaps ...string) driver.GDisk {
	return driver.GDisk{Name: name, Format: format, ReadOnly: readOnly, Bitmaps: bitmaps}
}

func alive(disks ...driver.GDisk) driver.Observed {
	return driver.Observed{Presence: driver.Alive, Guest: &driver.Guest{RunState: "running", Disks: disks}}
}

func absent(files map[string]driver.DiskFile) driver.Observed {
	return driver.Observed{Presence: driver.Absent, Files: files}
}

func TestSnapshotPreflight_tables_nameEveryDiskThatBlocks(t *testing.T) {
	there := driver.DiskFile{Path: "/d", Exists: true, Format: "qcow2"}
	root := manifest.Disk{Name: "root", Size: 1 << 20}
	for name, test := range map[string]struct {
		disks  []manifest.Disk
		obs    driver.Observed
		method manifest.SnapshotMethod
		want   []string // disk and part of the text, separated by ": "
	}{
		"running, all is well": {
			obs: alive(guestDisk("root", "qcow2", false), guestDisk("iso", "raw", true)), method: manifest.SnapshotFull,
		},
		"running, raw and writable": {
			obs:  alive(guestDisk("root", "qcow2", false), guestDisk("a", "raw", false), guestDisk("b", "raw", false)),
			want: []string{"a: is raw and writable", "b: is raw and writable"},
		},
		"running, bitmap": {
			obs: alive(guestDisk("root", "qcow2", false, "b0", "b1")),
		},
		"running, nothing to write to": {
			obs: alive(guestDisk("iso", "raw", true)), want: []string{": no disk"},
		},
		"running, looked at briefly": {
			obs:  driver.Observed{Presence: driver.Alive, Guest: &driver.Guest{Brief: true}},
			want: []string{": not been looked at"},
		},
		"stopped, all is well": {
			disks: []manifest.Disk{
				root,
				{Name: "iso", File: "/iso", Format: manifest.FormatRaw, Media: manifest.MediaCDROM},
				{Name: "ro", File: "/ro", Format: manifest.FormatRaw, ReadOnly: true},
			},
			obs: absent(map[string]driver.DiskFile{"root": there}),
		},
		"stopped, full": {
			disks: []manifest.Disk{root}, obs: absent(map[string]driver.DiskFile{"root": there}), method: manifest.SnapshotFull,
			want: []string{": no memory"},
		},
		"stopped, everything wrong": {
			disks: []manifest.Disk{
				root,
				{Name: "new", Size: 1 << 20},
				{Name: "raw", File: "/raw", Format: manifest.FormatRaw},
				{Name: "fake", File: "/fake", Format: manifest.FormatQcow2},
				{Name: "odd", File: "/odd", Format: manifest.FormatQcow2},
			},
			obs: absent(map[string]driver.DiskFile{
				"root": {Path: "/d"}, "raw": there, "fake": {Path: "/fake", Exists: true, Format: "raw"},
				"odd": {Path: "/odd", Exists: true, Err: "permission denied"},
			}),
			want: []string{"root: does not exist", "new: does not exist", "raw: is raw", "fake: is raw", "odd: permission denied"},
		},
		"stopped, no disks": {obs: absent(nil), want: []string{": no disk"}},
		"unknown": {
			obs:  driver.Observed{Presence: driver.Unknown, Message: "the run dir cannot be read"},
			want: []string{": the run dir cannot be read"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			vm := &manifest.VirtualMachine{Metadata: manifest.Metadata{Name: "web"}, Spec: manifest.VirtualMachineSpec{Disks: test.disks}}
			method := test.method
			if method == "" {
				method = manifest.SnapshotDisk
			}
			got := SnapshotPreflight(vm, test.obs, method)
			if len(got) != len(test.want) {
				t.Fatalf("got %v, want %q", got, test.want)
			}
			for i, b := range got {
				disk, says, _ := strings.Cut(test.want[i], ": ")
				if b.Disk != disk || !strings.Contains(b.Reason, says) || b.Remedy == "" {
					t.Errorf("got %+v, want disk %q, a reason with %q and a remedy", b, disk, says)
				}
			}
		})
	}
}

func TestTagBlockers_names_areFreeOrBlocked(t *testing.T) {
	vm := &manifest.VirtualMachine{Metadata: manifest.Metadata{Name: "web"}}
	obs := alive(driver.GDisk{Name: "root", Snapshots: []driver.ImageSnapshot{{Tag: "live"}}})
	obs.Snapshots = map[string]driver.SnapshotState{"old": {Tag: "old", Disks: []string{"data", "root"}}}
	for tag, blockers := range map[string]int{
		"new": 0, "a1": 0, "1a": 0, "old": 2, "live": 1,
		"": 1, "1": 1, "0042": 1, "A": 1, "a b": 1, "a,b": 1, "a/b": 1, "..": 1, "-a": 1, "größe": 1, "maqet.undo": 1, strings.Repeat("a", 64): 1,
	} {
		if got := TagBlockers(vm, obs, tag); len(got) != blockers {
			t.Errorf("%q: got %v, want %d blockers", tag, got, blockers)
		}
	}
}
