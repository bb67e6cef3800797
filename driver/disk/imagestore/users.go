package imagestore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/layout"
)

// Known is what others know of images and files.
type Known struct {
	// Names are the Image objects that name an image, by its digest.
	Names map[string][]string
	// Files are image files outside of maqet's own folder that machines use, with
	// whose they are, such as "vm/web disk data".
	Files map[string]string
}

// maxChain is how many backing files are followed from one disk.
const maxChain = 32

// users are the disks that read from stored images, by digest: those of machines,
// those kept of deleted ones, and the files that machines name. The error says what
// could not be looked at: then it is not known of any image that nobody uses it.
func (s *Store) users(known Known) (map[string][]string, error) {
	found := map[string][]string{}
	add := func(path, whose string) error {
		for range maxChain {
			h, err := disk.ReadHeader(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // A chain that leads nowhere needs nothing; nor does a file that was moved.
			}
			if err != nil {
				return err
			}
			digest, ok := s.imageIn(h.Backing)
			if ok && !slices.Contains(found[digest], whose) {
				found[digest] = append(found[digest], whose)
			}
			if path = h.BackingPath(path); path == "" || ok {
				return nil
			}
		}
		return fmt.Errorf("%s: its backing files have no end", path)
	}
	disks := filepath.Dir(s.cfg.Layout.DiskDir("x"))
	err := filepath.WalkDir(disks, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.Type().IsRegular() && !strings.HasSuffix(path, ".json") && !strings.HasSuffix(path, ".lock"):
			return add(path, whose(disks, path))
		default:
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	for path, whose := range known.Files {
		if digest, ok := s.imageIn(path); ok && !slices.Contains(found[digest], whose) {
			found[digest] = append(found[digest], whose)
		}
		if err := add(path, whose); err != nil {
			return nil, err
		}
	}
	for _, all := range found {
		slices.Sort(all)
	}
	return found, nil
}

// imageIn finds a stored image in the way a disk names its backing file: by a path,
// or in JSON. A digest is long enough to mean nothing else.
func (s *Store) imageIn(backing string) (digest string, ok bool) {
	for _, part := range strings.FieldsFunc(backing, func(r rune) bool { return strings.ContainsRune(`/"',=: `, r) }) {
		if digest, ok := layout.DigestOfImage(part); ok {
			return digest, true
		}
	}
	return "", false
}

// whose names a file below the folder of disks.
func whose(disks, path string) string {
	rel, err := filepath.Rel(disks, path)
	if err != nil {
		return path
	}
	folder, file := filepath.Split(rel)
	name := strings.TrimSuffix(file, filepath.Ext(file))
	kept, ok := strings.CutPrefix(filepath.Clean(folder), ".kept/")
	switch {
	case ok:
		return "kept " + kept + " disk " + name
	case strings.HasPrefix(folder, "."):
		return rel
	default:
		return "vm/" + filepath.Clean(folder) + " disk " + name
	}
}
