package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/e2e/internal/guest"
	"github.com/maqet/maqet/e2e/internal/host"
)

// smallFilesystem mounts a filesystem of that size, or skips the test where that is
// not allowed. Resize changes it.
func smallFilesystem(t *testing.T, size string) (dir string, resize func(size string)) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no filesystem can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		// A QEMU that is being killed may hold it for a moment.
		if !host.Eventually(host.Settle, func() bool { return unix.Unmount(dir, 0) == nil }) {
			t.Errorf("%s could not be unmounted", dir)
		}
	})
	return dir, func(size string) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDisks_hostRunsFull_guestStopsAndRunsOnWhenThereIsRoom fills the filesystem under
// a guest that writes, on each bus where QEMU stops the guest.
func TestDisks_hostRunsFull_guestStopsAndRunsOnWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	for bus, device := range map[string]string{"virtio": "/dev/vda", "virtio-scsi": "/dev/sda"} {
		t.Run(bus, func(t *testing.T) {
			t.Parallel()
			small, resize := smallFilesystem(t, "12m")
			h, dir := host.New(t, binary), t.TempDir()
			image := filepath.Join(small, "full.qcow2")
			if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", image, "64M").CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v: %s", err, out)
			}
			manifest := writeVM(t, dir, guest.Path(t), "  disks: [{name: full, file: "+image+", format: qcow2, bus: "+bus+"}]\n")
			h.Must(t, 0, "apply", "--wait", "-f", manifest)
			has := func(condition string) bool {
				return strings.Contains(h.Must(t, 0, "get", "box", "-o", "jsonpath={.status.conditions[*].type}"), condition)
			}
			if has("DiskSpaceLow") || has("IOError") {
				t.Error("a warning without cause")
			}
			s := h.Shell(t, "box")
			if !host.Eventually(host.Settle, func() bool { _, status := s.Try("test -b " + device); return status == "0" }) {
				t.Fatalf("the guest has no %s", device)
			}
			// A MiB with something in it, and a command that writes it so many times.
			s.Run("yes maqet | head -c 65536 >/tmp/a; for i in $(seq 16); do cat /tmp/a; done >/tmp/m")
			pattern := func(mib string) string { return "for i in $(seq " + mib + "); do cat /tmp/m; done" }
			write := func(mib string) string { return pattern(mib) + " | dd of=" + device + " bs=1M conv=fsync 2>/dev/null" }
			s.Run(write("11"))
			h.Must(t, 0, "wait", "box", "--for=condition=DiskSpaceLow", "--timeout", "2m")
			if text := h.Must(t, 0, "describe", "box"); !strings.Contains(text, "disk full may still grow by") {
				t.Errorf("describe does not say what may happen:\n%s", text)
			}

			// More than there is room for.
			_, end := s.Type(write("20"))
			h.Must(t, 0, "wait", "box", "--for=condition=IOError", "--timeout", "2m")
			text := h.Must(t, 0, "describe", "box")
			if !strings.Contains(text, "there was no space for disk full ("+image+")") || !strings.Contains(text, "of 12 MiB are free there") {
				t.Errorf("describe does not say what happened:\n%s", text)
			}
			// Nobody continues it but a person, and only when there is room.
			_, stderr, code := h.Maqet(t, "apply", "-f", manifest)
			if code != 1 || !strings.Contains(stderr, "maqet resume box") {
				t.Errorf("apply: code %d, %s", code, stderr)
			}
			if _, stderr, code = h.Maqet(t, "resume", "box"); code != 1 || !strings.Contains(stderr, "of 12 MiB are free there") {
				t.Errorf("resume without room: code %d, %s", code, stderr)
			}
			if !strings.Contains(h.Must(t, 0, "events", "box"), "DiskSpaceLow") {
				t.Error("the journal has no warning")
			}
			resize("400m")
			if !has("IOError") {
				t.Errorf("it went on by itself:\n%s", h.Must(t, 0, "get", "box", "-o", "yaml"))
			}
			h.Must(t, 0, "resume", "box")
			s.Await(end)
			if got := s.Run("echo 3 >/proc/sys/vm/drop_caches; a=$(dd if=" + device + " bs=1M count=20 2>/dev/null | md5sum); b=$(" + pattern("20") + " | md5sum); [ \"$a\" = \"$b\" ] && echo same"); got != "same" {
				t.Errorf("the guest's data is not what it wrote: %s", got)
			}
			if has("IOError") || has("DiskSpaceLow") {
				t.Error("a warning is left")
			}
			h.Must(t, 0, "plan", "-f", manifest)
			s.Close()
			h.KillAll()
			if _, err := os.Stat(image); err != nil {
				t.Error(err)
			}
		})
	}
}
