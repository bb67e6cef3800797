package disk

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/timing"
)

// The flags that make this test binary a process that creates a disk.
var (
	createDisk = flag.String("create-disk", "", "create a disk at this path and exit")
	createTool = flag.String("create-tool", "", "the qemu-img to create it with")
)

// TestMain lets the test binary stand in for a maqet that can be killed.
func TestMain(m *testing.M) {
	flag.Parse()
	if *createDisk == "" {
		os.Exit(m.Run())
	}
	images := New(Config{Timing: timing.Default(), QemuImg: *createTool})
	if err := images.Create(context.Background(), *createDisk, 8<<20); err != nil {
		os.Exit(1)
	}
}

func TestCreate_killedInTheMiddle_leavesNoHalfDiskAndIsDoneAgain(t *testing.T) {
	// The stand-in has written half an image when it is interrupted.
	reached := filepath.Join(t.TempDir(), "reached")
	slow := fakeTool(t, `printf 'QFI\373' >"$5"; echo $$ >`+reached+`.new; mv `+reached+`.new `+reached+`; exec sleep 600`)
	dir := t.TempDir()
	path := filepath.Join(dir, "root.qcow2")

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	maqet := exec.CommandContext(t.Context(), self, "-create-disk", path, "-create-tool", slow.qemuImg) //nolint:gosec // G204: this test binary
	if err := maqet.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the image is half written", func() bool { _, err := os.Stat(reached); return err == nil })
	if err := maqet.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = maqet.Wait() // it was killed
	pid, err := os.ReadFile(reached)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "qemu-img is dead too", func() bool { return dead(strings.TrimSpace(string(pid))) })

	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Fatalf("a half-made disk is at its place: %v", err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Fatalf("the folder holds %q, want the lock and what was left", got)
	}
	if err := newImages(t).Create(t.Context(), path, 8<<20); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !cmp.Equal(got, []string{createLock, "root.qcow2"}) {
		t.Errorf("the folder holds %q", got)
	}
	if info, err := newImages(t).InfoAs(t.Context(), path, "qcow2"); err != nil || info.VirtualSize != 8<<20 {
		t.Errorf("the disk is %+v, %v", info, err)
	}
}
