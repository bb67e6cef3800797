package imagestore

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maqet/maqet/driver"
	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
	"github.com/maqet/maqet/internal/slowfs"
	"github.com/maqet/maqet/internal/timing"
	"github.com/maqet/maqet/manifest"
)

const (
	// defaultMaxSize is the most that a source may have, and an image unpacked.
	defaultMaxSize = 1 << 40
	// reserve is what stays free on the filesystem.
	reserve = 64 << 20
	// maxPulls is how many images one process fetches at once.
	maxPulls = 4
)

// Config is what a Store works with.
type Config struct {
	// Layout names every file.
	Layout layout.Layout
	// Timing limits every wait (Stall, Pull, Lock, Image, Backoff).
	Timing timing.Table
	// Locks are shared by everything in this process that locks.
	Locks *filelock.Manager
	// Images asks qemu-img.
	Images *disk.Images
	// Transport fetches URLs; nil is net/http's own, which heeds the proxies of the
	// environment.
	Transport http.RoundTripper
	// MaxSize is the most bytes that a source may have, packed or unpacked. 0: 1 TiB.
	MaxSize int64
	// Who is shown to others who want the same image, such as "apply (pid 4711, ann)".
	Who string
	// Log receives what was done; nil discards it.
	Log *slog.Logger
}

// Store keeps images. Its methods may be called from any number of goroutines.
type Store struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{}
	files *slowfs.Files
	// free tells how many bytes may still be written below a folder.
	free func(dir string) (int64, error)
}

// New returns a Store. It looks at nothing yet.
func New(cfg Config) *Store {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	if cfg.Transport == nil {
		cfg.Transport = defaultTransport()
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, log: log, slots: make(chan struct{}, maxPulls), files: slowfs.New(cfg.Timing.File), free: freeBytes}
}

// freeBytes asks the filesystem for what an unprivileged user may still write.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * fs.Bsize, nil //nolint:gosec // no filesystem has 8 EiB
}

// Look says what is there of an image, by looking at files alone.
func (s *Store) Look(spec manifest.ImageSpec) driver.ImageState {
	state := driver.ImageState{Digest: spec.Digest()}
	if state.Digest == "" {
		src, err := s.readSource(spec.Source)
		if err != nil {
			state.Err, state.Hint = err.Error(), "remove that file; the image is then taken anew"
			return state
		}
		if src != nil {
			state.Digest, state.Changed = src.Digest, !src.isOf(s.files, spec.Source)
		}
	}
	if state.Digest != "" {
		s.lookStored(spec, &state)
	}
	if !state.Present {
		state.Pull, state.Failed = s.readTransfer(s.lockKey(spec))
	}
	return state
}

// lookStored fills in what is known of the stored image of state's digest.
func (s *Store) lookStored(spec manifest.ImageSpec, state *driver.ImageState) {
	key := layout.ImageKey(state.Digest)
	r, err := s.readStored(key)
	switch {
	case err != nil:
		state.Err, state.Hint = err.Error(), "remove that file; the image is then fetched anew"
		return
	case r == nil:
		return
	}
	path := s.cfg.Layout.Image(key, r.Format)
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		state.Err, state.Hint = err.Error(), "make it readable to the user maqet runs as"
		return
	case st.Size() != r.Bytes:
		state.Err = fmt.Sprintf("%s has %d bytes, and had %d when it was stored: somebody has changed it", path, st.Size(), r.Bytes)
		state.Hint = "move it away; the image is then fetched anew, and disks made of it may be damaged"
		return
	case r.Format != string(spec.Format):
		state.Err = fmt.Sprintf("the image %s is %s, not %s", manifest.ShortDigest(state.Digest), r.Format, spec.Format)
		state.Hint = "correct the format of the Image object"
		return
	}
	state.Present, state.Path, state.Format, state.Size, state.Stored = true, path, r.Format, r.Size, stored(st)
}

// newHash is the hash that a digest is of; sha256 for none.
func newHash(digest string) hash.Hash {
	if strings.HasPrefix(digest, manifest.SHA512+":") {
		return sha512.New()
	}
	return sha256.New()
}

// sumOf is a hash's digest in the form of the wanted one.
func sumOf(h hash.Hash) string {
	name := manifest.SHA256
	if h.Size() == sha512.Size {
		name = manifest.SHA512
	}
	return name + ":" + hex.EncodeToString(h.Sum(nil))
}

// lockKey is what one at a time works on: an image, or a file without a digest.
func (s *Store) lockKey(spec manifest.ImageSpec) string {
	if d := spec.Digest(); d != "" {
		return layout.ImageKey(d)
	}
	return "file-" + sourceKey(spec.Source)
}

// now is the clock of what is shown to people.
func now() time.Time { return time.Now().UTC() }
