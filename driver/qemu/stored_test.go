package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/maqet/maqet/driver"
)

// TestDeleteStored_lastDiskBesideATPM_leavesTheRest deletes single disks of kept folders:
// what else was kept of the machine is not meant, unless it says nothing alone.
func TestDeleteStored_lastDiskBesideATPM_leavesTheRest(t *testing.T) {
	r := newRig(t)
	for folder, rest := range map[string]string{
		"a-1a2b3c4d": "tpm/tpm2-00.permall", "b-1a2b3c4d": "uefi.nvram", "c-1a2b3c4d": "root.qcow2.bak", "d-1a2b3c4d": "",
	} {
		dir := filepath.Join(r.keptRoot(), folder)
		for _, file := range []string{"root.qcow2", "identity.json", "seed.json", "seed.iso", "snapshots/old.json", rest} {
			if file == "" {
				continue
			}
			path := filepath.Join(dir, file)
			r.must(os.MkdirAll(filepath.Dir(path), 0o700))
			r.must(os.WriteFile(path, []byte("{}"), 0o600))
		}
		r.must(r.DeleteStored(t.Context(), driver.StoredRef{Folder: driver.KeptPrefix + folder, Disk: "root"}))
		if _, err := os.Stat(filepath.Join(dir, "root.qcow2")); err == nil {
			t.Errorf("%s: the disk is there", folder)
		}
		at := filepath.Join(dir, rest)
		if _, err := os.Stat(at); (err == nil) != (rest != "") {
			t.Errorf("%s: looking at %s: %v", folder, at, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "identity.json")); (err == nil) != (rest != "") {
			t.Errorf("%s: looking at the identity: %v", folder, err)
		}
	}
}
