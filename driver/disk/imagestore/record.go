package imagestore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/manifest"
)

// recordVersion is the format of the records that this maqet writes.
const recordVersion = 1

// storedRecord is what is known of a stored image, beside it.
type storedRecord struct {
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	// Format is the image's, Size what a guest sees, Bytes what the file has.
	Format string `json:"format"`
	Size   int64  `json:"size"`
	Bytes  int64  `json:"bytes"`
	// Source is where it came from, as it may be shown.
	Source string    `json:"source"`
	Taken  time.Time `json:"taken"`
}

// sourceRecord remembers which image a file without a digest was taken as.
type sourceRecord struct {
	Version int       `json:"version"`
	Path    string    `json:"path"`
	Digest  string    `json:"digest"`
	File    fileState `json:"file"`
}

// partRecord is what is needed to go on with a fetch.
type partRecord struct {
	Version int `json:"version"`
	// URL is the digest of the URL, which may hold a secret.
	URL string `json:"url"`
	// Tag is the server's ETag, if it is a strong one, else its Last-Modified:
	// what tells the server which version the part is of. May be empty.
	Tag string `json:"tag,omitempty"`
	// Total is the whole size; 0 when the server did not say.
	Total int64 `json:"total,omitempty"`
}

// fileState is what changes whenever a file's content does.
type fileState struct {
	Dev   uint64    `json:"dev"`
	Ino   uint64    `json:"ino"`
	Size  int64     `json:"size"`
	Mtime time.Time `json:"mtime"`
	Ctime time.Time `json:"ctime"`
}

func stateOf(info fs.FileInfo) fileState {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileState{Size: info.Size(), Mtime: info.ModTime().UTC()}
	}
	return fileState{
		Dev: st.Dev, Ino: st.Ino, Size: st.Size,
		Mtime: time.Unix(st.Mtim.Unix()).UTC(), Ctime: time.Unix(st.Ctim.Unix()).UTC(),
	}
}

// isOf tells whether the file is as it was when it was taken. A file that cannot
// be looked at has not been seen to change.
func (r *sourceRecord) isOf(files *slowfs.Files, path string) bool {
	info, err := files.StatInTime(path)
	return err != nil || stateOf(info) == r.File
}

// stored is how many bytes of the filesystem a file takes.
func stored(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		const block = 512
		return st.Blocks * block
	}
	return info.Size()
}

// sourceKey stands for the path of a file without a digest.
func sourceKey(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

func (s *Store) readStored(key string) (*storedRecord, error) {
	path := s.cfg.Layout.ImageRecord(key)
	r, err := read[storedRecord](path)
	switch {
	case err != nil || r == nil:
		return nil, err
	case r.Version > recordVersion:
		return nil, newer(path, r.Version)
	case layout.ImageKey(r.Digest) != key || r.Format != string(manifest.FormatQcow2) && r.Format != string(manifest.FormatRaw):
		return nil, fmt.Errorf("%s: it is no record of this image", path)
	default:
		return r, nil
	}
}

func (s *Store) readSource(source string) (*sourceRecord, error) {
	path := s.cfg.Layout.ImageSource(sourceKey(source))
	r, err := read[sourceRecord](path)
	switch {
	case err != nil || r == nil:
		return nil, err
	case r.Version > recordVersion:
		return nil, newer(path, r.Version)
	}
	if _, ok := layout.ImageDigest(layout.ImageKey(r.Digest)); !ok || r.Path != source {
		return nil, fmt.Errorf("%s: it is no record of this file", path)
	}
	return r, nil
}

func newer(path string, version int) error {
	return fmt.Errorf("%s: it has format %d, and this maqet knows formats up to %d; use the newer maqet that wrote it", path, version, recordVersion)
}

// read reads a record; nil when there is none.
func read[T any](path string) (*T, error) {
	text, err := os.ReadFile(path) //nolint:gosec // a file of the layout.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no record is an answer of its own
	}
	if err != nil {
		return nil, err
	}
	record := new(T)
	if err := json.Unmarshal(text, record); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return record, nil
}

// write writes a record, which lasts from then on.
func write(path string, record any) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return durable.WriteFile(path, append(text, '\n'), 0)
}
