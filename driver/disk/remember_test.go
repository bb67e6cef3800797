package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/timing"
)

// countingImages is an Images over a qemu-img that writes a line for each time it
// is run and then is the real one.
func countingImages(t *testing.T) (images *Images, runs func() int) {
	t.Helper()
	newImages(t) // Skips without qemu-img.
	dir := t.TempDir()
	tool, journal := filepath.Join(dir, "qemu-img"), filepath.Join(dir, "journal")
	script := "#!/bin/sh\necho >>'" + journal + "'\nexec qemu-img \"$@\"\n"
	if err := os.WriteFile(tool, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return New(Config{Timing: timing.Default(), QemuImg: tool}), func() int {
		lines, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		return len(lines)
	}
}

// settle waits until a file's times are old enough for answers to be remembered.
func settle(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		state, ok := stateOf(path)
		if ok && state.restedAt(time.Now()) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still changing", path)
		}
	}
}

func ask(t *testing.T, images *Images, path string) Info {
	t.Helper()
	info, err := images.InfoAs(t.Context(), path, "qcow2")
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestInfoAs_unchangedFile_isAskedOnce(t *testing.T) {
	t.Parallel()
	images, runs := countingImages(t)
	path := newDisks(t, newImages(t), "root")["root"]
	settle(t, path)
	first := ask(t, images, path)
	first.Snapshots = append(first.Snapshots, first.Snapshots...)
	second := ask(t, images, path)
	if runs() != 1 {
		t.Errorf("qemu-img ran %d times, want once", runs())
	}
	if diff := cmp.Diff(first.VirtualSize, second.VirtualSize); diff != "" || second.Format != "qcow2" {
		t.Errorf("format %s, size (-first +second):\n%s", second.Format, diff)
	}
	// Under another format it is another question.
	if _, err := images.InfoAs(t.Context(), path, "raw"); err != nil {
		t.Fatal(err)
	}
	if runs() != 2 {
		t.Errorf("qemu-img ran %d times, want again for another format", runs())
	}
}

func TestInfoAs_changedFile_isAskedAgain(t *testing.T) {
	t.Parallel()
	images, runs := countingImages(t)
	plain := newImages(t)
	path := newDisks(t, plain, "root")["root"]
	settle(t, path)
	ask(t, images, path)
	if err := plain.CreateSnapshot(t.Context(), map[string]string{"root": path}, "first"); err != nil {
		t.Fatal(err)
	}
	if info := ask(t, images, path); !info.Has("first") || runs() != 2 {
		t.Errorf("after %d runs the image has %v, want the new snapshot after 2", runs(), info.Snapshots)
	}
}

func TestInfoAs_replacedFile_isAskedAgain(t *testing.T) {
	t.Parallel()
	images, _ := countingImages(t)
	plain := newImages(t)
	path := newDisks(t, plain, "root")["root"]
	settle(t, path)
	old := ask(t, images, path)
	other := filepath.Join(filepath.Dir(path), "other.qcow2")
	if err := plain.Create(t.Context(), other, 16<<20); err != nil {
		t.Fatal(err)
	}
	// Its times are made those of the old file, as a restored backup's are.
	state, _ := stateOf(path)
	when := time.Unix(state.mtime.Unix())
	if err := os.Chtimes(other, when, when); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if info := ask(t, images, path); info.VirtualSize != 16<<20 || old.VirtualSize != 8<<20 {
		t.Errorf("size %d after %d, want that of the new file", info.VirtualSize, old.VirtualSize)
	}
}

func TestInfoAs_fileJustChanged_isNotRemembered(t *testing.T) {
	t.Parallel()
	images, runs := countingImages(t)
	path := newDisks(t, newImages(t), "root")["root"]
	if err := os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	ask(t, images, path)
	ask(t, images, path)
	if runs() != 2 {
		t.Errorf("qemu-img ran %d times, want 2: the file could change without a trace", runs())
	}
}

func TestInfoAs_deviceOrMissing_isAskedEachTime(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/dev/null", filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, ok := stateOf(path); ok {
			t.Errorf("%s has a state by which to remember it", path)
		}
	}
}
