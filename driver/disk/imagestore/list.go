package imagestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/internal/layout"
)

// Stored is one stored image.
type Stored struct {
	Digest string `json:"digest"`
	Path   string `json:"path"`
	Format string `json:"format"`
	// Size is what a guest sees, Stored what the image takes on the host.
	Size   int64     `json:"size"`
	Stored int64     `json:"stored"`
	Source string    `json:"source"`
	Taken  time.Time `json:"taken"`
	// Names are the Image objects that name it, Users the disks that read from it.
	Names []string `json:"names"`
	Users []string `json:"users"`
	// Err is why it cannot be used; empty when it can.
	Err string `json:"error,omitempty"`
}

// Part is an image of which only a part was fetched so far.
type Part struct {
	Digest string `json:"digest"`
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	// Total is the whole size; 0 when it is not known.
	Total int64 `json:"total,omitempty"`
	// Pull is how far whoever fetches it now is; nil when nobody does.
	Pull *driver.Transfer `json:"pull,omitempty"`
	// Names are the Image objects that name it.
	Names []string `json:"names"`
}

// Listing is everything in the folder of images.
type Listing struct {
	Images []Stored `json:"images"`
	Parts  []Part   `json:"parts"`
}

// List lists what is stored, by digest, with who uses it.
func (s *Store) List(ctx context.Context, known Known) (Listing, error) {
	l := Listing{Images: []Stored{}, Parts: []Part{}}
	users, err := s.users(known)
	if err != nil {
		return l, &Error{Source: s.cfg.Layout.ImageDir(), Op: "list", Err: err, Hint: "mend or remove that file"}
	}
	entries, err := os.ReadDir(s.cfg.Layout.ImageDir())
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, &Error{Source: s.cfg.Layout.ImageDir(), Op: "list", Err: bare(err), Hint: "make it readable to the user maqet runs as"}
	}
	for _, e := range entries {
		if key, ok := strings.CutPrefix(e.Name(), ".part-"); ok {
			if digest, ok := layout.ImageDigest(key); ok {
				l.Parts = append(l.Parts, s.partOf(digest, key, known))
			}
			continue
		}
		key, ok := strings.CutSuffix(e.Name(), ".json")
		if digest, isKey := layout.ImageDigest(key); ok && isKey {
			if one, there := s.storedOf(digest, key, known, users); there {
				l.Images = append(l.Images, one)
			}
		}
	}
	l.Parts = slices.DeleteFunc(l.Parts, func(p Part) bool { return p.Bytes == 0 && p.Pull == nil })
	return l, ctx.Err()
}

// storedOf is a stored image; not there when only its record is.
func (s *Store) storedOf(digest, key string, known Known, users map[string][]string) (Stored, bool) {
	one := Stored{Digest: digest, Names: orNone(known.Names[digest]), Users: orNone(users[digest])}
	r, err := s.readStored(key)
	if err != nil || r == nil {
		one.Path = s.cfg.Layout.ImageRecord(key)
		if err != nil {
			one.Err = err.Error()
		}
		return one, err != nil
	}
	one.Path, one.Format, one.Size, one.Source, one.Taken = s.cfg.Layout.Image(key, r.Format), r.Format, r.Size, r.Source, r.Taken
	st, err := os.Stat(one.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return one, false
	case err != nil:
		one.Err = err.Error()
	default:
		one.Stored = stored(st)
		if st.Size() != r.Bytes {
			one.Err = "somebody has changed it"
		}
	}
	return one, true
}

func (s *Store) partOf(digest, key string, known Known) Part {
	p := Part{Digest: digest, Path: s.cfg.Layout.ImagePart(key), Names: orNone(known.Names[digest])}
	if st, err := os.Stat(p.Path); err == nil {
		p.Bytes = st.Size()
	}
	if r, err := read[partRecord](s.cfg.Layout.ImagePartRecord(key)); err == nil && r != nil {
		p.Total = r.Total
	}
	p.Pull, _ = s.readTransfer(key)
	return p
}

// orNone is a list that is never null in JSON.
func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// isTemp tells of what a fetch that was killed left behind, and of which image.
func isTemp(name string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(filepath.Base(name), tempPrefix)
	if !ok {
		return "", false
	}
	i := strings.LastIndexByte(rest, '-')
	if i < 0 {
		return "", false
	}
	return rest[:i], true
}
