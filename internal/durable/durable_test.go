package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/maqet/maqet/internal/durable"
)

// writers are the two ways to replace a file.
var writers = map[string]func(string, []byte, fs.FileMode) error{
	"WriteFile":     durable.WriteFile,
	"WriteVolatile": durable.WriteVolatile,
}

func TestWrite_perm_isKeptWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	for name, write := range writers {
		for perm, want := range map[fs.FileMode]fs.FileMode{0: 0o600, 0o600: 0o600, 0o644: 0o644, 0o400: 0o400} {
			path := filepath.Join(t.TempDir(), "file")
			if err := write(path, []byte("x"), perm); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != want {
				t.Errorf("%s with perm %v: mode %v, want %v", name, perm, info.Mode(), want)
			}
		}
	}
}

func TestWrite_existing_isReplacedWhole(t *testing.T) {
	for name, write := range writers {
		path := filepath.Join(t.TempDir(), "file")
		for _, text := range []string{"a long first content", "short", ""} {
			if err := write(path, []byte(text), 0); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantContent(t, path, text)
		}
		wantOnly(t, path)
	}
}

func TestWrite_symlink_isReplacedItself(t *testing.T) {
	for name, write := range writers {
		dir := t.TempDir()
		target, path := filepath.Join(dir, "target"), filepath.Join(dir, "link")
		if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := write(path, []byte("new"), 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantContent(t, path, "new")
		wantContent(t, target, "precious")
	}
}

func TestWrite_noFolder_errorNamesFile(t *testing.T) {
	for name, write := range writers {
		path := filepath.Join(t.TempDir(), "missing", "file")
		if err := write(path, nil, 0); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s = %v, want ErrNotExist and the path", name, err)
		}
	}
}

func TestWrite_folderInTheWay_leavesNothingBehind(t *testing.T) {
	for name, write := range writers {
		path := filepath.Join(t.TempDir(), "folder")
		if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := write(path, []byte("x"), 0); err == nil {
			t.Errorf("%s over a folder succeeded", name)
		}
		wantOnly(t, path)
	}
}

func TestWrite_longName_fits(t *testing.T) {
	for name, write := range writers {
		path := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
		if err := write(path, []byte("x"), 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrite_readersMeanwhile_seeWholeContents(t *testing.T) {
	for name, write := range writers {
		path := filepath.Join(t.TempDir(), "file")
		content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, 10_000+i) }
		if err := write(path, content(0), 0); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			defer close(done)
			for i := range 100 {
				if err := write(path, content(i), 0); err != nil {
					t.Error(err)
				}
			}
		})
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) < 10_000 || !bytes.Equal(got, content(len(got)-10_000)) {
				t.Fatalf("%s: a reader saw a mixture of %d bytes", name, len(got))
			}
		}
		all.Wait()
	}
}

func TestWrite_diskFull_oldFileStays(t *testing.T) {
	dir := smallDisk(t, 256<<10)
	for name, write := range writers {
		path := filepath.Join(dir, name)
		if err := write(path, []byte("old"), 0); err != nil {
			t.Fatal(err)
		}
		err := write(path, make([]byte, 1<<20), 0)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s on a full disk = %v, want ENOSPC and the path", name, err)
		}
		wantContent(t, path, "old")
		if left, err := filepath.Glob(filepath.Join(dir, ".*.tmp")); err != nil || len(left) > 0 {
			t.Errorf("%s left %v behind (%v)", name, left, err)
		}
	}
}

func TestCreate_many_oneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id")
	const creators = 16
	var mu sync.Mutex
	var winners []string
	var all sync.WaitGroup
	for i := range creators {
		all.Go(func() {
			text := fmt.Sprintf("creator %d", i)
			err := durable.Create(path, []byte(text), 0)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winners = append(winners, text)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(winners) != 1 {
		t.Fatalf("%d creators won: %v", len(winners), winners)
	}
	wantContent(t, path, winners[0])
	wantOnly(t, path)
}

func TestSyncDir_noFolder_fails(t *testing.T) {
	if err := durable.SyncDir(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir = %v, want ErrNotExist", err)
	}
}

// smallDisk is a folder on a file system of that size.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount the small file system that this needs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %.40q, want %q", path, got, want)
	}
}

// wantOnly fails when anything else lies in the folder of path.
func wantOnly(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}
