package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/manifest"
	"github.com/maqet/maqet/state"
)

// fakeInventory is a state dir with images, and notes what was done.
type fakeInventory struct {
	stored []driver.StoredDisk
	needs  map[string][]driver.Need
	named  map[string]driver.Need
	uid    string
	did    []string
}

func (f *fakeInventory) StoredDisks(context.Context) ([]driver.StoredDisk, error) {
	return append([]driver.StoredDisk{}, f.stored...), nil
}

func (f *fakeInventory) StoredNeeds(_ context.Context, _ []driver.StoredDisk, named map[string]driver.Need) (map[string][]driver.Need, error) {
	f.named = named
	return f.needs, nil
}

func (f *fakeInventory) StoredUID(driver.StoredRef) (string, error) { return f.uid, nil }

func (f *fakeInventory) DeleteStored(_ context.Context, ref driver.StoredRef) error {
	f.did = append(f.did, "delete "+ref.String())
	return nil
}

func (f *fakeInventory) AdoptFolder(_ context.Context, ref driver.StoredRef, vm string) error {
	f.did = append(f.did, "adopt "+ref.String()+" "+vm)
	return nil
}

func (f *fakeInventory) AdoptDisk(_ context.Context, ref driver.StoredRef, vm, as string) error {
	f.did = append(f.did, "adopt "+ref.String()+" "+vm+"/"+as)
	return nil
}

func stored(names ...string) []driver.StoredDisk {
	var all []driver.StoredDisk
	for _, name := range names {
		at := strings.LastIndex(name, "/")
		all = append(all, driver.StoredDisk{Folder: name[:at], Disk: name[at+1:], Path: "/disks/" + name})
	}
	return all
}

func withISO(s *manifest.VirtualMachineSpec) {
	s.Disks = append(s.Disks, manifest.Disk{Name: "iso", File: "/srv/x.iso", Format: manifest.FormatRaw, Media: manifest.MediaCDROM})
}

func inInventory(t *testing.T, test func(w *world, inv *fakeInventory)) {
	t.Helper()
	inWorld(t, func(w *world) {
		inv := &fakeInventory{}
		w.engine.cfg.Ports.Inventory = inv
		w.apply(ApplyOptions{}, newVM("web", withISO))
		test(w, inv)
	})
}

func TestOrphans_areWhatNoMachineWants(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		inv.stored = stored("web/root", "web/old", "web/iso", "gone/root", "kept/web-1a2b3c4d/root")
		orphans, err := w.engine.Orphans(w.Context())
		var names []string
		for _, d := range orphans {
			names = append(names, d.Name())
		}
		// The image iso is not what the machine's cdrom of that name reads.
		want := []string{"web/old", "web/iso", "gone/root", "kept/web-1a2b3c4d/root"}
		if diff := cmp.Diff(want, names); diff != "" || err != nil {
			w.Errorf("error %v (-want +got):\n%s", err, diff)
		}
	})
}

func TestDeleteOrphan_onlyOrphansThatNobodyUses(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		inv.stored = stored("web/root", "web/old", "web/busy", "kept/web-1a2b3c4d/root", "kept/web-1a2b3c4d/data", "kept/db-1a2b3c4d/busy")
		inv.stored[2].UsedBy, inv.stored[5].UsedBy = []string{"qemu (pid 7)"}, []string{"qemu-img (pid 8)"}
		for _, c := range []struct {
			ref  driver.StoredRef
			want error
			says string
		}{
			{driver.StoredRef{Folder: "web", Disk: "root"}, ErrInUse, "machine web wants it"},
			{driver.StoredRef{Folder: "web", Disk: "busy"}, ErrInUse, "by qemu (pid 7)"},
			{driver.StoredRef{Folder: "kept/db-1a2b3c4d"}, ErrInUse, "by qemu-img (pid 8)"},
			{driver.StoredRef{Folder: "web", Disk: "none"}, ErrNotFound, "maqet disk orphans"},
			{driver.StoredRef{Folder: "kept/x"}, ErrNotFound, "maqet disk orphans"},
			{driver.StoredRef{Folder: "web", Disk: "old"}, nil, ""},
			{driver.StoredRef{Folder: "kept/web-1a2b3c4d"}, nil, ""},
		} {
			err := w.engine.DeleteOrphan(w.Context(), c.ref)
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) || err == nil && c.want != nil {
				w.Errorf("%s: error %v, want %v that says %q", c.ref, err, c.want, c.says)
			}
		}
		if diff := cmp.Diff([]string{"delete web/old", "delete kept/web-1a2b3c4d"}, inv.did); diff != "" {
			w.Errorf("done (-want +got):\n%s", diff)
		}
	})
}

// TestOrphans_whatOthersNeed_isNoneAndIsNotDeleted has disks that no manifest names, and
// that something needs all the same.
func TestOrphans_whatOthersNeed_isNoneAndIsNotDeleted(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		nightly := &manifest.Snapshot{
			APIVersion: manifest.APIVersion, Kind: manifest.KindSnapshot, Metadata: manifest.Metadata{Name: "nightly"},
			Spec: manifest.SnapshotSpec{VirtualMachine: "web", Method: manifest.SnapshotDisk},
		}
		w.apply(ApplyOptions{}, newVM("web", withISO), nightly)
		inv.stored = stored("gone/root", "kept/a-1a2b3c4d/base", "kept/a-1a2b3c4d/top", "kept/b-1a2b3c4d/root", "web/base", "web/saved", "web/shared")
		inv.needs = map[string][]driver.Need{
			"/disks/gone/root":            {{Folder: "web", By: "snapshot forgotten", Snapshot: "forgotten"}},
			"/disks/kept/a-1a2b3c4d/base": {{Folder: "kept/a-1a2b3c4d", By: "disk kept/a-1a2b3c4d/top"}},
			"/disks/kept/a-1a2b3c4d/top":  {{Folder: "kept/a-1a2b3c4d", By: "snapshot a", Snapshot: "a"}},
			"/disks/kept/b-1a2b3c4d/root": {{Folder: "web", By: "disk web/top"}},
			"/disks/web/base":             {{Folder: "web", By: "disk web/top"}},
			"/disks/web/saved":            {{Folder: "web", By: "snapshot nightly", Snapshot: "nightly"}},
			"/disks/web/shared":           {{Folder: "db", By: "disk data of machine db"}},
		}
		orphans, err := w.engine.Orphans(w.Context())
		var names []string
		for _, d := range orphans {
			names = append(names, d.Name())
		}
		// A snapshot that nobody remembers is as orphaned as the disk.
		if diff := cmp.Diff([]string{"gone/root", "kept/a-1a2b3c4d/base", "kept/a-1a2b3c4d/top"}, names); diff != "" || err != nil {
			w.Errorf("error %v (-want +got):\n%s", err, diff)
		}
		if diff := cmp.Diff(map[string]driver.Need{"/srv/x.iso": {Folder: "web", By: "disk iso of machine web", Raw: true}}, inv.named); diff != "" {
			w.Errorf("named (-want +got):\n%s", diff)
		}
		for _, c := range []struct {
			ref  driver.StoredRef
			says string
		}{
			{driver.StoredRef{Folder: "web", Disk: "saved"}, "it is part of snapshot nightly; delete that first with: maqet snapshot delete web nightly"},
			{driver.StoredRef{Folder: "web", Disk: "base"}, "disk web/top reads from it"},
			{driver.StoredRef{Folder: "web", Disk: "shared"}, "disk data of machine db reads from it"},
			{driver.StoredRef{Folder: "kept/b-1a2b3c4d"}, "disk web/top reads from it"},
			{driver.StoredRef{Folder: "kept/a-1a2b3c4d", Disk: "base"}, "disk kept/a-1a2b3c4d/top reads from it"},
		} {
			if err := w.engine.DeleteOrphan(w.Context(), c.ref); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), c.says) {
				w.Errorf("%s: error %v, want one that says %q", c.ref, err, c.says)
			}
		}
		for _, ref := range []driver.StoredRef{{Folder: "gone", Disk: "root"}, {Folder: "kept/a-1a2b3c4d"}} {
			if err := w.engine.DeleteOrphan(w.Context(), ref); err != nil {
				w.Errorf("%s: %v", ref, err)
			}
		}
	})
}

func TestAdopt_folderOfAnotherIdentity_isRefused(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		inv.stored = stored("kept/web-1a2b3c4d/root")
		folder, one := driver.StoredRef{Folder: "kept/web-1a2b3c4d"}, driver.StoredRef{Folder: "kept/web-1a2b3c4d", Disk: "root"}
		inv.uid = "another"
		if err := w.engine.Adopt(w.Context(), folder, "web", ""); err == nil || !strings.Contains(err.Error(), "identity in kept/web-1a2b3c4d is another's") {
			w.Errorf("error %v", err)
		}
		if err := w.engine.Adopt(w.Context(), one, "web", "more"); err != nil {
			w.Error(err)
		}
		inv.uid = w.host.obs("web").Identity.UID
		for _, vm := range []string{"web", "new"} {
			if err := w.engine.Adopt(w.Context(), folder, vm, ""); err != nil {
				w.Error(err)
			}
		}
		want := []string{"adopt kept/web-1a2b3c4d/root web/more", "adopt kept/web-1a2b3c4d web", "adopt kept/web-1a2b3c4d new"}
		if diff := cmp.Diff(want, inv.did); diff != "" {
			w.Errorf("done (-want +got):\n%s", diff)
		}
	})
}

// TestAdopt_otherProcessActsOnTheFolder_isRefused has another process that has the lock
// of whose disk it is: it may be starting that machine, or deleting the disk.
func TestAdopt_otherProcessActsOnTheFolder_isRefused(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		inv.stored = stored("web/old", "kept/web-1a2b3c4d/root")
		for _, c := range []struct {
			ref    driver.StoredRef
			locked string
		}{
			{driver.StoredRef{Folder: "web", Disk: "old"}, "web"},
			{driver.StoredRef{Folder: "kept/web-1a2b3c4d", Disk: "root"}, "web-1a2b3c4d"},
			{driver.StoredRef{Folder: "web", Disk: "old"}, "db"},
		} {
			unlock, err := w.newEngine().lock(w.Context(), c.locked)
			if err != nil {
				w.Fatal(err)
			}
			if err := w.engine.Adopt(w.Context(), c.ref, "db", "old"); !errors.Is(err, context.DeadlineExceeded) {
				w.Errorf("%s while %s is locked: error %v", c.ref, c.locked, err)
			}
			unlock()
		}
		// Within one machine there is one lock only.
		if err := w.engine.Adopt(w.Context(), driver.StoredRef{Folder: "web", Disk: "old"}, "web", "new"); err != nil {
			w.Error(err)
		}
		if diff := cmp.Diff([]string{"adopt web/old web/new"}, inv.did); diff != "" {
			w.Errorf("done (-want +got):\n%s", diff)
		}
	})
}

// TestOrphans_keptFolderWithoutADisk_canBeNamed has a folder with a TPM, say, and no disk.
func TestOrphans_keptFolderWithoutADisk_canBeNamed(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		ref := driver.StoredRef{Folder: "kept/tpm-1a2b3c4d"}
		if err := w.engine.DeleteOrphan(w.Context(), ref); !errors.Is(err, ErrNotFound) {
			w.Errorf("without an identity: error %v", err)
		}
		inv.uid = "1a2b3c4d-0000-4000-8000-000000000000"
		if err := w.engine.Adopt(w.Context(), ref, "tpm", ""); err != nil {
			w.Error(err)
		}
		if err := w.engine.DeleteOrphan(w.Context(), ref); err != nil {
			w.Error(err)
		}
		if err := w.engine.DeleteOrphan(w.Context(), driver.StoredRef{Folder: ref.Folder, Disk: "root"}); !errors.Is(err, ErrNotFound) {
			w.Errorf("one disk of it: error %v", err)
		}
		if diff := cmp.Diff([]string{"adopt kept/tpm-1a2b3c4d tpm", "delete kept/tpm-1a2b3c4d"}, inv.did); diff != "" {
			w.Errorf("done (-want +got):\n%s", diff)
		}
	})
}

// TestDeleteOrphan_recordsLost_isRefused has a damaged database: the machine whose record
// is lost may want the disk.
func TestDeleteOrphan_recordsLost_isRefused(t *testing.T) {
	inInventory(t, func(w *world, inv *fakeInventory) {
		inv.stored = stored("lost/root", "kept/lost-1a2b3c4d/root")
		w.store.warnings = []error{fmt.Errorf("machines/lost: %w", state.ErrDamaged)}
		for _, ref := range []driver.StoredRef{{Folder: "lost", Disk: "root"}, {Folder: "kept/lost-1a2b3c4d"}} {
			if err := w.engine.DeleteOrphan(w.Context(), ref); !errors.Is(err, state.ErrDamaged) {
				w.Errorf("delete %s: error %v", ref, err)
			}
		}
		if err := w.engine.Adopt(w.Context(), driver.StoredRef{Folder: "lost", Disk: "root"}, "db", "old"); !errors.Is(err, state.ErrDamaged) {
			w.Errorf("adopt: error %v", err)
		}
		if len(inv.did) > 0 {
			w.Errorf("done: %q", inv.did)
		}
		// What was kept of a deleted machine is no other's, and may be what is missing.
		if err := w.engine.Adopt(w.Context(), driver.StoredRef{Folder: "kept/lost-1a2b3c4d"}, "lost", ""); err != nil {
			w.Error(err)
		}
	})
}
