package folder

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// watches are the folders a notifier watches, each known by what it is and not
// only by its name, which may come to stand for another.
type watches struct {
	notifier notifier
	remote   func(path string) string // names the filesystem of a folder that others change too
	inbox    *inbox
	ids      map[string]fileID
	blind    map[string]string // folders whose changes the kernel may not tell of, and why
}

func newWatches(n notifier, remote func(string) string) *watches {
	return &watches{notifier: n, remote: remote, inbox: newInbox(n), ids: map[string]fileID{}}
}

// close ends the notifier and waits until nothing is left of it.
func (w *watches) close() {
	_ = w.notifier.Close() // there is nothing to save
	<-w.inbox.done
}

// update makes the watches those of places. What lies at or below a path in stale
// is watched anew. It is true when it changed anything or the folders changed
// under its hands: a look after that may find more. An error means that inotify
// cannot be used.
//
// Places with two names, by a bind mount, are watched under one; the table that
// comes back has each place under the name its events will bear.
func (w *watches) update(places map[string]*place, stale map[string]bool) (table map[string]*place, moved bool, err error) {
	table = map[string]*place{}
	wanted, named := map[string]fileID{}, map[fileID]string{}
	for _, path := range slices.Sorted(maps.Keys(places)) {
		id, ok := idOf(path)
		if !ok {
			moved = true
			continue
		}
		if first, ok := named[id]; ok {
			table[first] = join(table[first], places[path])
			continue
		}
		named[id], wanted[path], table[path] = path, id, places[path]
	}
	w.drop(wanted, stale)
	w.blind = map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		if _, ok := w.ids[path]; !ok {
			changed, err := w.add(path, wanted[path])
			if err != nil {
				return nil, false, err
			}
			moved = moved || changed
		}
		if fs := w.remote(path); fs != "" {
			w.blind[path] = "changes made elsewhere on " + fs + " give no event"
		}
	}
	return table, moved, nil
}

// drop removes every watch that is not wanted, or whose folder is not the wanted
// one, and forgets those that the kernel has dropped. Removing comes before
// adding, for the kernel has one watch for each folder, whatever its name; so a
// watch that only the notifier knows of must go as well.
func (w *watches) drop(wanted map[string]fileID, stale map[string]bool) {
	alive := map[string]bool{}
	for _, path := range w.notifier.WatchList() {
		alive[path] = true
	}
	for path, id := range w.ids {
		if now, ok := wanted[path]; ok && now == id && alive[path] && !isBelow(path, stale) {
			continue
		}
		_ = w.notifier.Remove(path) // it fails when the kernel has removed it before
		delete(w.ids, path)
	}
	for path := range alive {
		if _, ok := w.ids[path]; !ok {
			_ = w.notifier.Remove(path) // most of them are removed by now
		}
	}
}

// add watches the folder id at path. It is true when there is now a watch, or the
// folder was replaced meanwhile.
func (w *watches) add(path string, id fileID) (bool, error) {
	err := w.notifier.Add(path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return true, nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		w.blind[path] = err.Error()
		return false, nil
	case err != nil:
		return false, fmt.Errorf("watch %s: %w", path, err)
	}
	if now, ok := idOf(path); !ok || now != id {
		_ = w.notifier.Remove(path) // the kernel may have done so
		return true, nil
	}
	w.ids[path] = id
	return true, nil
}

// join is a place that is reached by two names.
func join(a, b *place) *place {
	names := maps.Clone(a.names)
	maps.Copy(names, b.names)
	return &place{names: names, listed: a.listed || b.listed}
}

// isBelow is true when path or a folder above it is in set.
func isBelow(path string, set map[string]bool) bool {
	if len(set) == 0 {
		return false
	}
	for ; !set[path]; path = filepath.Dir(path) {
		if path == everywhere {
			return false
		}
	}
	return true
}

// remoteFilesystem names the filesystem of path when others than this kernel
// change it.
func remoteFilesystem(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return ""
	}
	switch uint32(st.Type) { //nolint:gosec // the numbers have 32 bits, and some architectures sign them.
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.CIFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "SMB"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE"
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "AFS"
	default:
		return ""
	}
}
