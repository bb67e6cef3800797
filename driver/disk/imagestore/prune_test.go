package imagestore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/manifest"
)

// storedImage makes an image present whose content begins with a text.
func (s *Store) storedImage(t *testing.T, text string) driver.ImageState {
	t.Helper()
	content := noise(size)
	copy(content, text)
	state, err := s.Pull(t.Context(), rawSpec(writeTest(t, text, content), content), nil)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// overlay makes a disk of an image at a path below the folder of disks.
func (s *Store) overlay(t *testing.T, of driver.ImageState, path string) string {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.cfg.Layout.State, "disks", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", of.Path, "-F", of.Format, path)
	return path
}

// becomes are what a prune made of each image, in one line.
func becomes(t *testing.T, s *Store, known Known, opt PruneOptions) []string {
	t.Helper()
	done, err := s.Prune(t.Context(), known, opt)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range done {
		word := "kept"
		if p.Removed {
			word = "removed"
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", word, p.What, p.Why))
		if p.Err != nil {
			t.Error(p.Err)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestPrune_whatIsReadFrom_staysWhoeverReadsIt(t *testing.T) {
	tests := map[string]struct {
		use  func(t *testing.T, s *Store, image driver.ImageState) Known
		all  bool
		want string
	}{
		"a disk": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			s.overlay(t, i, "web/root.qcow2")
			return Known{}
		}, true, "kept image: read by vm/web disk root"},
		"a disk with a snapshot": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			qemuImg(t, "snapshot", "-c", "tag", s.overlay(t, i, "web/root.qcow2"))
			return Known{}
		}, true, "kept image: read by vm/web disk root"},
		"a kept disk": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			s.overlay(t, i, ".kept/web-1234abcd/root.qcow2")
			return Known{}
		}, true, "kept image: read by kept web-1234abcd disk root"},
		"a disk of another name": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			s.overlay(t, i, "web/root.bak")
			return Known{}
		}, true, "kept image: read by vm/web disk root"},
		"an overlay of an overlay": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			middle := s.overlay(t, i, filepath.Join(t.TempDir(), "middle.qcow2"))
			s.overlay(t, driver.ImageState{Path: middle, Format: "qcow2"}, "web/root.qcow2")
			return Known{}
		}, true, "kept image: read by vm/web disk root"},
		"a backing file in JSON": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			path := s.overlay(t, i, "web/root.qcow2")
			qemuImg(t, "rebase", "-u", "-F", "raw", "-b", `json:{"driver":"raw","file":{"driver":"file","filename":"`+i.Path+`"}}`, path)
			return Known{}
		}, true, "kept image: read by vm/web disk root"},
		"a relative backing file": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			path := s.overlay(t, i, "web/root.qcow2")
			qemuImg(t, "rebase", "-u", "-F", "raw", "-b", "../../images/"+filepath.Base(i.Path), path)
			return Known{}
		}, true, "kept image: read by vm/web disk root"},
		"a file that a machine names": {func(t *testing.T, s *Store, i driver.ImageState) Known {
			path := s.overlay(t, i, filepath.Join(t.TempDir(), "own.qcow2"))
			return Known{Files: map[string]string{path: "vm/db disk own"}}
		}, true, "kept image: read by vm/db disk own"},
		"a machine that names it": {func(_ *testing.T, _ *Store, i driver.ImageState) Known {
			return Known{Files: map[string]string{i.Path: "vm/db disk base"}}
		}, true, "kept image: read by vm/db disk base"},
		"an object": {func(_ *testing.T, _ *Store, i driver.ImageState) Known {
			return Known{Names: map[string][]string{i.Digest: {"a", "b"}}}
		}, false, "kept image: named by img/a, img/b; --all removes it all the same"},
		"an object, and all are to go": {func(_ *testing.T, _ *Store, i driver.ImageState) Known {
			return Known{Names: map[string][]string{i.Digest: {"a"}}}
		}, true, "removed image: nothing reads from it"},
		"nothing": {func(*testing.T, *Store, driver.ImageState) Known { return Known{} }, false, "removed image: nothing reads from it"},
		"a file that is gone": {func(*testing.T, *Store, driver.ImageState) Known {
			return Known{Files: map[string]string{"/nonexistent/x.qcow2": "vm/db disk gone"}}
		}, false, "removed image: nothing reads from it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			image := s.storedImage(t, "image")
			known := tt.use(t, s, image)
			opt := PruneOptions{All: tt.all, DryRun: true}
			want := []string{tt.want}
			if diff := cmp.Diff(want, becomes(t, s, known, opt)); diff != "" {
				t.Errorf("dry run (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(image.Path); err != nil {
				t.Fatalf("the dry run has removed it: %v", err)
			}
			opt.DryRun = false
			if diff := cmp.Diff(want, becomes(t, s, known, opt)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			_, err := os.Stat(image.Path)
			if kept := strings.HasPrefix(tt.want, "kept"); kept != (err == nil) {
				t.Errorf("it is there: %v", err)
			}
			if got := s.names(t); err != nil && len(got) > 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
}

// TestPrune_openImage_stays has a process read an image that no disk tells of.
func TestPrune_openImage_stays(t *testing.T) {
	s := newStore(t)
	image := s.storedImage(t, "image")
	cmd := holdOpen(t, image.Path)
	got := becomes(t, s, Known{}, PruneOptions{})
	if len(got) != 1 || !strings.HasPrefix(got[0], "kept image: opened by ") || !strings.Contains(got[0], fmt.Sprintf("(pid %d)", cmd.Process.Pid)) {
		t.Errorf("got %q", got)
	}
}

// TestPrune_diskThatCannotBeRead_removesNothing needs proof that nobody reads an image.
func TestPrune_diskThatCannotBeRead_removesNothing(t *testing.T) {
	s := newStore(t)
	image := s.storedImage(t, "image")
	path := s.overlay(t, image, "web/root.qcow2")
	if err := os.WriteFile(path, []byte("QFI\xfb\x00\x00\x00\x03"), 0o600); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Prune(t.Context(), Known{}, PruneOptions{All: true}); err == nil || !strings.Contains(err.Error(), path) || len(done) > 0 {
		t.Errorf("got %v, %v", done, err)
	}
	if _, err := os.Stat(image.Path); err != nil {
		t.Error(err)
	}
}

func TestPrune_parts_goWhenNobodyWantsThem(t *testing.T) {
	s := newStore(t)
	content := noise(size)
	spec := rawSpec("https://example.org/disk.raw", content)
	key := layout.ImageKey(spec.Digest())
	part := func() {
		t.Helper()
		if err := makeDir(s.cfg.Layout.ImageDir()); err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{
			s.cfg.Layout.ImagePart(key): "some bytes", s.cfg.Layout.ImagePartRecord(key): `{"version":1,"total":100}`,
			filepath.Join(s.cfg.Layout.ImageDir(), tempPrefix+key+"-123"): "half an image",
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	part()
	named := Known{Names: map[string][]string{spec.Digest(): {"a"}}}
	want := []string{"kept part: named by img/a; --all removes it all the same", "removed leftover: its fetch was cut off"}
	if diff := cmp.Diff(want, becomes(t, s, named, PruneOptions{})); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
	lock, err := s.beside().cfg.Locks.TryLock(s.cfg.Layout.ImageLock(key))
	if err != nil {
		t.Fatal(err)
	}
	part()
	want = []string{"kept part: it is being fetched"}
	if diff := cmp.Diff(want, becomes(t, s, Known{}, PruneOptions{})); diff != "" {
		t.Errorf("being fetched (-want +got):\n%s", diff)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	want = []string{"removed leftover: its fetch was cut off", "removed part: nobody fetches it"}
	if diff := cmp.Diff(want, becomes(t, s, Known{}, PruneOptions{})); diff != "" {
		t.Errorf("of nobody (-want +got):\n%s", diff)
	}
	if got := s.names(t); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

func TestList_everything_isToldWithItsUsers(t *testing.T) {
	s := newStore(t)
	if empty, err := s.List(t.Context(), Known{}); err != nil || len(empty.Images)+len(empty.Parts) > 0 {
		t.Errorf("nothing: %+v, %v", empty, err)
	}
	one, two := s.storedImage(t, "one"), s.storedImage(t, "two")
	s.overlay(t, one, "web/root.qcow2")
	s.overlay(t, one, "db/root.qcow2")
	if err := os.Truncate(two.Path, 512); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), Known{Names: map[string][]string{one.Digest: {"debian"}}})
	if err != nil || len(list.Images) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, i := range list.Images {
		switch i.Digest {
		case one.Digest:
			if !slices.Equal(i.Users, []string{"vm/db disk root", "vm/web disk root"}) || !slices.Equal(i.Names, []string{"debian"}) || i.Err != "" || i.Size != size || i.Format != string(manifest.FormatRaw) {
				t.Errorf("one: %+v", i)
			}
		default:
			if i.Err != "somebody has changed it" || len(i.Users) > 0 {
				t.Errorf("two: %+v", i)
			}
		}
	}
}
