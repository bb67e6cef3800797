package folder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/maqet/maqet/manifest"
)

// coarsest is the granularity of the times of change that filesystems keep, at
// worst: what changed this recently may change again without showing it.
const coarsest = 2 * time.Second

// fileID recognises a file or folder whatever it is called.
type fileID struct{ dev, ino uint64 }

// view is what one look found.
type view struct {
	places map[string]*place
	// print differs when anything differs that Load could notice, but for an edit
	// that changes neither size nor times.
	print [sha256.Size]byte
	// fresh is true when something changed so recently that another such edit may
	// be hidden.
	fresh bool
}

// look finds what decides about the content of paths, and the ways there.
func look(ctx context.Context, paths []string) (*view, error) {
	survey, err := manifest.Look(ctx, paths)
	if err != nil {
		return nil, err
	}
	v, w, sum, now := &view{}, newWays(), sha256.New(), time.Now()
	for _, path := range survey.Looked {
		w.follow(path)
		v.addState(sum, path, now)
	}
	for _, path := range survey.Folders {
		if at, ok := w.follow(path); ok {
			w.place(at).listed = true
		}
	}
	for _, fault := range survey.Faults {
		_, _ = fmt.Fprintf(sum, "%q\n", fault.Error()) // a hash takes everything
	}
	v.places = w.places
	sum.Sum(v.print[:0])
	return v, nil
}

// addState takes what is at path into the fingerprint. The size and the times of
// a folder change with names that do not matter.
func (v *view) addState(sum hash.Hash, path string, now time.Time) {
	_, _ = fmt.Fprintf(sum, "%q ", path)
	info, err := os.Stat(path)
	if err != nil {
		_, _ = fmt.Fprintf(sum, "%q\n", cause(err))
		return
	}
	id, changed := stateOf(info)
	_, _ = fmt.Fprintf(sum, "%d %d %o", id.dev, id.ino, info.Mode())
	if !info.IsDir() {
		_, _ = fmt.Fprintf(sum, " %d %d %d", info.Size(), info.ModTime().UnixNano(), changed.UnixNano())
		v.fresh = v.fresh || now.Sub(changed).Abs() < coarsest
	}
	_, _ = fmt.Fprintln(sum)
}

// stateOf gives the identity of a file and when its inode last changed.
func stateOf(info fs.FileInfo) (fileID, time.Time) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, info.ModTime()
	}
	return fileID{st.Dev, st.Ino}, time.Unix(st.Ctim.Unix())
}

// idOf is the identity of what is at path, which is false for nothing.
func idOf(path string) (fileID, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{}, false
	}
	id, _ := stateOf(info)
	return id, true
}

// cause leaves out the path of an error.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
