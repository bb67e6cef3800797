package disk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maqet/maqet/internal/timing"
)

// oddNames are file names that some tool reads as something else than a name.
var oddNames = []string{
	"plain.qcow2",
	"-f raw.qcow2",
	"json:{\"driver\":\"raw\"}.qcow2",
	"nbd:localhost:10809.qcow2",
	"file:x.qcow2",
	"driver=raw,file.filename=y,,z.qcow2",
	"two words, three=words.qcow2",
	"größe-磁盘-🙂.qcow2",
	"new\nline\tand 'quotes\" $(id).qcow2",
	"100%s.qcow2",
}

// newImages is an Images over the real qemu-img.
func newImages(t *testing.T) *Images {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed (Debian package qemu-utils)")
	}
	return New(Config{Timing: timing.Default()})
}

// newDisks makes empty images of 8 MiB in a folder of their own.
func newDisks(t *testing.T, images *Images, names ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	paths := map[string]string{}
	for _, name := range names {
		paths[name] = filepath.Join(dir, name+".qcow2")
		if err := images.Create(t.Context(), paths[name], 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// tags are the snapshots of an image, in qemu-img's order.
func tags(t *testing.T, images *Images, path string) []string {
	t.Helper()
	info, err := images.Info(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range info.Snapshots {
		all = append(all, s.Tag)
	}
	return all
}

// put fills the first sectors as a guest might, and holds tells whether they are
// filled like that.
func put(t *testing.T, path string, pattern byte) {
	t.Helper()
	must(t, "qemu-io", "-f", "qcow2", "-c", "write -P "+strconv.Itoa(int(pattern))+" 0 4096", path)
}

func holds(t *testing.T, path string, pattern byte) bool {
	t.Helper()
	out, err := command(t, "qemu-io", "-f", "qcow2", "-c", "read -P "+strconv.Itoa(int(pattern))+" 0 4096", path).CombinedOutput()
	return err == nil && !strings.Contains(string(out), "verification failed")
}

// command is one of QEMU's tools, run as it is.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), name, args...) //nolint:gosec // G204: tools of QEMU with arguments of this test
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := command(t, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// fakeTool is a qemu-img made of a shell script. In the script, real runs the
// real one.
func fakeTool(t *testing.T, script string) *Images {
	t.Helper()
	actual, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (Debian package qemu-utils)")
	}
	path := filepath.Join(t.TempDir(), "qemu-img")
	text := "#!/bin/sh\nreal() { " + actual + " \"$@\"; }\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return New(Config{Timing: timing.Default(), QemuImg: path})
}

// eventually waits until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
