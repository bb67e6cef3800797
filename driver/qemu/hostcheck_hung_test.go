package qemu

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/manifest"
)

// hungBelow are files of which those below a folder are on a server that does not answer
// until the test is over.
func hungBelow(t *testing.T, folder string) *slowfs.Files {
	t.Helper()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	return slowfs.NewWith(50*time.Millisecond, func(path string) (fs.FileInfo, error) {
		if strings.HasPrefix(path, folder+"/") {
			<-release
		}
		return os.Stat(path)
	})
}

// TestCheck_fileSystemHangs_isFoundAndTheRestIsChecked names files on such a server, and one
// that is missing elsewhere.
func TestCheck_fileSystemHangs_isFoundAndTheRestIsChecked(t *testing.T) {
	r := newRig(t)
	missing := t.TempDir() + "/missing"
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.Boot = &manifest.Boot{Kernel: &manifest.Kernel{Image: "/nfs/vmlinuz", Initrd: "/nfs/initrd"}}
		s.Disks = []manifest.Disk{
			{Name: "a", File: "/nfs/a.raw", Format: manifest.FormatRaw},
			{Name: "b", NBD: &manifest.NBD{Unix: "/nfs/b.sock"}},
			{Name: "c", File: missing, Format: manifest.FormatRaw},
		}
		s.Filesystems = []manifest.Filesystem{{Name: "src", Path: "/nfs/src", Driver: manifest.Filesystem9P}}
	})
	r.prober.files = hungBelow(t, "/nfs")
	_, findings, err := r.prober.Check(t.Context(), vm)
	r.must(err)
	var got []string
	for _, f := range findings {
		got = append(got, f.Path+": "+f.Msg)
		if !strings.Contains(f.Msg, "missing") && !strings.Contains(f.Hint, "--timeouts file=") {
			t.Errorf("the hint of %s is %q", f.Path, f.Hint)
		}
	}
	const words = ": its file system does not answer (within 50ms)"
	want := []string{
		"spec.boot.kernel.image: /nfs/vmlinuz" + words,
		"spec.boot.kernel.initrd: /nfs/initrd" + words,
		"spec.filesystems[0].path: /nfs/src" + words,
		"spec.disks[0].file: /nfs/a.raw" + words,
		"spec.disks[1].nbd: /nfs/b.sock" + words,
		"spec.disks[2].file: " + missing + " does not exist",
	}
	if !slices.Equal(got, want) {
		t.Errorf("findings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// A start is refused in time as well.
	_, err = r.Start(t.Context(), driver.StartRequest{VM: vm})
	if err == nil || !strings.Contains(err.Error(), "/nfs/src"+words) {
		t.Errorf("error is %v", err)
	}
}

// TestSeed_userDataFileHangs_isToldByTheLook looks at a machine whose user-data nobody can read.
func TestSeed_userDataFileHangs_isToldByTheLook(t *testing.T) {
	r := newRig(t)
	vm := r.vm("web", func(s *manifest.VirtualMachineSpec) {
		s.CloudInit = &manifest.CloudInit{UserDataFile: "/nfs/user-data"}
	})
	_, err := r.EnsureIdentity(t.Context(), vm)
	r.must(err)
	r.prober.files = hungBelow(t, "/nfs")
	// Somebody has asked for it before, and still waits.
	if _, err := r.prober.files.StatInTime("/nfs/user-data"); err == nil {
		t.Error("it answers")
	}
	if o := r.observe(vm, driver.DepthFull, driver.Absent); o.Seed == nil || !strings.Contains(o.Seed.Err, "does not answer") {
		t.Errorf("the seed is %+v", o.Seed)
	}
}
