package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/maqet/maqet/internal/timing"
)

// stranger is a user that no file of the host belongs to.
const stranger = 54321

// newForeign is the folder of a machine whose QEMU runs as another user, with a disk
// "root" of his in it, and beside it a disk that only root may touch.
func newForeign(t *testing.T) (images *Images, root, victim string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	machines := t.TempDir()
	images = New(Config{Timing: timing.Default(), Machines: machines})
	for _, dir := range []string{filepath.Dir(machines), machines} {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	root, victim = filepath.Join(machines, "web", "root.qcow2"), filepath.Join(machines, "db", "data.qcow2")
	for _, path := range []string{root, victim} {
		if err := images.Create(t.Context(), path, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{filepath.Dir(root), root} {
		if err := os.Chown(path, stranger, stranger); err != nil {
			t.Fatal(err)
		}
	}
	return images, root, victim
}

// A user to whom a machine's folder belongs must not have root change other files: by a
// link in an image's place, or by what its header names.
func TestChange_inAFolderOfAnotherUser_reachesNoFileOfOthers(t *testing.T) {
	for name, lay := range map[string]func(t *testing.T, root, victim string){
		"a link": func(t *testing.T, root, victim string) {
			t.Helper()
			if err := os.Symlink(victim, root); err != nil {
				t.Fatal(err)
			}
		},
		"a hard link": func(t *testing.T, root, victim string) {
			t.Helper()
			if err := os.Link(victim, root); err != nil {
				t.Fatal(err)
			}
		},
		"an external data file": func(t *testing.T, root, victim string) {
			t.Helper()
			spare := filepath.Join(t.TempDir(), "spare")
			must(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+spare+",data_file_raw=on", root, "1M")
			must(t, "qemu-img", "amend", "-f", "qcow2", "-o", "data_file="+victim, root)
			if err := os.Chown(root, stranger, stranger); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			images, root, victim := newForeign(t)
			if err := images.CreateSnapshot(t.Context(), map[string]string{"data": victim}, "theirs"); err != nil {
				t.Fatal(err)
			}
			must(t, "qemu-img", "bitmap", "--add", victim, "b0")
			if err := os.Remove(root); err != nil {
				t.Fatal(err)
			}
			lay(t, root, victim)
			before, err := os.ReadFile(victim)
			if err != nil {
				t.Fatal(err)
			}
			paths := map[string]string{"root": root}
			_, reverted := images.RevertSnapshot(t.Context(), paths, "theirs")
			for what, err := range map[string]error{
				"grow": images.Grow(t.Context(), root, 64<<20), "take": images.CreateSnapshot(t.Context(), paths, "mine"), "revert": reverted,
			} {
				if err == nil {
					t.Errorf("%s: done", what)
				}
			}
			if err := images.DeleteSnapshot(t.Context(), paths, "theirs"); err == nil && name != "an external data file" {
				t.Error("delete: done")
			}
			after, err := os.ReadFile(victim)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the other file was changed, %v", err)
			}
		})
	}
}

func TestChange_inAFolderOfAnotherUser_worksOnHisImage(t *testing.T) {
	images, root, _ := newForeign(t)
	// As an image that was restored from a backup since the machine last ran.
	if err := os.Chown(root, 0, 0); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"root": root}
	if err := images.CreateSnapshot(t.Context(), paths, "then"); err != nil {
		t.Fatal(err)
	}
	if err := images.Grow(t.Context(), root, 4<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := images.RevertSnapshot(t.Context(), paths, "then"); err != nil {
		t.Fatal(err)
	}
	if err := images.DeleteSnapshot(t.Context(), paths, "then"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := st.Sys().(*syscall.Stat_t); !ok || stat.Uid != stranger || st.Mode().Perm() != 0o600 {
		t.Errorf("it belongs to %d, with the mode %v", stat.Uid, st.Mode())
	}
	info, err := images.InfoAs(t.Context(), root, "qcow2")
	if err != nil || info.VirtualSize != 1<<20 || strings.Join(tags(t, images, root), "") != "" {
		t.Errorf("it is %+v, %v", info, err)
	}
}
