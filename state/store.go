package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/maqet/maqet/internal/filelock"
	"github.com/maqet/maqet/internal/timing"
)

// Config is what a store needs. Path and LockPath are required.
type Config struct {
	// Path is the database file. Its folder must exist before the first Update.
	Path string
	// LockPath is the lock file that every process takes before it opens the database.
	LockPath string
	// Locks takes the lock. Nil: a manager of the store's own.
	Locks *filelock.Manager
	// Timing bounds the waiting by its Lock. Zero: the default table.
	Timing timing.Table
	// Log hears of damage. Nil: nobody does, but the transactions still warn.
	Log *slog.Logger
}

// Store is the database of one state dir. It may be used by any number of
// goroutines, and beside it by any number of other processes.
type Store struct {
	cfg Config

	mu      sync.Mutex
	session *session // the shared opening for writing; nil when idle
	closed  bool
	running sync.WaitGroup
	said    map[string]bool // warnings that were logged already
	recent  *recent         // what the last View read; nil before
}

// New is a store that has opened nothing yet.
func New(cfg Config) *Store {
	if cfg.Locks == nil {
		cfg.Locks = filelock.New()
	}
	if cfg.Timing.Lock <= 0 {
		cfg.Timing = timing.Default()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, said: map[string]bool{}}
}

// View calls fn with everything that was remembered at one moment. It writes
// nothing, not even a database that is missing: that one is empty. It does not
// wait for writers, and writers do not wait for fn.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	if err := s.begin(); err != nil {
		return s.fail("read", err)
	}
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Lock)
	defer cancel()
	c, err := s.look(ctx)
	if err != nil {
		return s.fail("read", err)
	}
	s.say(c.warnings)
	return fn(newTx(c, false))
}

// Update calls fn with everything that is remembered, and remembers what fn
// puts and deletes, all of it or, when fn or writing fails, none. Updates
// happen one after the other over all processes: fn must be brief, and must
// not use the store itself.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := s.begin(); err != nil {
		return s.fail("write", err)
	}
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Lock)
	defer cancel()
	for {
		ses, err := s.enter(ctx)
		if err != nil {
			return s.fail("write", err)
		}
		if err := s.updateIn(ctx, ses, fn); !errors.Is(err, errSessionFailed) {
			return err
		}
	}
}

// updateIn runs an update in a session and leaves it.
func (s *Store) updateIn(ctx context.Context, ses *session, fn func(*Tx) error) error {
	defer s.leave(ses)
	if err := ses.turn(ctx); err != nil {
		return s.fail("write", err)
	}
	defer ses.next()
	s.say(ses.contents.warnings)
	tx := newTx(ses.contents, true)
	if err := fn(tx); err != nil {
		return err
	}
	if err := ses.commit(tx.changed()); err != nil {
		s.retire(ses)
		return s.fail("write", err)
	}
	return nil
}

// Close waits for the transactions that run and refuses further ones.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// begin counts a transaction as running.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.running.Add(1)
	return nil
}

// fail says what was tried on the database and what to do about the cause.
func (s *Store) fail(op string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return &Error{Op: op, Object: "database " + s.cfg.Path, Err: err, Hint: hint(err, s.cfg.Path)}
}

// hint is the remedy for what may befall the database file.
func hint(err error, path string) string {
	var held *filelock.HeldError
	switch {
	case errors.As(err, &held):
		return "" // says it itself
	case errors.Is(err, context.DeadlineExceeded):
		return "other writers of this process are slow; allow more time with --timeouts lock=DURATION"
	case errors.Is(err, bbolterrors.ErrTimeout), errors.Is(err, errChanged):
		return "another program has the database open, perhaps a maqet with the same state dir and another run dir; end it, or use one run dir"
	case errors.Is(err, ErrNewer):
		return "use the maqet that wrote it, or a newer one; nothing was changed"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Sprintf("free some space on the file system of %s; what was remembered before is unchanged", path)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "run maqet as the user who owns the state dir, or choose another with --state-dir"
	case errors.Is(err, syscall.EROFS):
		return "the file system is mounted read-only; remount it, or choose another state dir with --state-dir"
	case errors.Is(err, syscall.ENOENT):
		return "the state dir is missing; create it with mode 0700, or choose another with --state-dir"
	default:
		return ""
	}
}

// say logs each warning once in the life of the store.
func (s *Store) say(warnings []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range warnings {
		if text := w.Error(); !s.said[text] {
			s.said[text] = true
			s.cfg.Log.Warn("state is damaged", "path", s.cfg.Path, "err", w)
		}
	}
}
