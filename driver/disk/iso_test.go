package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/google/go-cmp/cmp"
)

func TestWriteISO_files_areThereByTheirNames(t *testing.T) {
	dir := t.TempDir()
	path, scratch := filepath.Join(dir, "seed.iso"), filepath.Join(dir, "scratch")
	// What a killed run has left is in nobody's way.
	if err := os.MkdirAll(filepath.Join(scratch, "tree", "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("an older image"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"user-data": bytes.Repeat([]byte("#cloud-config\n"), 1000), "meta-data": []byte("{}\n"), "network-config": []byte("version: 2\n"), "empty": {},
	}
	if err := WriteISO(path, scratch, "cidata", want); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the image's mode is %v, error %v", info.Mode(), err)
	}
	if info.Size()%2048 != 0 {
		t.Errorf("the image has %d bytes, which are no whole sectors", info.Size())
	}
	if _, err := os.Stat(scratch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scratch folder is still there: %v", err)
	}

	image, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	fsys, err := iso9660.Read(file.New(image, true), info.Size(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if label := strings.TrimRight(fsys.Label(), " \x00"); label != "cidata" {
		t.Errorf("the label is %q", label)
	}
	entries, err := fsys.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	for _, e := range entries {
		text, err := fsys.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = text
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWriteISO_failure_leavesTheOldImage(t *testing.T) {
	dir := t.TempDir()
	path, scratch := filepath.Join(dir, "seed.iso"), filepath.Join(dir, "scratch")
	if err := os.WriteFile(path, []byte("an older image"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := WriteISO(path, scratch, "cidata", map[string][]byte{"../escape": nil})
	var known *Error
	if !errors.As(err, &known) || known.Path != path {
		t.Errorf("error is %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "an older image" {
		t.Errorf("the old image holds %q, error %v", text, err)
	}
	if _, err := os.Stat(scratch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scratch folder is still there: %v", err)
	}
}
