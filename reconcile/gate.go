package reconcile

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// gate lets machines start as PlanSet says, so that a host with many of them
// is not asked to boot them all in one moment.
type gate struct {
	most int
	now  func() time.Time

	mu      sync.Mutex
	tickets int
	views   map[string]*MachineView
	waiting map[string]chan struct{}
	// parked are called when there may be room for another.
	parked []func()
}

func newGate(most int, now func() time.Time) *gate {
	return &gate{most: most, now: now, views: map[string]*MachineView{}, waiting: map[string]chan struct{}{}}
}

// enter waits until the machine may start. Leave must be called with the ticket
// afterwards, unless there is an error.
func (g *gate) enter(ctx context.Context, name string) (ticket string, err error) {
	admitted := make(chan struct{})
	g.mu.Lock()
	g.tickets++
	// Two may want the same machine; each has its own ticket.
	name = fmt.Sprintf("%s %d", name, g.tickets)
	g.views[name] = &MachineView{Name: name, WantsStart: true, Since: g.now()}
	g.waiting[name] = admitted
	g.admit()
	g.mu.Unlock()
	select {
	case <-admitted:
		return name, nil
	case <-ctx.Done():
		g.leave(name)
		return "", ctx.Err()
	}
}

// try lets the machine start if there is room for it now. If not, it calls wake
// once, when there may be.
func (g *gate) try(name string, wake func()) (ticket string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.views) >= g.most {
		g.parked = append(g.parked, wake)
		return "", false
	}
	g.tickets++
	ticket = fmt.Sprintf("%s %d", name, g.tickets)
	g.views[ticket] = &MachineView{Name: ticket, Starting: true, Since: g.now()}
	return ticket, true
}

// leave makes room for the next.
func (g *gate) leave(ticket string) {
	g.mu.Lock()
	delete(g.views, ticket)
	delete(g.waiting, ticket)
	g.admit()
	parked := g.parked
	g.parked = nil
	g.mu.Unlock()
	for _, wake := range parked {
		wake()
	}
}

// admit lets those start that may. The lock is held.
func (g *gate) admit() {
	views := make([]MachineView, 0, len(g.views))
	for _, v := range g.views {
		views = append(views, *v)
	}
	for _, name := range PlanSet(views, SetOptions{MaxStarting: g.most}, g.now()).Start {
		g.views[name].Starting = true
		close(g.waiting[name])
		delete(g.waiting, name)
	}
}
