package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// stdinPath is the path that means standard input, and stdinName what positions
// call it.
const (
	stdinPath = "-"
	stdinName = "<stdin>"
)

// source is one file to be read.
type source struct {
	name string // as positions call it: the path as given
	path string // what is opened; stdinPath for standard input
	dir  string // absolute folder that relative paths in it resolve against
}

// listing is what the given paths turned out to be.
type listing struct {
	sources []source
	roots   []string
	faults  Errors
	looked  []string // what was looked at below the roots, and the roots; see Survey
	folders []string // the folders whose names were read
}

// fileID recognises a file or folder that is reached on two ways.
type fileID struct{ dev, ino uint64 }

// lister collects sources. Every file is listed once, however often it is reached.
type lister struct {
	listing
	files map[fileID]bool
	seen  map[fileID]bool // folders
	stdin bool
}

func newLister() *lister {
	return &lister{files: map[fileID]bool{}, seen: map[fileID]bool{}}
}

// listSources finds the files behind paths: in the order given, folders in the
// order of their names.
func listSources(ctx context.Context, paths []string) (listing, error) {
	l := newLister()
	cwd, err := os.Getwd()
	if err != nil {
		return listing{}, fmt.Errorf("find the working directory: %w", err)
	}
	for _, path := range paths {
		if path == stdinPath {
			l.addStdin(cwd)
			continue
		}
		root := absolute(path, cwd)
		if path == "" {
			l.fault("", "a path must not be empty", "name a file, a folder, or - for standard input", nil)
			continue
		}
		if !slices.Contains(l.roots, root) {
			l.roots = append(l.roots, root)
		}
		if err := l.given(ctx, filepath.Clean(path), root); err != nil {
			return listing{}, err
		}
	}
	return l.listing, nil
}

func (l *lister) addStdin(cwd string) {
	if l.stdin {
		return
	}
	l.stdin = true
	l.roots = append(l.roots, stdinPath)
	l.sources = append(l.sources, source{name: stdinName, path: stdinPath, dir: cwd})
}

func (l *lister) fault(name, msg, hint string, err error) {
	l.faults = append(l.faults, &Error{Position: Position{File: name}, Msg: msg, Hint: hint, Err: err})
}

// given lists a path a person named: a file is read whatever its extension.
func (l *lister) given(ctx context.Context, name, path string) error {
	l.looked = append(l.looked, path)
	info, err := os.Stat(path)
	if err != nil {
		hint := "check the path; nothing is deleted because of a path that cannot be read"
		l.fault(name, "cannot be read", hint, pathCause(err))
		return nil
	}
	if info.IsDir() {
		return l.folder(ctx, &ignores{}, nil, name, path, info)
	}
	l.file(name, path, info)
	return nil
}

func (l *lister) file(name, path string, info fs.FileInfo) {
	if id, ok := idOf(info); ok && info.Mode().IsRegular() {
		if l.files[id] {
			return
		}
		l.files[id] = true
	}
	l.sources = append(l.sources, source{name: name, path: path, dir: filepath.Dir(path)})
}

// folder lists one folder and those below it. rel is the way from the root.
func (l *lister) folder(ctx context.Context, ign *ignores, rel []string, name, path string, info fs.FileInfo) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if id, ok := idOf(info); ok {
		if l.seen[id] {
			return nil
		}
		l.seen[id] = true
	}
	l.looked = append(l.looked, filepath.Join(path, ignoreFile))
	l.folders = append(l.folders, path)
	entries, err := os.ReadDir(path)
	if err != nil {
		l.fault(name, "the folder cannot be read", "make it readable; nothing is deleted because of a folder that cannot be read", pathCause(err))
		return nil
	}
	ign, faults := ign.with(rel, name, path)
	l.faults = append(l.faults, faults...)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if err := l.entry(ctx, ign, rel, name, path, entry); err != nil {
			return err
		}
	}
	return nil
}

// entry lists one name in a folder, following symbolic links.
func (l *lister) entry(ctx context.Context, ign *ignores, rel []string, folder, folderPath string, entry fs.DirEntry) error {
	name, path := filepath.Join(folder, entry.Name()), filepath.Join(folderPath, entry.Name())
	rel = append(slices.Clip(rel), entry.Name())
	if ign.match(rel, entry.IsDir()) {
		return nil
	}
	wanted := isManifestName(entry.Name())
	if entry.Type().IsRegular() && !wanted {
		return nil
	}
	l.looked = append(l.looked, path)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		// A link that leads nowhere may have led to a folder of manifests on a
		// filesystem that is not mounted now, whatever it is called.
		l.fault(name, "cannot be read", "repair or remove it, or list it in "+ignoreFile, pathCause(err))
	case info.IsDir():
		if entry.Type()&fs.ModeSymlink != 0 && ign.match(rel, true) {
			return nil
		}
		return l.folder(ctx, ign, rel, name, path, info)
	case !wanted:
	case !info.Mode().IsRegular():
		l.fault(name, "is no regular file", "remove it, or list it in "+ignoreFile, nil)
	default:
		l.file(name, path, info)
	}
	return nil
}

// isManifestName is true for the names that are read in a folder.
func isManifestName(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	default:
		return false
	}
}

func idOf(info fs.FileInfo) (fileID, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, false
	}
	return fileID{st.Dev, st.Ino}, true
}

// pathCause leaves the path out of an error that already names its file.
func pathCause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// read gives the text of the source, at most max bytes of it.
func (s source) read(ctx context.Context, opt LoadOptions) ([]byte, error) {
	if s.path == stdinPath {
		if opt.Stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		return readUntil(ctx, opt.Stdin, opt.MaxFile)
	}
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, pathCause(err)
	}
	if info.Mode().IsRegular() {
		return readRegular(s.path, info.Size(), opt.MaxFile)
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, pathCause(err)
	}
	defer func() { _ = f.Close() }() // only read from
	return readUntil(ctx, f, opt.MaxFile)
}

func readRegular(path string, size, most int64) ([]byte, error) {
	if size > most {
		return nil, tooLarge(most)
	}
	f, err := os.Open(path) //nolint:gosec // reading the files a person names is what this package is for.
	if err != nil {
		return nil, pathCause(err)
	}
	defer func() { _ = f.Close() }() // only read from
	var buf bytes.Buffer
	buf.Grow(int(size) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(f, most+1)); err != nil {
		return nil, pathCause(err)
	}
	if int64(buf.Len()) > most {
		return nil, tooLarge(most)
	}
	return buf.Bytes(), nil
}

// readUntil reads what may block for ever, such as a terminal or a pipe, in a
// goroutine of its own, so that the end of ctx is heeded. The goroutine then
// ends with the next thing it reads.
func readUntil(ctx context.Context, r io.Reader, most int64) ([]byte, error) {
	type answer struct {
		text []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(r, most+1))
		done <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a := <-done:
		if a.err == nil && int64(len(a.text)) > most {
			return nil, tooLarge(most)
		}
		return a.text, a.err
	}
}

func tooLarge(most int64) error {
	return fmt.Errorf("larger than %s, the most a manifest may be", Quantity(most))
}
