package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/maqet/maqet/internal/durable"
)

// errChanged tells that somebody wrote to the database without the lock.
var errChanged = errors.New("another program writes to it without maqet's lock")

// openDatabase takes the lock and opens the database for a session.
func (s *Store) openDatabase(ctx context.Context, ses *session) (err error) {
	lock, err := s.cfg.Locks.Lock(ctx, s.cfg.LockPath)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	ses.lock = lock
	var damage []error
	// A new or renewed file is read again, and so is one that a program without
	// the lock wrote to just now. Nothing needs more rounds.
	const rounds = 4
	for range rounds {
		c, err := s.prepare()
		if err != nil {
			return err
		}
		damage = append(damage, c.damage...)
		if c.metas == nil || len(c.damage) > 0 {
			if err := s.renew(c); err != nil {
				return err
			}
			continue
		}
		b, err := s.openPrepared(ctx, c)
		if errors.Is(err, errChanged) {
			continue
		}
		if err != nil {
			return err
		}
		ses.bolt, ses.contents = b, c
		c.damage = nil
		c.warnings = slices.Concat(damageWarnings(damage), c.warnings)
		return nil
	}
	return errChanged
}

// prepare reads and checks the database. What is missing is empty, without
// meta pages.
func (s *Store) prepare() (*contents, error) {
	data, _, err := readDatabase(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty(), nil
	}
	if err != nil {
		return nil, err
	}
	return examine(data)
}

// openPrepared opens the database that c was read from. bbolt's own lock keeps
// programs out that do not know maqet's, so what they wrote before shows here.
func (s *Store) openPrepared(ctx context.Context, c *contents) (*bolt, error) {
	patience := s.cfg.Timing.Lock
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(time.Until(deadline), time.Millisecond)
	}
	b, err := openBolt(s.cfg.Path, 0, patience)
	if err != nil {
		return nil, err
	}
	same, err := sameMetas(b.file, c.metas)
	if err == nil && !same {
		err = errChanged
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// renew makes a new database of the sound records of c. When there was a
// damaged one, it is set aside beside the new one, under a name that says when.
// The old file is in place until the new one is complete.
func (s *Store) renew(c *contents) error {
	folder := filepath.Dir(s.cfg.Path)
	now := time.Now().UTC()
	aside := s.cfg.Path + ".damaged-" + now.Format("20060102T150405.000000000Z")
	if len(c.damage) > 0 {
		if err := c.quarantine(now, filepath.Base(aside)); err != nil {
			return err
		}
	}
	fresh := filepath.Join(folder, "."+filepath.Base(s.cfg.Path)+"."+rand.Text()+".tmp")
	if err := s.build(fresh, c); err != nil {
		return errors.Join(err, removeAny(fresh))
	}
	if len(c.damage) > 0 {
		if err := os.Link(s.cfg.Path, aside); err != nil {
			return errors.Join(fmt.Errorf("set the damaged database aside: %w", err), removeAny(fresh))
		}
	}
	if err := os.Rename(fresh, s.cfg.Path); err != nil {
		return errors.Join(err, removeAny(fresh))
	}
	for _, d := range c.damage {
		s.cfg.Log.Error("the database is damaged; a new one keeps its sound records",
			"path", s.cfg.Path, "aside", aside, "kept", len(c.records), "err", d)
	}
	return durable.SyncDir(folder)
}

// build writes a new database file.
func (s *Store) build(path string, c *contents) (err error) {
	b, err := openBolt(path, os.O_CREATE|os.O_EXCL, s.cfg.Timing.Lock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	all := make(map[place][]byte, len(c.records)+1)
	maps.Copy(all, c.records)
	if all[inventoryPlace()], err = seal(inventoryPlace(), c.inventory); err != nil {
		return err
	}
	return b.write(all)
}

// removeAny removes a file that may not be there.
func removeAny(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
