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
