package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/manifest"
)

// maxBacking is how many backing files are followed from one image.
const maxBacking = 32

// inode tells files apart, by whatever path they are named.
type inode struct{ dev, ino uint64 }

// StoredNeeds are what needs each of the stored disks, by its path: snapshots in the
// same folder, other images that read from it, and what names it. Named are the images
// that machines name themselves, with whose they are. The error says what could not be
// looked at: then of no disk it is known that nothing needs it.
func (d *Driver) StoredNeeds(ctx context.Context, stored []driver.StoredDisk, named map[string]driver.Need) (map[string][]driver.Need, error) {
	n := needs{of: map[inode]string{}, found: map[string][]driver.Need{}}
	for _, s := range stored {
		if at, ok := inodeOf(s.Path); ok {
			n.of[at] = s.Path
		}
	}
	for _, s := range stored {
		if err := errors.Join(n.reads(s.Path, driver.Need{Folder: s.Folder, By: "disk " + s.Name()}), ctx.Err()); err != nil {
			return nil, err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(named)) {
		n.add(path, named[path])
		if named[path].Raw {
			continue
		}
		if err := errors.Join(n.reads(path, named[path]), ctx.Err()); err != nil {
			return nil, err
		}
	}
	for _, s := range stored {
		tags, err := snapshotsOn(filepath.Join(filepath.Dir(s.Path), filepath.Base(d.layout.SnapshotDir("x"))), s)
		if err != nil {
			return nil, err
		}
		for _, tag := range tags {
			n.found[s.Path] = append(n.found[s.Path], driver.Need{Folder: s.Folder, By: "snapshot " + tag, Snapshot: tag})
		}
	}
	return n.found, nil
}

// needs are found one after the other.
type needs struct {
	of    map[inode]string
	found map[string][]driver.Need
}

// add notes a need of the file at path, if that is a stored disk.
func (n *needs) add(path string, need driver.Need) {
	at, ok := inodeOf(path)
	if stored, known := n.of[at]; ok && known {
		n.found[stored] = append(n.found[stored], need)
	}
}

// reads notes what the image at path reads from. A backing file that is named in
// another way than by a path is taken for all stored disks whose path is in that name.
func (n *needs) reads(path string, need driver.Need) error {
	for range maxBacking {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeDevice {
			return nil // opening a pipe may wait, and no image is one
		}
		h, err := disk.ReadHeader(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrDamaged) {
			return nil // a chain that leads nowhere needs nothing; nor can QEMU follow what is damaged
		}
		if err != nil {
			return fmt.Errorf("what %s reads from cannot be told: %w", need.By, err)
		}
		next := h.BackingPath(path)
		if next == "" {
			for _, stored := range n.of {
				if strings.Contains(h.Backing, stored) {
					n.found[stored] = append(n.found[stored], need)
				}
			}
			return nil
		}
		n.add(next, need)
		if h.BackingFormat == string(manifest.FormatRaw) {
			return nil // it names nothing, whatever is in it
		}
		path = next
	}
	return fmt.Errorf("%s: its backing files have no end", need.By)
}

// snapshotsOn are the recorded snapshots of a folder of records that are on a disk, or
// that were taken with it there, unchanged. One that was made anew has none of those that
// were on its predecessor.
func snapshotsOn(dir string, s driver.StoredDisk) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var tags []string
	for _, e := range entries {
		tag, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		record, err := readRecord(filepath.Join(dir, e.Name()), tag)
		if err != nil {
			return nil, err
		}
		if record == nil {
			continue
		}
		has := slices.Contains(s.Snapshots, tag) || s.Err != ""
		if has && slices.Contains(record.Disks, s.Disk) || slices.Contains(record.Without, s.Disk) {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

func inodeOf(path string) (inode, bool) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	return inode{st.Dev, st.Ino}, err == nil
}
