package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

func TestCreate_oddNames_makeAnEmptyQcow2OfTheSize(t *testing.T) {
	images := newImages(t)
	for _, name := range oddNames {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a, b:c", name)
			if err := images.Create(t.Context(), path, 20<<30); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if st.Mode().Perm() != 0o600 {
				t.Errorf("mode is %v, want 0600", st.Mode().Perm())
			}
			info, err := images.InfoAs(t.Context(), path, "qcow2")
			if err != nil {
				t.Fatal(err)
			}
			if info.VirtualSize != 20<<30 || info.Format != "qcow2" || info.Path != path || info.Backing != "" {
				t.Errorf("info is %+v", info)
			}
			if got := names(t, filepath.Dir(path)); len(got) != 2 || !slices.Contains(got, name) {
				t.Errorf("the folder holds %q", got)
			}
		})
	}
}

func TestCreate_relativePathThatLooksLikeAnOption_isAFile(t *testing.T) {
	images := newImages(t)
	t.Chdir(t.TempDir())
	for _, name := range []string{"-o", "json:{}", "nbd:x"} {
		if err := images.Create(t.Context(), name, 1<<20); err != nil {
			t.Fatal(err)
		}
		if info, err := images.Info(t.Context(), name); err != nil || info.VirtualSize != 1<<20 {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func TestCreate_fileThere_isLeftUntouched(t *testing.T) {
	images := newImages(t)
	path := filepath.Join(t.TempDir(), "root.qcow2")
	if err := os.WriteFile(path, []byte("precious"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := images.Create(t.Context(), path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	link := filepath.Join(filepath.Dir(path), "link.qcow2")
	if err := os.Symlink("/nowhere/at/all", link); err != nil {
		t.Fatal(err)
	}
	if err := images.Create(t.Context(), link, 1<<20); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != "/nowhere/at/all" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}

func TestCreate_fileAppearsMeanwhile_isNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.qcow2")
	images := fakeTool(t, `real "$@" && case $1 in create) echo precious >`+path+`;; esac`)
	if err := images.Create(t.Context(), path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "precious\n" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if got := names(t, filepath.Dir(path)); !cmp.Equal(got, []string{createLock, "root.qcow2"}) {
		t.Errorf("the folder holds %q", got)
	}
}

func TestCreate_badRequests_areRefusedWithRemedy(t *testing.T) {
	images := newImages(t)
	dir := t.TempDir()
	for name, test := range map[string]struct {
		path string
		size manifest.Quantity
	}{
		"no size":         {filepath.Join(dir, "a"), 0},
		"no whole sector": {filepath.Join(dir, "a"), 1<<20 + 1},
		"negative":        {filepath.Join(dir, "a"), -512},
		"no path":         {"", 1 << 20},
		"NUL":             {dir + "/a\x00b", 1 << 20},
		"a folder":        {dir, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			err := images.Create(t.Context(), test.path, test.size)
			var known *Error
			if !errors.As(err, &known) || known.Op != "create" {
				t.Fatalf("got %v, want an Error of create", err)
			}
		})
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("the folder holds %q", got)
	}
}

func TestCreate_noRoom_saysHowMuchIsMissing(t *testing.T) {
	images := newImages(t)
	images.free = func(string) (uint64, error) { return 1 << 20, nil }
	path := filepath.Join(t.TempDir(), "root.qcow2")
	err := images.Create(t.Context(), path, 1<<30)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want ENOSPC", err)
	}
	for _, want := range []string{path, "65728 KiB", "1024 KiB are free", "make room"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk is there: %v", err)
	}
}

func TestCreate_toolRunsOutOfSpace_isENOSPCAndLeavesNothing(t *testing.T) {
	images := fakeTool(t, `echo "qemu-img: $5: Could not write qcow2 header: No space left on device" >&2; exit 1`)
	path := filepath.Join(t.TempDir(), "root.qcow2")
	err := images.Create(t.Context(), path, 1<<30)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v, want ENOSPC with a remedy", err)
	}
	if got := names(t, filepath.Dir(path)); !cmp.Equal(got, []string{createLock}) {
		t.Errorf("the folder holds %q", got)
	}
}

func TestCreate_toolLies_isNoSuccess(t *testing.T) {
	for name, script := range map[string]string{
		"nothing written": `exit 0`,
		"other size":      `real create -q -f qcow2 "$5" 1M`,
		"other format":    `real create -q -f raw "$5" 8M`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "root.qcow2")
			if err := fakeTool(t, script).Create(t.Context(), path, 8<<20); err == nil {
				t.Error("a disk that is none was taken for one")
			}
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the disk is there: %v", err)
			}
		})
	}
}

func TestCreate_noTool_namesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	images := New(Config{Timing: timing.Default()})
	err := images.Create(t.Context(), filepath.Join(t.TempDir(), "a.qcow2"), 1<<20)
	if !errors.Is(err, ErrNoTool) || !strings.Contains(err.Error(), "qemu-utils") {
		t.Errorf("got %v, want ErrNoTool with the package's name", err)
	}
}

func TestCreate_manyAtOnce_makeEachDiskOnce(t *testing.T) {
	images := newImages(t)
	dir := t.TempDir()
	var all sync.WaitGroup
	for n := range 12 {
		all.Go(func() {
			// Each disk is asked for by three callers, two of which share nothing.
			one := images
			if n%3 == 0 {
				one = New(Config{Timing: timing.Default()})
			}
			if err := one.Create(t.Context(), filepath.Join(dir, strconv.Itoa(n%4)+".qcow2"), 1<<20); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, want := names(t, dir), []string{createLock, "0.qcow2", "1.qcow2", "2.qcow2", "3.qcow2"}; !cmp.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func TestCreate_toolHangs_isKilledWithItsChildren(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	images := fakeTool(t, `sleep 600 & echo $$ $! >`+pids+`.new; mv `+pids+`.new `+pids+`; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	path := filepath.Join(t.TempDir(), "root.qcow2")
	go func() { done <- images.Create(ctx, path, 1<<20) }()
	eventually(t, "qemu-img runs", func() bool { _, err := os.Stat(pids); return err == nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(string(text)) {
		eventually(t, "process "+pid+" is dead", func() bool { return dead(pid) })
	}
	if got := names(t, filepath.Dir(path)); !cmp.Equal(got, []string{createLock}) {
		t.Errorf("the folder holds %q", got)
	}
}

func TestCreate_toolTakesTooLong_namesTheTimeout(t *testing.T) {
	images := fakeTool(t, `exec sleep 600`)
	images.timing.Image = 50 * time.Millisecond
	err := images.Create(t.Context(), filepath.Join(t.TempDir(), "a.qcow2"), 1<<20)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "--timeouts image=") {
		t.Errorf("got %v, want a deadline with its name", err)
	}
}

// dead tells whether a process is gone or a zombie that nobody has reaped.
func dead(pid string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat")) //nolint:gosec // G703: the pid is this test's own
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

// names are the entries of a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
