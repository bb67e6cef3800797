package reconcile

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
)

// simTurns makes a simulated world the same in every run of a seed. Whatever
// anybody in it asks of the host, of the state or of the folder waits for its turn,
// and a turn is given only when nobody can go on without one. Who gets it is drawn
// from the seed among those that wait, in the order of what they ask for: so what
// happens in one instant happens in an order that is chance, that changes from seed
// to seed, and that does not depend on how Go schedules goroutines, orders timers
// of one instant or picks a case of a select.
//
// Between two turns goroutines share only what has no order: sets, counters, and
// the queue of names, whose workers wait for their turn too (simQueue).
//
// A nil simTurns lets everybody go on at once, as does a context without a name.
type simTurns struct {
	rnd *rand.Rand
	// news wakes run when somebody waits.
	news chan struct{}

	mu      sync.Mutex
	waiting []simTurn
	over    bool
}

// simTurn is one call that waits for its turn.
type simTurn struct {
	who, what string
	begin     chan struct{}
}

// simHand drives the world. It gets its turn when nobody else wants one.
const simHand = ""

// simCaller is whoever calls in a context.
type simCaller struct {
	who string
	// holds tells that the turn of the next call has come already.
	holds bool
}

type simCallerKey struct{}

func named(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, simCallerKey{}, &simCaller{who: who})
}

// unnamed is for what is part of a call, and waits for no turn.
func unnamed(ctx context.Context) context.Context {
	return context.WithValue(ctx, simCallerKey{}, nil)
}

// take waits for the turn of a call. What is called with the context that it
// returns goes on with that turn.
func (s *simTurns) take(ctx context.Context, what string) context.Context {
	s.wait(ctx, what)
	c, ok := ctx.Value(simCallerKey{}).(*simCaller)
	if s == nil || !ok {
		return ctx
	}
	return context.WithValue(ctx, simCallerKey{}, &simCaller{c.who, true})
}

func newSimTurns(rnd *rand.Rand) *simTurns {
	return &simTurns{rnd: rnd, news: make(chan struct{}, 1)}
}

// wait waits for the caller's turn.
func (s *simTurns) wait(ctx context.Context, what string) {
	c, ok := ctx.Value(simCallerKey{}).(*simCaller)
	if s == nil || !ok {
		return
	}
	if c.holds {
		c.holds = false
		return
	}
	one := simTurn{c.who, what, make(chan struct{})}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.waiting = append(s.waiting, one)
	s.mu.Unlock()
	nudge(s.news)
	<-one.begin
}

// run gives turns until stop is closed.
func (s *simTurns) run(stop <-chan struct{}) {
	for {
		select {
		case <-s.news:
		case <-stop:
			s.end()
			return
		}
		for {
			synctest.Wait()
			next := s.draw()
			if next == nil {
				break
			}
			close(next)
		}
	}
}

// draw takes one of those that wait; nil when nobody does.
func (s *simTurns) draw() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	// Those that are alike keep the order in which they came.
	slices.SortStableFunc(s.waiting, compareTurns)
	i := 0
	others := s.waiting
	if others[0].who == simHand && len(others) > 1 {
		i, others = 1, others[1:]
	}
	i += s.rnd.IntN(len(others))
	for i > 0 && compareTurns(s.waiting[i-1], s.waiting[i]) == 0 {
		i--
	}
	next := s.waiting[i].begin
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return next
}

// end lets everybody go on.
func (s *simTurns) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, one := range s.waiting {
		close(one.begin)
	}
	s.waiting = nil
}

func compareTurns(a, b simTurn) int {
	return cmp.Or(strings.Compare(a.who, b.who), strings.Compare(a.what, b.what))
}
