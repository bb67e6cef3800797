package disk

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshot_createRevertDelete_roundTrip(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root", "data")
	for _, path := range paths {
		put(t, path, 'a')
	}
	if err := images.CreateSnapshot(t.Context(), paths, "before"); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		put(t, path, 'b')
	}
	if _, err := images.RevertSnapshot(t.Context(), paths, "before"); err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		if !holds(t, path, 'a') {
			t.Errorf("%s does not hold what it held at the snapshot", name)
		}
		if got := tags(t, images, path); !cmp.Equal(got, []string{"before"}) {
			t.Errorf("%s has the snapshots %q", name, got)
		}
	}
	if err := images.DeleteSnapshot(t.Context(), paths, "before"); err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		if got := tags(t, images, path); len(got) != 0 {
			t.Errorf("%s still has the snapshots %q", name, got)
		}
	}
	if err := images.DeleteSnapshot(t.Context(), paths, "before"); err != nil {
		t.Errorf("deleting again: %v", err)
	}
}

func TestSnapshot_oddNames_reachTheImage(t *testing.T) {
	images := newImages(t)
	for n, name := range oddNames {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "odd,dir=1:", name)
			if err := images.Create(t.Context(), path, 1<<20); err != nil {
				t.Fatal(err)
			}
			tag := []string{"-l", "a,b=c", "snapshot.id=1", "two words", "größe"}[n%5]
			paths := map[string]string{"root": path}
			if err := images.CreateSnapshot(t.Context(), paths, tag); err != nil {
				t.Fatal(err)
			}
			if got := tags(t, images, path); !cmp.Equal(got, []string{tag}) {
				t.Fatalf("the snapshots are %q, want %q", got, tag)
			}
			if _, err := images.RevertSnapshot(t.Context(), paths, tag); err != nil {
				t.Error(err)
			}
			if err := images.DeleteSnapshot(t.Context(), paths, tag); err != nil {
				t.Error(err)
			}
			if got := tags(t, images, path); len(got) != 0 {
				t.Errorf("the snapshots are %q, want none", got)
			}
		})
	}
}

func TestCreateSnapshot_badTag_isRefused(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root")
	for _, tag := range []string{"", "1", "0042", "a\nb", strings.Repeat("x", 256)} {
		var known *Error
		if err := images.CreateSnapshot(t.Context(), paths, tag); !errors.As(err, &known) {
			t.Errorf("%q: got %v, want an Error", tag, err)
		}
	}
	if got := tags(t, images, paths["root"]); len(got) != 0 {
		t.Errorf("the snapshots are %q, want none", got)
	}
}

func TestCreateSnapshot_oneDiskFails_rollsBackTheOthers(t *testing.T) {
	paths := newDisks(t, newImages(t), "a", "b", "c")
	images := fakeTool(t, `case "$1 $*" in "snapshot "*-c*"/b.qcow2") real "$@"; echo "qemu-img: b is broken" >&2; exit 1;; esac; real "$@"`)
	err := images.CreateSnapshot(t.Context(), paths, "half")
	if err == nil || !strings.Contains(err.Error(), "disk b") || !strings.Contains(err.Error(), "b is broken") {
		t.Errorf("got %v, want the failure of disk b", err)
	}
	for name, path := range paths {
		if got := tags(t, newImages(t), path); len(got) != 0 {
			t.Errorf("%s has the snapshots %q, want none", name, got)
		}
	}
}

func TestCreateSnapshot_contextEnds_rollsBack(t *testing.T) {
	paths := newDisks(t, newImages(t), "a", "b")
	reached := filepath.Join(t.TempDir(), "reached")
	images := fakeTool(t, `case "$1 $*" in "snapshot "*-c*"/b.qcow2") real "$@"; : >`+reached+`; exec sleep 600;; esac; real "$@"`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- images.CreateSnapshot(ctx, paths, "half") }()
	eventually(t, "the second snapshot is made", func() bool { _, err := os.Stat(reached); return err == nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	for name, path := range paths {
		if got := tags(t, newImages(t), path); len(got) != 0 {
			t.Errorf("%s has the snapshots %q, want none", name, got)
		}
	}
}

func TestCreateSnapshot_tagThereOnOneDisk_changesNothing(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root", "data")
	if err := images.CreateSnapshot(t.Context(), map[string]string{"root": paths["root"]}, "old"); err != nil {
		t.Fatal(err)
	}
	err := images.CreateSnapshot(t.Context(), paths, "old")
	if !errors.Is(err, ErrSnapshotExists) || !strings.Contains(err.Error(), "disk root") {
		t.Errorf("got %v, want ErrSnapshotExists of disk root", err)
	}
	if got := tags(t, images, paths["root"]); !cmp.Equal(got, []string{"old"}) {
		t.Errorf("root has the snapshots %q", got)
	}
	if got := tags(t, images, paths["data"]); len(got) != 0 {
		t.Errorf("data has the snapshots %q", got)
	}
}

func TestCreateSnapshot_rawImage_isRefused(t *testing.T) {
	images := newImages(t)
	raw := filepath.Join(t.TempDir(), "raw.img")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	err := images.CreateSnapshot(t.Context(), map[string]string{"root": raw}, "x")
	if err == nil || !strings.Contains(err.Error(), "not in qcow2 format") || !strings.Contains(err.Error(), "disk root") {
		t.Errorf("got %v, want that the image is no qcow2", err)
	}
}

func TestInfoAs_rawImageThatLooksLikeQcow2_isTakenForWhatItIsSaidToBe(t *testing.T) {
	images := newImages(t)
	path := newDisks(t, images, "root")["root"]
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := images.InfoAs(t.Context(), path, "raw")
	whole := (st.Size() + sectorSize - 1) / sectorSize * sectorSize
	if err != nil || info.Format != "raw" || info.VirtualSize != whole {
		t.Errorf("info is %+v, %v; want a raw image of %d bytes", info, err, whole)
	}
}

func TestCreateSnapshot_imageInUse_namesTheHolder(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root", "data")
	release := holdOpen(t, paths["root"])
	defer release()
	_, reverted := images.RevertSnapshot(t.Context(), paths, "x")
	for what, err := range map[string]error{
		"create": images.CreateSnapshot(t.Context(), paths, "x"),
		"revert": reverted,
		"delete": images.DeleteSnapshot(t.Context(), paths, "x"),
	} {
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "qemu-io (pid ") || !strings.Contains(err.Error(), "disk root") {
			t.Errorf("%s: got %v, want ErrInUse with the holder", what, err)
		}
	}
	if got := tags(t, images, paths["data"]); len(got) != 0 {
		t.Errorf("data has the snapshots %q, want none", got)
	}
}

func TestRevertSnapshot_tagMissingOnOneDisk_changesNothing(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root", "data")
	if err := images.CreateSnapshot(t.Context(), map[string]string{"root": paths["root"]}, "old"); err != nil {
		t.Fatal(err)
	}
	put(t, paths["root"], 'n')
	_, err := images.RevertSnapshot(t.Context(), paths, "old")
	if !errors.Is(err, ErrNoSnapshot) || !strings.Contains(err.Error(), "disk data") {
		t.Errorf("got %v, want ErrNoSnapshot of disk data", err)
	}
	if !holds(t, paths["root"], 'n') {
		t.Error("root was reverted all the same")
	}
}

func TestRevertSnapshot_dirtyBitmaps_areRemovedAndTold(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "root", "data")
	put(t, paths["root"], 'o')
	must(t, "qemu-img", "bitmap", "--add", "--", paths["root"], "-early")
	if err := images.CreateSnapshot(t.Context(), paths, "old"); err != nil {
		t.Fatal(err)
	}
	put(t, paths["root"], 'n')
	// A QEMU that is killed leaves its bitmap unusable, and that must go, too.
	must(t, "qemu-img", "bitmap", "--add", paths["root"], "backup, 0")
	_ = command(t, "qemu-io", "-f", "qcow2", "-c", "write -P 110 1M 64k", "-c", "abort", paths["root"]).Run() // it dies of that
	if out, err := command(t, "qemu-img", "info", paths["root"]).CombinedOutput(); err != nil || !strings.Contains(string(out), "in-use") {
		t.Fatalf("no bitmap is unusable: %v\n%s", err, out)
	}
	removed, err := images.RevertSnapshot(t.Context(), paths, "old")
	if want := map[string][]string{"root": {"-early", "backup, 0"}}; err != nil || !cmp.Equal(removed, want) {
		t.Errorf("removed are %q, %v, want %q", removed, err, want)
	}
	if info, err := images.InfoAs(t.Context(), paths["root"], "qcow2"); err != nil || len(info.Bitmaps) != 0 {
		t.Errorf("the bitmaps are %q, %v", info.Bitmaps, err)
	}
	if !holds(t, paths["root"], 'o') {
		t.Error("root is not what it was")
	}
}

// A bitmap that goes costs the next backup a full, so nothing else may be in the way.
func TestRevertSnapshot_notPossible_keepsDirtyBitmaps(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, images *Images, paths map[string]string) *Images{
		"a tag is missing": func(t *testing.T, images *Images, paths map[string]string) *Images {
			t.Helper()
			if err := images.DeleteSnapshot(t.Context(), map[string]string{"b": paths["b"]}, "old"); err != nil {
				t.Fatal(err)
			}
			return images
		},
		"a disk is in use": func(t *testing.T, images *Images, paths map[string]string) *Images {
			t.Helper()
			t.Cleanup(holdOpen(t, paths["b"]))
			return images
		},
		"no room to undo it": func(t *testing.T, _ *Images, _ map[string]string) *Images {
			t.Helper()
			return fakeTool(t, `case "$1 $*" in "snapshot "*"-c maqet.undo."*"/b.qcow2") echo "qemu-img: No space left on device" >&2; exit 1;; esac; real "$@"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			images := newImages(t)
			paths := newDisks(t, images, "a", "b")
			must(t, "qemu-img", "bitmap", "--add", paths["a"], "backup0")
			if err := images.CreateSnapshot(t.Context(), paths, "old"); err != nil {
				t.Fatal(err)
			}
			removed, err := spoil(t, images, paths).RevertSnapshot(t.Context(), paths, "old")
			if err == nil || len(removed) != 0 {
				t.Errorf("removed are %q, %v", removed, err)
			}
			info, err := images.InfoAs(t.Context(), paths["a"], "qcow2")
			if err != nil || !cmp.Equal(info.Bitmaps, []string{"backup0"}) || len(info.Snapshots) != 1 {
				t.Errorf("a has %+v, %v", info, err)
			}
		})
	}
}

func TestRevertSnapshot_oneDiskFails_givesEveryDiskItsContentBack(t *testing.T) {
	actual := newImages(t)
	paths := newDisks(t, actual, "a", "b")
	for _, path := range paths {
		put(t, path, '1')
	}
	if err := actual.CreateSnapshot(t.Context(), paths, "old"); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		put(t, path, '2')
	}
	images := fakeTool(t, `case "$1 $*" in "snapshot "*"-a old "*"/b.qcow2") echo "qemu-img: b is broken" >&2; exit 1;; esac; real "$@"`)
	if _, err := images.RevertSnapshot(t.Context(), paths, "old"); err == nil || !strings.Contains(err.Error(), "b is broken") {
		t.Errorf("got %v, want the failure of disk b", err)
	}
	for name, path := range paths {
		if !holds(t, path, '2') {
			t.Errorf("%s lost its content", name)
		}
		if got := tags(t, actual, path); !cmp.Equal(got, []string{"old"}) {
			t.Errorf("%s has the snapshots %q", name, got)
		}
	}
}

func TestRevertSnapshot_afterOneThatWasKilled_losesNothingUntilItSucceeds(t *testing.T) {
	images := newImages(t)
	paths := newDisks(t, images, "a", "b")
	for _, path := range paths {
		put(t, path, '1')
	}
	if err := images.CreateSnapshot(t.Context(), paths, "old"); err != nil {
		t.Fatal(err)
	}
	// What a revert leaves that was killed when the first of two disks was done.
	const left = undoPrefix + "KILLED"
	for _, path := range paths {
		put(t, path, '2')
		if err := images.snapshot(t.Context(), "-c", left, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := images.snapshot(t.Context(), "-a", "old", paths["a"]); err != nil {
		t.Fatal(err)
	}
	put(t, paths["b"], '3')
	broken := fakeTool(t, `case "$1 $*" in "snapshot "*"-a old "*"/b.qcow2") echo "qemu-img: b is broken" >&2; exit 1;; esac; real "$@"`)
	if _, err := broken.RevertSnapshot(t.Context(), paths, "old"); err == nil {
		t.Fatal("the broken disk went unnoticed")
	}
	if !holds(t, paths["a"], '1') || !holds(t, paths["b"], '3') {
		t.Error("a disk does not hold what it held before the second revert")
	}
	for name, path := range paths {
		if got := tags(t, images, path); !cmp.Equal(got, []string{"old", left}) {
			t.Errorf("%s has the snapshots %q", name, got)
		}
	}
	if _, err := images.RevertSnapshot(t.Context(), paths, "old"); err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		if got := tags(t, images, path); !holds(t, path, '1') || !cmp.Equal(got, []string{"old"}) {
			t.Errorf("%s is not as at the snapshot, or has other snapshots than that: %q", name, got)
		}
	}
}

func TestRevertSnapshot_tagThatIsAnotherSnapshotsNumber_isRefused(t *testing.T) {
	images := newImages(t)
	path := newDisks(t, images, "root")["root"]
	for _, tag := range []string{"first", "1"} {
		if err := images.snapshot(t.Context(), "-c", tag, path); err != nil {
			t.Fatal(err)
		}
	}
	put(t, path, 'n')
	_, err := images.RevertSnapshot(t.Context(), map[string]string{"root": path}, "1")
	if err == nil || !holds(t, path, 'n') {
		t.Errorf("got %v; qemu-img would have reverted to the snapshot whose number is 1", err)
	}
}

func TestInfo_everythingAnImageCanSay_isRead(t *testing.T) {
	images := newImages(t)
	dir := t.TempDir()
	base, path := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "top.qcow2")
	for _, args := range [][]string{
		{"create", "-q", "-f", "qcow2", base, "4M"},
		{"create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path, "8M"},
		{"bitmap", "--add", path, "b0"},
		{"snapshot", "-c", "s0", path},
	} {
		must(t, "qemu-img", args...)
	}
	release := holdOpen(t, path)
	defer release()
	info, err := images.Info(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Format != "qcow2" || info.VirtualSize != 8<<20 || info.ActualSize <= 0 || info.Backing != base {
		t.Errorf("info is %+v", info)
	}
	if !cmp.Equal(info.Bitmaps, []string{"b0"}) || !info.Has("s0") || info.Has("s1") {
		t.Errorf("bitmaps %q, snapshots %+v", info.Bitmaps, info.Snapshots)
	}
	if len(info.Snapshots) != 1 || info.Snapshots[0].Date.IsZero() {
		t.Errorf("snapshots are %+v", info.Snapshots)
	}
}

func TestInfo_missingOrDamaged_namesFileAndCause(t *testing.T) {
	images := newImages(t)
	path := filepath.Join(t.TempDir(), "no such.qcow2")
	_, err := images.Info(t.Context(), path)
	var tool *ToolError
	if !errors.As(err, &tool) || !strings.Contains(err.Error(), "No such file") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want qemu-img's words", err)
	}
	for _, script := range []string{`echo '{"format":'`, `echo '{}'`, `echo '[]'`} {
		if _, err := fakeTool(t, script).Info(t.Context(), path); err == nil {
			t.Errorf("%s was taken for an answer", script)
		}
	}
}

// holdOpen opens an image for writing in another process, as a QEMU does.
func holdOpen(t *testing.T, path string) (release func()) {
	t.Helper()
	cmd := command(t, "qemu-io", "-f", "qcow2", path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The lock is taken before the header is written anew, without the bitmaps for a
	// moment. What answers has it open for good.
	if _, err := io.WriteString(stdin, "length\n"); err != nil {
		t.Fatal(err)
	}
	for answer := bufio.NewScanner(stdout); ; {
		if !answer.Scan() {
			t.Fatalf("qemu-io has ended: %v", answer.Err())
		}
		if strings.Contains(answer.Text(), "iB") {
			break
		}
	}
	eventually(t, "qemu-io has the image open", func() bool { return len(Holders(path)) == 1 && locked(t, path) })
	return func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
}

// locked tells whether opening the image for writing is refused.
func locked(t *testing.T, path string) bool {
	t.Helper()
	out, err := command(t, "qemu-img", "info", path).CombinedOutput()
	return err != nil && strings.Contains(string(out), " lock\n")
}
