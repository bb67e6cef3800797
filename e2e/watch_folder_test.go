package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// must ends the test upon an error.
func (w *watching) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// swap makes a link point elsewhere, at once, as git-sync and kubelet do.
func (w *watching) swap(link, to string) {
	w.Helper()
	next := link + ".next"
	w.must(os.Symlink(to, next))
	w.must(os.Rename(next, link))
}

// tree writes a folder of machines.
func (w *watching) tree(dir string, names ...string) {
	w.Helper()
	w.must(os.MkdirAll(dir, 0o755))
	for _, name := range names {
		put(w.T, filepath.Join(dir, name+".yaml"), small(name, ""))
	}
}

// TestWatch_folderIsALink_followsEachSwap keeps checkouts beside each other and a
// link to the current one, as git-sync does.
func TestWatch_folderIsALink_followsEachSwap(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	base := t.TempDir()
	link := filepath.Join(base, "current")
	w.tree(filepath.Join(base, "rev1", "vms"), "vm0")
	w.must(os.Symlink("rev1", link))
	w.dir = filepath.Join(link, "vms")
	w.begin("--prune", "--prune-all")
	first := w.running(1)["vm0"]
	for n := 2; n < 6; n++ {
		rev := fmt.Sprintf("rev%d", n)
		name := vmName(n)
		w.tree(filepath.Join(base, rev, "vms"), "vm0", name)
		w.swap(link, rev)
		w.must(os.RemoveAll(filepath.Join(base, fmt.Sprintf("rev%d", n-1))))
		w.Phase(t, name, "Running")
		if n > 2 {
			deadline(t, "the machine of the last revision is pruned", func() bool { return len(w.QEMUs()[vmName(n-1)]) == 0 })
		}
	}
	if got := w.PID(t, "vm0"); got != first {
		t.Errorf("vm0 was restarted by swaps: pid %d, was %d", got, first)
	}
	if owner := w.Must(t, 0, "describe", "vm0"); !strings.Contains(owner, w.dir) {
		t.Errorf("the owner is not the folder as it was given:\n%s", owner)
	}
}

// TestWatch_configMap_followsEachSwap has files that are links into ..data, which
// is a link to the folder of the day.
func TestWatch_configMap_followsEachSwap(t *testing.T) {
	t.Parallel()
	w := newWatching(t, 0)
	data := filepath.Join(w.dir, "..data")
	w.tree(filepath.Join(w.dir, "..1"), "vm0")
	w.must(os.Symlink("..1", data))
	w.must(os.Symlink("..data/vm0.yaml", filepath.Join(w.dir, "vm0.yaml")))
	w.begin()
	before := w.running(1)
	w.tree(filepath.Join(w.dir, "..2"), "vm0", "vm1")
	w.swap(data, "..2")
	w.must(os.Symlink("..data/vm1.yaml", filepath.Join(w.dir, "vm1.yaml")))
	w.must(os.RemoveAll(filepath.Join(w.dir, "..1")))
	w.Phase(t, "vm1", "Running")
	if got := w.PID(t, "vm0"); got != before["vm0"] {
		t.Errorf("vm0 was restarted: pid %d, was %v", got, before)
	}
	w.tree(filepath.Join(w.dir, "..3"), "vm0")
	put(t, filepath.Join(w.dir, "..3", "vm1.yaml"), small("vm1", "  powerState: Paused\n"))
	w.swap(data, "..3")
	w.Phase(t, "vm1", "Paused")
}

// TestWatch_folderGoes_stopsNobodyAndComesBack takes the folder away in every way
// that a folder goes, under a watch that may prune everything.
func TestWatch_folderGoes_stopsNobodyAndComesBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ away, back func(w *watching) }{
		"renamed": {
			func(w *watching) { w.must(os.Rename(w.dir, w.dir+".away")) },
			func(w *watching) { w.must(os.Rename(w.dir+".away", w.dir)) },
		},
		"removed with all in it": {
			func(w *watching) { w.must(os.RemoveAll(w.dir)) },
			func(w *watching) { w.tree(w.dir, "vm0", "vm1") },
		},
		"a link to nowhere": {
			func(w *watching) {
				w.must(os.Rename(w.dir, w.dir+".away"))
				w.must(os.Symlink("nowhere", w.dir))
			},
			func(w *watching) { w.swap(w.dir, w.dir+".away") },
		},
		"a file in its place": {
			func(w *watching) {
				w.must(os.Rename(w.dir, w.dir+".away"))
				w.must(os.WriteFile(w.dir, []byte("not a manifest"), 0o600))
			},
			func(w *watching) {
				w.must(os.Remove(w.dir))
				w.must(os.Rename(w.dir+".away", w.dir))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, 2)
			w.begin("--prune", "--prune-all")
			before := w.running(2)
			c.away(w)
			if why := w.shows("vm0", "ManifestInvalid"); !strings.Contains(why, w.dir) {
				t.Errorf("why is not told: %q", why)
			}
			// It is supervised all the same.
			pid := w.signal("vm1", syscall.SIGKILL)
			w.NewPID(t, "vm1", pid)
			w.Phase(t, "vm1", "Running")
			w.watch.Signal(t, syscall.SIGHUP)
			w.says("told to look again")
			c.back(w)
			w.clear("vm0", "ManifestInvalid")
			w.converges("vm2")
			if got := w.PID(t, "vm0"); got != before["vm0"] {
				t.Errorf("vm0 is %d, was %d", got, before["vm0"])
			}
			if s := w.Status(t, "vm1"); s.Restarts != 1 {
				t.Errorf("vm1 was restarted %d times", s.Restarts)
			}
		})
	}
}

// TestWatch_mounts_stopNobody mounts things over the folder and takes them away.
func TestWatch_mounts_stopNobody(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	t.Parallel()
	w := newWatching(t, 2)
	mount := func(source, kind string, flags uintptr) {
		t.Helper()
		if err := syscall.Mount(source, w.dir, kind, flags, ""); err != nil {
			t.Skipf("this host lets nobody mount: %v", err)
		}
	}
	unmount := func() {
		t.Helper()
		w.must(syscall.Unmount(w.dir, syscall.MNT_DETACH))
	}
	t.Cleanup(func() {
		for syscall.Unmount(w.dir, syscall.MNT_DETACH) == nil {
			t.Log("unmounted what the test left mounted")
		}
	})
	w.begin("--prune", "--prune-all")
	before := w.running(2)

	// Read-only, the folder is as good as ever: nothing is written into it.
	mount(w.dir, "", syscall.MS_BIND)
	w.must(syscall.Mount("", w.dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	w.watch.Signal(t, syscall.SIGHUP)
	w.says("told to look again")
	w.empty()
	w.same(before, "read-only")
	unmount()
	w.converges("vm2")

	// A file system with other manifests over it is a folder with others.
	mount("none", "tmpfs", 0)
	w.tree(w.dir, "vm0", "vm1", "vm2", "vm3")
	w.Phase(t, "vm3", "Running")
	unmount()
	deadline(t, "what was only in the mounted one is pruned", func() bool { return len(w.QEMUs()["vm3"]) == 0 })
	if got := w.PID(t, "vm0"); got != before["vm0"] {
		t.Errorf("vm0 is %d, was %d", got, before["vm0"])
	}
}

// TestWatch_mountedFolderUnmounted_stopsNobody takes the mount away that all the
// manifests are on: what is left is a folder that is empty and can be read.
func TestWatch_mountedFolderUnmounted_stopsNobody(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	t.Parallel()
	w := newWatching(t, 0)
	mount := func() {
		t.Helper()
		if err := syscall.Mount("none", w.dir, "tmpfs", 0, ""); err != nil {
			t.Skipf("this host lets nobody mount: %v", err)
		}
		w.tree(w.dir, "vm0", "vm1")
	}
	t.Cleanup(func() { _ = syscall.Unmount(w.dir, syscall.MNT_DETACH) }) // most likely it is mounted no more
	mount()
	w.begin("--prune")
	before := w.running(2)
	w.must(syscall.Unmount(w.dir, syscall.MNT_DETACH))
	w.says("nothing is pruned")
	pid := w.signal("vm1", syscall.SIGKILL)
	before["vm1"] = w.NewPID(t, "vm1", pid)
	w.same(before, "unmounted")
	mount()
	w.converges("vm2")
	before["vm2"] = w.PID(t, "vm2")
	w.same(before, "mounted again")
}
