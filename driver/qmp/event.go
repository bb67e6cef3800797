package qmp

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"
)

// Event is something QEMU reported unasked.
type Event struct {
	// Name is QEMU's name of the event, such as SHUTDOWN.
	Name string
	// Data is left as it was sent, so that 64-bit integers keep every digit.
	// It is nil when the event carries none.
	Data json.RawMessage
	// Timestamp is QEMU's clock, not ours.
	Timestamp time.Time
}

// ring is a bounded queue whose writer never waits: when it is full, the oldest
// value goes. It has one writer at a time (its hub's lock sees to that) and any
// number of readers.
type ring[T any] struct {
	ch      chan T
	dropped atomic.Uint64
}

// offer adds v, dropping the oldest value as often as needed.
func (r *ring[T]) offer(v T) {
	for {
		select {
		case r.ch <- v:
			return
		default:
		}
		select {
		case <-r.ch:
			r.dropped.Add(1)
		default:
		}
	}
}

// sink receives events under the hub's lock and must not block.
type sink interface {
	take(e Event)
	end()
}

// Subscription is one reader's own bounded queue of events. It holds the newest
// ones; what did not fit is counted by Dropped. A reader for which a lost event
// matters looks at the machine again when that number moves.
type Subscription struct {
	hub  *hub
	ring ring[Event]
}

// C returns the channel of events, in the order of the wire. It is closed by
// Close, or once the connection has ended and all that came before was read.
func (s *Subscription) C() <-chan Event { return s.ring.ch }

// Dropped returns how many events were lost because C was not read in time.
func (s *Subscription) Dropped() uint64 { return s.ring.dropped.Load() }

// Close ends the subscription and closes C. It may be called more than once.
func (s *Subscription) Close() { s.hub.remove(s) }

func (s *Subscription) take(e Event) { s.ring.offer(e) }
func (s *Subscription) end()         { close(s.ring.ch) }

// hub hands each event to every sink. The first subscription exists before the
// first byte is read, so that what QEMU says during the handshake is not lost;
// whoever subscribes first receives it.
type hub struct {
	mu    sync.Mutex
	size  int
	sinks map[sink]struct{}
	first *Subscription // nil once claimed
	ended bool
}

func newHub(size int) *hub {
	h := &hub{size: size, sinks: make(map[sink]struct{})}
	h.first = h.newSubscription()
	h.sinks[h.first] = struct{}{}
	return h
}

func (h *hub) newSubscription() *Subscription {
	return &Subscription{hub: h, ring: ring[Event]{ch: make(chan Event, h.size)}}
}

// publish hands e to every sink.
func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.sinks {
		s.take(e)
	}
}

// subscribe returns the first subscription to its first caller, and new ones to
// the others.
func (h *hub) subscribe() *Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.first; s != nil {
		h.first = nil
		return s
	}
	s := h.newSubscription()
	h.addLocked(s)
	return s
}

// attach adds a sink of another shape. It receives what the first subscription
// would have, if nobody has claimed that yet.
func (h *hub) attach(s sink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if first := h.first; first != nil {
		h.first = nil
		if _, live := h.sinks[first]; live {
			delete(h.sinks, first)
			first.end()
		}
		for e := range first.ring.ch {
			s.take(e)
		}
	}
	h.addLocked(s)
}

func (h *hub) addLocked(s sink) {
	if h.ended {
		s.end()
		return
	}
	h.sinks[s] = struct{}{}
}

// remove ends one sink, once.
func (h *hub) remove(s sink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, live := h.sinks[s]; live {
		delete(h.sinks, s)
		s.end()
	}
}

// finish ends every sink; later ones are born ended.
func (h *hub) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for s := range h.sinks {
		s.end()
	}
	clear(h.sinks)
}
