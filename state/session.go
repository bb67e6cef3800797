package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maqet/maqet/internal/filelock"
)

// sessionLife is how long an opening takes in further updates. It is closed as
// soon as those are done, so that other processes have their turn.
const sessionLife = 20 * time.Millisecond

// session is one opening of the database for writing. The updates of this
// process that come while it is open share it and take turns; the last one
// closes it.
type session struct {
	// Guarded by the store's mutex.
	users   int
	opened  bool
	retired bool // takes nobody in any more
	expires time.Time

	ready chan struct{} // closed when open
	done  chan struct{} // closed when closed, or when opening failed
	turns chan struct{} // holds one value while an update runs

	// Set before ready closes, then used only by the update whose turn it is.
	lock     *filelock.Lock
	bolt     *bolt
	contents *contents
	failed   bool // a commit failed: the contents are no longer known
}

// role is what a goroutine has to do with a session.
type role int

const (
	opens  role = iota // makes it ready for all
	shares             // waits until it is ready
	waits              // waits until it is over
)

// errSessionFailed sends an update to the next session.
var errSessionFailed = errors.New("the commit before failed")

// enter joins the open session or opens one. The caller must leave it.
func (s *Store) enter(ctx context.Context) (*session, error) {
	for {
		ses, role := s.join()
		switch role {
		case opens:
			return ses, s.open(ctx, ses)
		case waits:
			select {
			case <-ses.done:
			case <-ctx.Done():
				return nil, queueError(ctx)
			}
		case shares:
			select {
			case <-ses.ready:
				return ses, nil
			case <-ses.done: // It did not open, for reasons that may be the opener's own.
			case <-ctx.Done():
				s.leave(ses)
				return nil, queueError(ctx)
			}
		}
	}
}

func queueError(ctx context.Context) error {
	return fmt.Errorf("wait for the other writers of this process: %w", ctx.Err())
}

// join finds the goroutine's role in the current session.
func (s *Store) join() (*session, role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.session
	if ses == nil {
		s.session = &session{
			users: 1,
			ready: make(chan struct{}),
			done:  make(chan struct{}),
			turns: make(chan struct{}, 1),
		}
		return s.session, opens
	}
	if ses.opened && time.Now().After(ses.expires) {
		ses.retired = true
	}
	if ses.retired {
		return ses, waits
	}
	ses.users++
	return ses, shares
}

// open makes a session ready, or discards it.
func (s *Store) open(ctx context.Context, ses *session) error {
	err := s.openDatabase(ctx, ses)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.session = nil
		close(ses.done)
		return err
	}
	ses.opened = true
	ses.expires = time.Now().Add(sessionLife)
	close(ses.ready)
	return nil
}

// leave ends a goroutine's part in a session; the last one closes it.
func (s *Store) leave(ses *session) {
	s.mu.Lock()
	ses.users--
	last := ses.opened && ses.users == 0
	ses.retired = ses.retired || last
	s.mu.Unlock()
	if !last {
		return
	}
	if err := ses.close(); err != nil {
		// What was committed is safe; only the closing went wrong.
		s.cfg.Log.Error("closing the database failed", "path", s.cfg.Path, "err", err)
	}
	s.mu.Lock()
	s.session = nil
	s.mu.Unlock()
	close(ses.done)
}

// retire keeps further updates out of a session.
func (s *Store) retire(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses.retired = true
}

// turn waits until no other update runs in the session.
func (ses *session) turn(ctx context.Context) error {
	select {
	case ses.turns <- struct{}{}:
	case <-ctx.Done():
		return queueError(ctx)
	}
	if ses.failed {
		ses.next()
		return errSessionFailed
	}
	return nil
}

// next ends a turn.
func (ses *session) next() { <-ses.turns }

// commit writes what an update changed, and the inventory with it.
func (ses *session) commit(changes map[place][]byte) error {
	if len(changes) == 0 {
		return nil
	}
	c := ses.contents
	for at, envelope := range changes {
		if envelope == nil {
			c.drop(at)
		} else {
			c.add(at, envelope)
		}
	}
	envelope, err := seal(inventoryPlace(), c.inventory)
	if err == nil {
		changes[inventoryPlace()] = envelope
		err = ses.bolt.write(changes)
	}
	ses.failed = err != nil
	return err
}

// close closes the database, and only then lets go of the lock.
func (ses *session) close() error {
	return errors.Join(ses.bolt.close(), ses.lock.Unlock())
}
