package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGrow_image_getsTheSizeAndKeepsItsDataAndSnapshots(t *testing.T) {
	images := newImages(t)
	for _, name := range oddNames {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			if err := images.Create(t.Context(), path, 8<<20); err != nil {
				t.Fatal(err)
			}
			if err := images.CreateSnapshot(t.Context(), map[string]string{"a": path}, "before"); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second has nothing to do
				if err := images.Grow(t.Context(), path, 20<<20); err != nil {
					t.Fatal(err)
				}
			}
			info, err := images.InfoAs(t.Context(), path, "qcow2")
			if err != nil || info.VirtualSize != 20<<20 || !info.Has("before") {
				t.Errorf("info %+v, error %v", info, err)
			}
		})
	}
	paths := newDisks(t, images, "root")
	put(t, paths["root"], 7)
	if err := images.Grow(t.Context(), paths["root"], 9<<20); err != nil {
		t.Fatal(err)
	}
	if !holds(t, paths["root"], 7) {
		t.Error("the data is not there any more")
	}
}

func TestGrow_smallerThanItIs_isRefusedAndChangesNothing(t *testing.T) {
	images := newImages(t)
	path := newDisks(t, images, "root")["root"]
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	err = images.Grow(t.Context(), path, 4<<20)
	if !errors.Is(err, ErrShrink) || !strings.Contains(err.Error(), "8Mi") || !strings.Contains(err.Error(), "4Mi") {
		t.Errorf("error %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(before) != string(after) {
		t.Errorf("the image changed: %v", err)
	}
}

func TestGrow_imageInUse_isRefusedAndNamesTheHolder(t *testing.T) {
	images := newImages(t)
	path := newDisks(t, images, "root")["root"]
	release := holdOpen(t, path)
	defer release()
	if err := images.Grow(t.Context(), path, 16<<20); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "qemu-io") {
		t.Errorf("error %v", err)
	}
}

func TestGrow_toolLies_isNoSuccess(t *testing.T) {
	images := fakeTool(t, `[ "$1" = resize ] || real "$@"`)
	path := newDisks(t, images, "root")["root"]
	if err := images.Grow(t.Context(), path, 16<<20); err == nil || !strings.Contains(err.Error(), "it is 8Mi and not 16Mi") {
		t.Errorf("error %v", err)
	}
}
