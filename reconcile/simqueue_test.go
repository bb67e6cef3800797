package reconcile

import (
	"context"
	"slices"
	"sync"
)

// simQueue is the controller's queue of names in a world where all wait for their
// turns: so does a worker, between taking a name and beginning with it. Whatever
// asks for the name until then asks for what is about to be done anyway.
type simQueue struct {
	turns *simTurns
	ctx   context.Context
	mu    sync.Mutex
	some  *sync.Cond
	// names are those to be taken, in their order; taken those that were, and asked
	// those that were asked for again since their worker began.
	names        []string
	taken, asked map[string]bool
	over         bool
}

func newSimQueue(ctx context.Context, turns *simTurns) *simQueue {
	q := &simQueue{turns: turns, ctx: ctx, taken: map[string]bool{}, asked: map[string]bool{}}
	q.some = sync.NewCond(&q.mu)
	return q
}

func (q *simQueue) Add(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	begun, taken := q.taken[name]
	switch {
	case q.over || q.ctx.Err() != nil || slices.Contains(q.names, name) || taken && !begun:
	case begun:
		q.asked[name] = true
	default:
		q.names = append(q.names, name)
		q.some.Signal()
	}
}

func (q *simQueue) Get() (name string, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.names) == 0 && !q.over {
		q.some.Wait()
	}
	if q.over {
		return "", true
	}
	name, q.names = q.names[0], q.names[1:]
	q.taken[name] = false
	q.mu.Unlock()
	q.turns.wait(q.ctx, "begin with "+name)
	q.mu.Lock()
	q.taken[name] = true
	return name, false
}

func (q *simQueue) Done(name string) {
	q.mu.Lock()
	delete(q.taken, name)
	again := q.asked[name]
	delete(q.asked, name)
	q.mu.Unlock()
	if again {
		q.Add(name)
	}
}

func (q *simQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.names)
}

func (q *simQueue) ShutDown() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.some.Broadcast()
}

// ShutDownWithDrain is not what the controller does.
func (q *simQueue) ShutDownWithDrain() { q.ShutDown() }

func (q *simQueue) ShuttingDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.over
}
