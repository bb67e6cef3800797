package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRemoveFile_onlyAFileThatNobodyHas(t *testing.T) {
	images := newImages(t)
	path := newDisks(t, images, "root")["root"]
	release := holdOpen(t, path)
	if err := images.RemoveFile(t.Context(), path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "qemu-io (pid ") {
		t.Errorf("in use: %v", err)
	}
	release()
	link := filepath.Join(filepath.Dir(path), "link.qcow2")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := images.RemoveFile(t.Context(), link); err == nil || !strings.Contains(err.Error(), "it is no file") {
		t.Errorf("a link: %v", err)
	}
	for range 2 { // the second finds nothing, which is no error
		if err := images.RemoveFile(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}

func TestMoveFile_overwritesNothing(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root", "data")
	put(t, paths["root"], 7)
	if err := images.MoveFile(t.Context(), paths["root"], paths["data"]); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("onto another: %v", err)
	}
	if !holds(t, paths["root"], 7) || holds(t, paths["data"], 7) {
		t.Error("a disk has another's data")
	}
	to := filepath.Join(filepath.Dir(filepath.Dir(paths["root"])), "other", "a, b.qcow2")
	if err := images.MoveFile(t.Context(), paths["root"], to); err != nil {
		t.Fatal(err)
	}
	if !holds(t, to, 7) {
		t.Error("its data did not come with it")
	}
	if err := images.MoveFile(t.Context(), paths["root"], to+"2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is gone: %v", err)
	}
	release := holdOpen(t, paths["data"])
	defer release()
	if err := images.MoveFile(t.Context(), paths["data"], to+"3"); !errors.Is(err, ErrInUse) {
		t.Errorf("in use: %v", err)
	}
}
