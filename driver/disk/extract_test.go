package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maqet/maqet/manifest"
)

// extracted writes an extract into a new file and returns its path.
func extracted(t *testing.T, images *Images, x Extract, target Target) string {
	t.Helper()
	at, err := SnapshotOf(x.Path, x.Tag)
	if err != nil {
		t.Fatal(err)
	}
	if target.Size == 0 {
		target.Size = at.Size
	}
	path := filepath.Join(t.TempDir(), "out."+string(target.Format))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	last := -1.0
	if err := images.ExtractTo(t.Context(), f, x, target, func(percent float64) { last = percent }); err != nil {
		t.Fatal(err)
	}
	if last != 100 {
		t.Errorf("the last word was %v %%", last)
	}
	if need, err := images.Measure(t.Context(), x, target); err != nil || need <= 0 {
		t.Errorf("it needs %d, %v", need, err)
	}
	return path
}

// reads tells whether a range of an image holds a pattern.
func reads(t *testing.T, format, path, pattern, where string) bool {
	t.Helper()
	return command(t, "qemu-io", "-r", "-f", format, "-c", "read -P "+pattern+" "+where, path).Run() == nil
}

// newOverlay is an overlay on an image full of 'i', with a 'd' of its own, a snapshot
// "then" and another content since.
func newOverlay(t *testing.T, images *Images) (path string, base Base) {
	t.Helper()
	dir := t.TempDir()
	base = Base{Path: filepath.Join(dir, "base, 1.qcow2"), Format: "qcow2", Size: 4 << 20}
	must(t, "qemu-img", "create", "-q", "-f", "qcow2", base.Path, "4M")
	must(t, "qemu-io", "-f", "qcow2", "-c", "write -P 105 0 4M", base.Path)
	path = filepath.Join(dir, "disk.qcow2")
	if err := images.CreateOverlay(t.Context(), path, base, 6<<20); err != nil {
		t.Fatal(err)
	}
	must(t, "qemu-io", "-f", "qcow2", "-c", "write -P 100 1M 64k", path)
	must(t, "qemu-img", "snapshot", "-c", "first", path)
	must(t, "qemu-img", "snapshot", "-c", "then", path)
	must(t, "qemu-io", "-f", "qcow2", "-c", "write -P 110 0 2M", path)
	// One that is called like the number of the one that is meant.
	must(t, "qemu-img", "snapshot", "-c", "2", path)
	return path, base
}

func TestExtractTo_everyTarget_holdsWhatWasThen(t *testing.T) {
	images := newImages(t)
	path, base := newOverlay(t, images)
	must(t, "qemu-img", "resize", "-q", path, "9M") // grown since
	for name, target := range map[string]Target{
		"overlay":    {Format: manifest.FormatQcow2, Overlay: true},
		"complete":   {Format: manifest.FormatQcow2},
		"compressed": {Format: manifest.FormatQcow2, Compress: true},
		"raw":        {Format: manifest.FormatRaw},
	} {
		t.Run(name, func(t *testing.T) {
			out := extracted(t, images, Extract{Path: path, Tag: "then", Base: &base}, target)
			h, err := ReadHeader(out)
			if err != nil || target.Overlay != (h.Backing == base.Path) || !target.Overlay && h.Backing != "" {
				t.Errorf("the header is %+v, %v", h, err)
			}
			info, err := images.InfoAs(t.Context(), out, string(target.Format))
			if err != nil || info.VirtualSize != 6<<20 {
				t.Errorf("it is %+v, %v", info, err)
			}
			for where, pattern := range map[string]string{"0 1M": "105", "1M 64k": "100", "1088k 2944k": "105", "4M 2M": "0"} {
				if !reads(t, string(target.Format), out, pattern, where) {
					t.Errorf("at %s there is not %s", where, pattern)
				}
			}
			st, err := os.Stat(out)
			small := target.Overlay || target.Compress
			if err != nil || small != (st.Size() < 2<<20) {
				t.Errorf("the file has %d bytes, %v", st.Size(), err)
			}
		})
	}
}

// A guest that has broken out of its QEMU can write into the header of its image, and
// must not have other files copied into what others get to see.
func TestExtractTo_headerNamesAnotherFile_isNotFollowed(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root")
	must(t, "qemu-img", "snapshot", "-c", "then", paths["root"])
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "qemu-img", "rebase", "-u", "-b", secret, "-F", "raw", paths["root"])
	out := extracted(t, images, Extract{Path: paths["root"], Tag: "then"}, Target{Format: manifest.FormatRaw})
	if text, err := os.ReadFile(out); err != nil || strings.Contains(string(text), "sss") {
		t.Errorf("the file that the header names was copied, %v", err)
	}
	chain := extracted(t, images, Extract{Path: paths["root"], Tag: "then", Chain: true}, Target{Format: manifest.FormatRaw})
	if text, err := os.ReadFile(chain); err != nil || !strings.Contains(string(text), "sss") {
		t.Errorf("the owner's own chain was not followed, %v", err)
	}
}

func TestSnapshotOf_table_isRead(t *testing.T) {
	images := newImages(t)
	path, _ := newOverlay(t, images)
	must(t, "qemu-img", "resize", "-q", path, "9M")
	then, err := SnapshotOf(path, "then")
	if err != nil || then.ID != "2" || then.Size != 6<<20 {
		t.Errorf("then is %+v, %v", then, err)
	}
	info, err := images.InfoAs(t.Context(), path, "qcow2")
	if err != nil || !info.Snapshots[1].Date.Equal(then.Date) {
		t.Errorf("qemu-img says %+v, %v", info.Snapshots, err)
	}
	must(t, "qemu-img", "snapshot", "-d", "then", path)
	must(t, "qemu-img", "snapshot", "-c", "then", path)
	if again, err := SnapshotOf(path, "then"); err != nil || again == then {
		t.Errorf("another one of the same name is told as %+v, %v", again, err)
	}
	if _, err := SnapshotOf(path, "never"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("one that never was: %v", err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.qcow2")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 60; at < 72; at++ {
		text[at] = 0x7f
	}
	if err := os.WriteFile(damaged, text, 0o600); err != nil { //nolint:gosec // G703: a file of the test
		t.Fatal(err)
	}
	if _, err := SnapshotOf(damaged, "then"); err == nil {
		t.Error("a damaged table was read")
	}
}

func TestCheckRoom_tooLittle_namesBoth(t *testing.T) {
	images := newImages(t)
	images.free = func(string) (uint64, error) { return 100 << 20, nil }
	if err := images.CheckRoom("/x", 30<<20); err != nil {
		t.Error(err)
	}
	if err := images.CheckRoom("/x", 50<<20); err == nil || !strings.Contains(err.Error(), "114 MiB at most") || !strings.Contains(err.Error(), "100 MiB are free") {
		t.Errorf("got %v", err)
	}
}

// TestAgain_tableOfSnapshotsMoved_isReadAnew has qemu-img say what it says of a table
// that is being moved.
func TestAgain_tableOfSnapshotsMoved_isReadAnew(t *testing.T) {
	i := New(Config{})
	for line, again := range map[string]bool{
		"Could not read snapshots: Input/output error":                        true,
		"Too much extra metadata in snapshot table entry 3":                   true,
		"You can force-remove this extra metadata with qemu-img check -r all": true,
		"Failed to find snapshot then":                                        true,
		"Could not open '/x/data.qcow2': No such file or directory":           false,
		"error while writing at byte 0: No space left on device":              false,
	} {
		calls := 0
		err := i.again(t.Context(), func() error {
			if calls++; calls == 1 {
				return &ToolError{Line: line}
			}
			return nil
		})
		if (err == nil) != again {
			t.Errorf("%q: %d calls, error %v", line, calls, err)
		}
	}
}
