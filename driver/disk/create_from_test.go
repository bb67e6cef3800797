package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/maqet/maqet/manifest"
)

func TestCreateFrom_content_isCopiedOnceAndKept(t *testing.T) {
	images := newImages(t)
	for _, name := range oddNames {
		dir := t.TempDir()
		source, path := filepath.Join(dir, "source of "+name), filepath.Join(dir, "made", name)
		want := bytes.Repeat([]byte("nvram"), 4096)
		if err := os.WriteFile(source, want[:20480-20480%512], 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time finds it
			if err := images.CreateFrom(t.Context(), path, source, manifest.FormatRaw); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := os.WriteFile(source, []byte("other"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, error %v", name, info.Mode(), err)
		}
		raw := filepath.Join(dir, "raw")
		plain := filepath.Join(dir, "plain")
		if err := os.Rename(path, plain); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-f", "qcow2", "-O", "raw", plain, raw).CombinedOutput(); err != nil { //nolint:gosec // G204: a test's own arguments.
			t.Fatalf("%v: %s", err, out)
		}
		if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, want[:20480-20480%512]) {
			t.Errorf("%s: the copy differs, error %v", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "made", tempPrefix+"*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, error %v", name, left, err)
		}
	}
}

func TestCreateFrom_missingSource_makesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nvram")
	if err := newImages(t).CreateFrom(t.Context(), path, filepath.Join(dir, "missing"), manifest.FormatRaw); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("something was made")
	}
}

// TestMake_linkPutInItsPlace_writesNowhereElse has another user, whose folder it is, put a
// link in the place of an image while qemu-img is about to write it.
func TestMake_linkPutInItsPlace_writesNowhereElse(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	const text = "not an image"
	if err := os.WriteFile(victim, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := newDisks(t, newImages(t), "source")["source"]
	images := fakeTool(t, `case $1 in create|convert) for f in `+dir+`/`+tempPrefix+`*; do rm "$f"; ln -s `+victim+` "$f"; done;; esac; real "$@"`)
	for what, err := range map[string]error{
		"create":  images.Create(t.Context(), filepath.Join(dir, "a"), 1<<20),
		"copy":    images.CreateFrom(t.Context(), filepath.Join(dir, "b"), source, manifest.FormatQcow2),
		"overlay": images.CreateOverlay(t.Context(), filepath.Join(dir, "c"), Base{Path: source, Format: "qcow2", Size: 1 << 20}, 1<<20),
	} {
		if got, readErr := os.ReadFile(victim); string(got) != text || readErr != nil {
			t.Fatalf("%s (%v) has overwritten the file that the link leads to", what, err)
		}
	}
}
