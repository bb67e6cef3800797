package folder

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symbolic links one path may lead through, as in Linux.
const maxLinks = 40

// place is a real folder that is to be watched.
type place struct {
	names  map[string]bool // names in it whose fate decides
	listed bool            // a new name in it may be a manifest
}

// ways collects the places that paths lead through. Its keys hold no symbolic
// link.
type ways struct {
	places map[string]*place
	real   map[string]string // folders that were reached, as named, and where they really are
}

func newWays() *ways {
	return &ways{places: map[string]*place{}, real: map[string]string{}}
}

func (w *ways) place(dir string) *place {
	p := w.places[dir]
	if p == nil {
		p = &place{names: map[string]bool{}}
		w.places[dir] = p
	}
	return p
}

// follow walks to path, which is absolute, and notes each folder and name on the
// way, up to the first that is missing. It is true with the real path when there
// is a folder at the end.
func (w *ways) follow(path string) (string, bool) {
	if at, ok := w.real[path]; ok {
		return at, true
	}
	at, rest := "/", split(path)
	if known, ok := w.real[filepath.Dir(path)]; ok {
		at, rest = known, []string{filepath.Base(path)}
	}
	links := 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		w.place(at).names[name] = true
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return "", false
		case info.IsDir():
			at = next
		case info.Mode()&fs.ModeSymlink == 0:
			return "", false
		default:
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return "", false
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(split(target), rest...)
		}
	}
	w.real[path] = at
	return at, true
}

// split gives the names of a path; ".." stays, for it means the parent of where
// a link has led to.
func split(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
