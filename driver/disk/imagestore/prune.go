package imagestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/maqet/maqet/driver/disk"
	"github.com/maqet/maqet/internal/durable"
	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/layout"
)

// PruneOptions are what a prune may do.
type PruneOptions struct {
	// All removes images too that an Image object names and no disk reads from.
	All bool
	// DryRun removes nothing.
	DryRun bool
}

// Pruned is what became of one image, or would.
type Pruned struct {
	Digest string `json:"digest"`
	// What is "image", "part", or "leftover" of a fetch that was killed.
	What  string `json:"what"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	// Removed tells that it is removed, or would be; Why is why, or why not.
	Removed bool   `json:"removed"`
	Why     string `json:"why"`
	// Err is why it could not be removed.
	Err error `json:"-"`
}

// Prune removes images that nothing reads from: no disk of a machine, no kept disk,
// no snapshot, which lies in such a disk, and no running process. Those that an
// Image object names stay unless all are to go.
func (s *Store) Prune(ctx context.Context, known Known, opt PruneOptions) ([]Pruned, error) {
	list, err := s.List(ctx, known)
	if err != nil {
		return nil, err
	}
	var done []Pruned
	for _, one := range list.Images {
		p := Pruned{Digest: one.Digest, What: "image", Path: one.Path, Bytes: one.Stored}
		s.judge(&p, one, opt)
		if p.Removed && !opt.DryRun {
			s.removeImage(ctx, &p, known)
		}
		done = append(done, p)
	}
	for _, one := range list.Parts {
		p := Pruned{Digest: one.Digest, What: "part", Path: one.Path, Bytes: one.Bytes}
		switch {
		case one.Pull != nil:
			p.Why = "it is being fetched by " + one.Pull.Who
		case len(one.Names) > 0 && !opt.All:
			p.Why = namedBy(one.Names)
		default:
			p.Removed, p.Why = true, "nobody fetches it"
		}
		if p.Removed && !opt.DryRun {
			s.removePart(&p)
		}
		done = append(done, p)
	}
	left, err := s.leftovers(opt)
	return append(done, left...), err
}

func namedBy(names []string) string {
	return "named by img/" + strings.Join(names, ", img/") + "; --all removes it all the same"
}

// judge says what is to become of an image.
func (s *Store) judge(p *Pruned, one Stored, opt PruneOptions) {
	switch {
	case len(one.Users) > 0:
		p.Why = "read by " + strings.Join(one.Users, ", ")
	case len(one.Names) > 0 && !opt.All:
		p.Why = namedBy(one.Names)
	default:
		p.Removed, p.Why = true, "nothing reads from it"
	}
}

// removeImage removes an image, under the lock that whoever makes a disk of it
// holds, and after looking once more.
func (s *Store) removeImage(ctx context.Context, p *Pruned, known Known) {
	key := layout.ImageKey(p.Digest)
	lock, err := s.lockImage(ctx, key)
	if err != nil {
		p.Removed, p.Err = false, err
		return
	}
	defer func() { _ = lock.Unlock() }()
	// A disk that is moved, by a delete say, may be missed by one look: not by two.
	for range 2 {
		users, err := s.users(known)
		if err != nil {
			p.Removed, p.Err = false, err
			return
		}
		if len(users[p.Digest]) > 0 {
			p.Removed, p.Why = false, "read by "+strings.Join(users[p.Digest], ", ")
			return
		}
	}
	if open := disk.Holders(p.Path); len(open) > 0 {
		p.Removed, p.Why = false, "opened by "+disk.HolderWords(open)
		return
	}
	// Without the image its record says nothing, so that a removal that is cut off
	// leaves no image that is half there.
	err = errors.Join(remove(p.Path), remove(s.cfg.Layout.ImageRecord(key)), durable.SyncDir(s.cfg.Layout.ImageDir()))
	if err != nil {
		p.Removed, p.Err = false, err
		return
	}
	s.log.InfoContext(ctx, "image removed", "digest", p.Digest, "path", p.Path)
}

// removePart removes a part that nobody works on.
func (s *Store) removePart(p *Pruned) {
	key := layout.ImageKey(p.Digest)
	lock, err := s.cfg.Locks.TryLock(s.cfg.Layout.ImageLock(key))
	if errors.Is(err, filelock.ErrHeld) {
		p.Removed, p.Why = false, "it is being fetched"
		return
	}
	if err != nil {
		p.Removed, p.Err = false, err
		return
	}
	defer func() { _ = lock.Unlock() }()
	if err := errors.Join(remove(p.Path), remove(s.cfg.Layout.ImagePartRecord(key)), remove(s.cfg.Layout.Transfer(key))); err != nil {
		p.Removed, p.Err = false, err
	}
}

// leftovers removes what fetches that were killed left behind.
func (s *Store) leftovers(opt PruneOptions) ([]Pruned, error) {
	entries, err := os.ReadDir(s.cfg.Layout.ImageDir())
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("list the folder of images: %w", err)
	}
	var done []Pruned
	for _, e := range entries {
		key, ok := isTemp(e.Name())
		if !ok {
			continue
		}
		p := Pruned{What: "leftover", Path: filepath.Join(s.cfg.Layout.ImageDir(), e.Name()), Removed: true, Why: "its fetch was cut off"}
		p.Digest, _ = layout.ImageDigest(key)
		if info, err := e.Info(); err == nil {
			p.Bytes = stored(info)
		}
		lock, err := s.cfg.Locks.TryLock(s.cfg.Layout.ImageLock(key))
		if err != nil {
			continue // It is being made just now.
		}
		if !opt.DryRun {
			if p.Err = remove(p.Path); p.Err != nil {
				p.Removed = false
			}
		}
		_ = lock.Unlock()
		done = append(done, p)
	}
	return done, nil
}
