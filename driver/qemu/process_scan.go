package qemu

import (
	"strings"
	"sync"
)

// scanner looks for processes by uuid. Looking reads the command line of every
// process of the host, so callers that come at the same time share one look: each
// gets the answer of a look that began after it asked, and no older one.
type scanner struct {
	proc procfs

	running sync.Mutex
	mu      sync.Mutex
	next    *scan // not begun yet; whoever comes may wait for it
}

// scan is one look.
type scan struct {
	done  chan struct{}
	found map[string][]seen
	err   error
}

// find returns the processes that have uid on their command line.
func (s *scanner) find(uid string) ([]seen, error) {
	done := s.look()
	return done.found[strings.ToLower(uid)], done.err
}

// look joins the next scan, or does it.
func (s *scanner) look() *scan {
	s.mu.Lock()
	if next := s.next; next != nil {
		s.mu.Unlock()
		<-next.done
		return next
	}
	mine := &scan{done: make(chan struct{})}
	s.next = mine
	s.mu.Unlock()

	s.running.Lock()
	defer s.running.Unlock()
	s.mu.Lock()
	s.next = nil // from here on it is too late to join
	s.mu.Unlock()
	mine.found, mine.err = s.proc.guests()
	close(mine.done)
	return mine
}
