package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// TestStart_realQEMU_imageInUse_namesWhoHasIt starts a machine on an image that another
// machine has, and on one that a tool has.
func TestStart_realQEMU_imageInUse_namesWhoHasIt(t *testing.T) {
	r := newRig(t)
	image := filepath.Join(shortDir(t), "a, b [c].qcow2")
	r.must(r.images.Create(t.Context(), image, 1<<20))
	on := func(s *manifest.VirtualMachineSpec) {
		s.Disks = []manifest.Disk{{Name: "root", Size: 1 << 20}, {Name: "shared", File: image, Format: manifest.FormatQcow2}}
	}
	first, second := r.vm("web", on), r.vm("db", on)
	r.start(first, true)
	pid := r.observe(first, driver.DepthBrief, driver.Alive).PID

	err := r.tryStart(second, true)
	var refused *driver.LifecycleError
	if !errors.As(err, &refused) || !errors.Is(err, disk.ErrInUse) || !refused.Refused {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{
		"disk shared (" + image + ")", "the image is in use", "qemu-system-x86_64 (pid " + strconv.Itoa(pid) + ", machine web)", "maqet stop web",
		`Failed to get "write" lock`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if o := r.observe(first, driver.DepthBrief, driver.Alive); o.PID != pid {
		t.Errorf("the first machine is pid %d, was %d", o.PID, pid)
	}
	k := r.childOf("web")
	r.must(r.Quit(t.Context(), "web"))
	r.waitChild(k)

	tool := exec.Command("qemu-io", image) //nolint:gosec // G204: a test's own path.
	in, err := tool.StdinPipe()
	r.must(err)
	r.must(tool.Start())
	defer func() {
		_ = in.Close()
		_ = tool.Wait() // It was told to end, however that went.
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(realTimeout); len(disk.Holders(image)) == 0; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("qemu-io did not open the image")
		}
	}
	err = r.tryStart(second, true)
	if err == nil || !strings.Contains(err.Error(), "qemu-io (pid "+strconv.Itoa(tool.Process.Pid)+")") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(r.layout.RunDir("db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a start that failed left its run dir: %v", err)
	}
}
