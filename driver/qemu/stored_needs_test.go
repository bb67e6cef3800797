package qemu

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
)

// TestStoredNeeds_realQEMUImg_readersAndSnapshotsAreFound has disks that read from others
// in all the ways in which an image names another, and a snapshot.
func TestStoredNeeds_realQEMUImg_readersAndSnapshotsAreFound(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		for _, name := range []string{"base", "free", "json", "root", "shared"} {
			s.Disks = append(s.Disks, manifest.Disk{Name: name, Size: 1 << 20})
		}
	})
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	for _, d := range vm.Spec.Disks {
		r.must(r.CreateDisk(t.Context(), vm, d.Name))
	}
	path := func(name string) string { return r.layout.Disk("web", name) }
	reads := func(to, from string) {
		t.Helper()
		out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", from, to).CombinedOutput() //nolint:gosec // G204: a test's own words
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	elsewhere := filepath.Join(shortDir(t), "user.qcow2")
	reads(path("middle"), "base.qcow2")
	reads(path("top"), path("middle"))
	reads(elsewhere, `json:{"driver":"qcow2","file":{"driver":"file","filename":"`+path("json")+`"}}`)
	vm.Spec.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}}
	r.must(r.TakeSnapshot(t.Context(), vm, r.observe(vm, driver.DepthFull, driver.Absent), diskIntent("nightly")))

	stored, err := r.StoredDisks(t.Context())
	r.must(err)
	needs, err := r.StoredNeeds(t.Context(), stored, map[string]driver.Need{
		elsewhere: {Folder: "db", By: "disk a of machine db"}, path("shared"): {Folder: "db", By: "disk b of machine db"}, "/none": {Folder: "db", By: "none"},
	})
	r.must(err)
	want := map[string][]driver.Need{
		path("base"):   {{Folder: "web", By: "disk web/middle"}, {Folder: "web", By: "disk web/top"}},
		path("middle"): {{Folder: "web", By: "disk web/top"}},
		path("json"):   {{Folder: "db", By: "disk a of machine db"}},
		path("shared"): {{Folder: "db", By: "disk b of machine db"}},
		path("root"):   {{Folder: "web", By: "snapshot nightly", Snapshot: "nightly"}},
	}
	if diff := cmp.Diff(want, needs); diff != "" {
		t.Errorf("needs (-want +got):\n%s", diff)
	}
}

// TestAdoptDisk_ofAnImage_staysBoundToIt gives a disk of an image to a machine that had
// another disk of that name before.
func TestAdoptDisk_ofAnImage_staysBoundToIt(t *testing.T) {
	r := newRig(t)
	old, image := r.storeImage("a", "raw"), r.storeImage("b", "qcow2")
	web, db := r.vm("web", ofImage), r.vm("db", ofImage)
	for vm, from := range map[*manifest.VirtualMachine]driver.ImageState{web: image, db: old} {
		_, err := r.EnsureIdentity(t.Context(), vm)
		r.must(err)
		r.must(r.CreateOverlay(t.Context(), vm, "root", from))
	}
	_, err := r.SetAside(t.Context(), db, "root")
	r.must(err)
	r.must(r.AdoptDisk(t.Context(), driver.StoredRef{Folder: "web", Disk: "root"}, "db", "root"))
	if f := r.observe(db, driver.DepthFull, driver.Absent).Files["root"]; f.Image != image.Digest || f.Backing != image.Path || f.Lost || f.Err != "" {
		t.Errorf("the disk is %+v", f)
	}
}

// TestStoredNeeds_rawDiskWithAnImageInIt_readsNothing has a disk whose guest wrote the
// header of a qcow2 into it: its words must not reach the host, here by a chain without end.
func TestStoredNeeds_rawDiskWithAnImageInIt_readsNothing(t *testing.T) {
	r := newRig(t)
	raw := filepath.Join(shortDir(t), "shared.raw")
	above := filepath.Join(filepath.Dir(raw), "above.qcow2")
	for _, c := range []struct{ path, from, format string }{{raw, filepath.Dir(raw) + "/./shared.raw", "qcow2"}, {above, raw, "raw"}} {
		out, err := exec.Command("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", c.format, "-b", c.from, c.path, "1M").CombinedOutput() //nolint:gosec // G204: a test's own words
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for path, named := range map[string]driver.Need{raw: {Folder: "db", By: "disk a of machine db", Raw: true}, above: {Folder: "db", By: "disk b of machine db"}} {
		needs, err := r.StoredNeeds(t.Context(), nil, map[string]driver.Need{path: named})
		if err != nil || len(needs) > 0 {
			t.Errorf("%s: needs %v, error %v", path, needs, err)
		}
	}
}
