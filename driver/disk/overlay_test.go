package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/manifest"
)

// newBase makes an image of 8 MiB with a pattern, read-only as images are stored.
func newBase(t *testing.T, name string, format string) Base {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, "qemu-img", "create", "-q", "-f", format, path, "8M")
	must(t, "qemu-io", "-f", format, "-c", "write -P 0x61 0 4096", path)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	return Base{Path: path, Format: format, Size: 8 << 20}
}

func TestCreateOverlay_oddNames_readTheBaseAndLeaveItAlone(t *testing.T) {
	images := newImages(t)
	for _, name := range oddNames {
		for _, format := range []string{"qcow2", "raw"} {
			t.Run(name+" "+format, func(t *testing.T) {
				base := newBase(t, name, format)
				before := content(t, base.Path)
				path := filepath.Join(t.TempDir(), "a, b:c", name)
				if err := images.CreateOverlay(t.Context(), path, base, 0); err != nil {
					t.Fatal(err)
				}
				want := Header{Format: "qcow2", Size: 8 << 20, Backing: base.Path, BackingFormat: format}
				if got, err := ReadHeader(path); err != nil || got != want {
					t.Errorf("header %+v, %v", got, err)
				}
				if got := want.BackingPath(path); got != base.Path {
					t.Errorf("backs onto %q", got)
				}
				if !holds(t, path, 0x61) {
					t.Error("the overlay does not hold what the base does")
				}
				put(t, path, 0x62)
				if !holds(t, path, 0x62) || content(t, base.Path) != before {
					t.Error("a write went elsewhere")
				}
			})
		}
	}
}

func TestCreateOverlay_sizes_growAndNeverShrink(t *testing.T) {
	images := newImages(t)
	base := newBase(t, "base", "qcow2")
	for name, tt := range map[string]struct {
		size manifest.Quantity
		want int64
		err  error
	}{
		"as the image": {0, 8 << 20, nil},
		"the same":     {8 << 20, 8 << 20, nil},
		"larger":       {20 << 30, 20 << 30, nil},
		"smaller":      {4 << 20, 0, ErrSmaller},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			err := images.CreateOverlay(t.Context(), path, base, tt.size)
			if !errors.Is(err, tt.err) {
				t.Fatal(err)
			}
			if h, err := ReadHeader(path); tt.err == nil && (err != nil || h.Size != tt.want) {
				t.Errorf("header %+v, %v", h, err)
			} else if tt.err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a refused disk is there: %+v, %v", h, err)
			}
		})
	}
}

func TestCreateOverlay_existing_isLeftAlone(t *testing.T) {
	images := newImages(t)
	base := newBase(t, "base", "raw")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	write(t, path, []byte("precious"))
	if err := images.CreateOverlay(t.Context(), path, base, 0); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "precious" {
		t.Errorf("it holds %q now", got)
	}
}

func TestCreateOverlay_many_makeOne(t *testing.T) {
	images := newImages(t)
	base := newBase(t, "base", "raw")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := images.CreateOverlay(t.Context(), path, base, 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff([]string{createLock, "disk.qcow2"}, names(t, filepath.Dir(path))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCreateOverlay_baseGone_failsAndLeavesNothing(t *testing.T) {
	images := newImages(t)
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	err := images.CreateOverlay(t.Context(), path, Base{Path: "/nonexistent/base", Format: "raw", Size: 1 << 20}, 0)
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/base") {
		t.Errorf("got %v", err)
	}
	if got := names(t, filepath.Dir(path)); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
}

func TestBackingPath_waysToNameIt(t *testing.T) {
	for backing, want := range map[string]string{
		"": "", "/a/b": "/a/b", "../images/b": "/disks/images/b", "file:/a/b": "/a/b", `json:{"x":1}`: "",
	} {
		if got := (Header{Backing: backing}).BackingPath("/disks/web/root.qcow2"); got != want {
			t.Errorf("%s: %q, want %q", backing, got, want)
		}
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
