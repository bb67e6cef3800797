package qemu

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadFileOf_sizes_areReadWhole(t *testing.T) {
	for _, size := range []int{0, 1, 4<<10 - 1, 4 << 10, 4<<10 + 1, 3 << 20} {
		path := filepath.Join(t.TempDir(), "file")
		want := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		got, owner, err := readFileOf(path)
		if err != nil || !bytes.Equal(got, want) || owner != os.Geteuid() {
			t.Errorf("%d bytes: got %d of %d (%v)", size, len(got), owner, err)
		}
		if got, err := readProc(path, make([]byte, 7, 9)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes into a used buffer: got %d (%v)", size, len(got), err)
		}
	}
}

func TestReadFileOf_tooLarge_isCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, maxRecord+10)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readFileOf(path); err != nil || len(got) != maxRecord {
		t.Errorf("%d bytes (%v), want %d", len(got), err, maxRecord)
	}
}

func TestReadFileOf_whatIsNoFile_isRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, dir} {
		if _, _, err := readFileOf(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want a refusal", filepath.Base(path), err)
		}
	}
	if _, _, err := readFileOf(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want ErrNotExist", err)
	}
}
