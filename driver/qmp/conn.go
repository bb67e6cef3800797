package qmp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is one connection to one QMP socket, handshake done. Its methods may be
// called from any number of goroutines.
type Conn struct {
	nc   net.Conn
	name string // how errors call the peer
	opt  Options
	hub  *hub

	writing chan struct{} // held by whoever writes; a channel, so that waiting for it heeds a context
	mark    string        // begins every id of this connection
	lastID  atomic.Uint64
	late    atomic.Uint64
	entered bool                  // the capabilities are settled; the reader's own
	gone    atomic.Pointer[error] // the first write that found the peer gone
	ending  atomic.Pointer[Event] // the last SHUTDOWN

	greeted    chan struct{} // closed once greeting is set
	greeting   Greeting
	done       chan struct{} // closed once err is set
	readerDone chan struct{} // closed when the reader goroutine is gone

	mu      sync.Mutex
	pending map[string]*Call
	ordered []*Call // sent without an id, in the order of their answers
	err     error
}

// newConn makes a Conn over nc and starts its reader.
func newConn(nc net.Conn, name string, opt Options) *Conn {
	c := &Conn{
		nc: nc, name: name, opt: opt, hub: newHub(opt.EventBuffer),
		writing:    make(chan struct{}, 1),
		mark:       rand.Text()[:markLen],
		greeted:    make(chan struct{}),
		done:       make(chan struct{}),
		readerDone: make(chan struct{}),
		pending:    make(map[string]*Call),
	}
	go c.read()
	return c
}

// Greeting returns what QEMU said of itself.
func (c *Conn) Greeting() Greeting { return c.greeting }

// Done returns a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns nil while the connection lives, and afterwards why it ended. The
// error matches ErrClosed and wraps the cause.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// LateReplies returns how many replies came for callers who had given up.
func (c *Conn) LateReplies() uint64 { return c.late.Load() }

// Shutdown returns QEMU's last event SHUTDOWN on this connection, with which it tells
// that it ends; nil when there was none. It holds up no subscription.
func (c *Conn) Shutdown() *Event { return c.ending.Load() }

// Subscribe returns a new subscription to events. The first one of a connection
// begins with the first byte received, later ones begin now. Reading it slowly,
// or never, holds up nothing. An event that QEMU sent before a reply is in the
// subscription when the reply's Wait returns.
func (c *Conn) Subscribe() *Subscription { return c.hub.subscribe() }

// Close ends the connection and every pending call, and returns when the reader
// goroutine is gone. QEMU itself runs on. Closing twice is fine.
func (c *Conn) Close() error {
	err := c.end(nil)
	<-c.readerDone
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the connection to %s: %w", c.name, err)
	}
	return nil
}

// end makes cause the reason of the end, unless there is one already, closes the
// socket and completes every pending call.
func (c *Conn) end(cause error) error {
	pending, first := c.markEnded(cause)
	if !first {
		return nil
	}
	closeErr := c.nc.Close()
	for _, call := range pending {
		call.finish(nil, fmt.Errorf("qmp %s: %w", call.Command, c.Err()))
	}
	return closeErr
}

// markEnded sets the reason of the end, once, and returns what was pending.
func (c *Conn) markEnded(cause error) (pending []*Call, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, false
	}
	if cause == nil {
		c.err = fmt.Errorf("%w: %s: by this side", ErrClosed, c.name)
	} else {
		c.err = fmt.Errorf("%w: %s: %w", ErrClosed, c.name, cause)
	}
	pending = append(slices.Collect(maps.Values(c.pending)), c.ordered...)
	c.pending, c.ordered = nil, nil
	close(c.done)
	return pending, true
}

// read is the connection's one reader, from the first byte to the last.
func (c *Conn) read() {
	defer close(c.readerDone)
	lines := newLineReader(c.nc, c.opt.MaxReply)
	for {
		line, err := lines.next()
		if err == nil {
			err = c.dispatch(line)
		}
		if gone := c.gone.Load(); gone != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			err = *gone // the deadline was ours, and only means this
		}
		if err != nil {
			// The end comes first: whoever sees the event channel close finds Err set.
			_ = c.end(err)
			c.hub.finish()
			return
		}
	}
}

// dispatch hands one line to whom it concerns.
func (c *Conn) dispatch(line []byte) error {
	m, err := decodeMessage(line)
	if err != nil {
		return err
	}
	greeted := false
	select {
	case <-c.greeted:
		greeted = true
	default:
	}
	switch {
	case m.greeting != nil && c.entered:
		return protocolError(line, ErrGreetedAgain, "a second greeting")
	case m.greeting != nil && greeted:
		// A QEMU that is being started may greet twice who was connected before it ran,
		// once when the socket is opened and once when the monitor is. Until the
		// capabilities are settled that changes nothing.
	case m.greeting != nil:
		c.greeting = *m.greeting
		close(c.greeted)
	case m.event != nil:
		// A QEMU that is being started may tell of an event before it greets who was
		// connected before it ran: the two come from different threads of it.
		if m.event.Name == "SHUTDOWN" {
			c.ending.Store(m.event)
		}
		c.hub.publish(*m.event)
	case !greeted && m.reply.id == c.mark:
		return protocolError(line, nil, "a reply came before the greeting, so this is no QMP socket")
	case !greeted:
		// QEMU finishes what a client before has asked, and who comes while it does is
		// sent the answer before the greeting: the two come from different threads of it.
		c.late.Add(1)
	default:
		return c.deliver(line, m.reply)
	}
	return nil
}

// deliver completes the call that r answers, or counts r as late.
func (c *Conn) deliver(line []byte, r *reply) error {
	if !c.entered && r.id == "" && r.err != nil {
		// Most likely QEMU could not read what was sent: nothing better will come.
		return protocolError(line, nil, "the peer could not read a command: %s", r.err.Desc)
	}
	if !c.entered && r.id != c.mark {
		// Until the first command is answered, by its id, this may be the answer to what
		// a client before has asked without an id. Afterwards it cannot: QEMU answers in
		// order.
		c.late.Add(1)
		return nil
	}
	call, awaited := c.answered(r)
	switch {
	case !awaited && r.id == "" && r.err != nil:
		return protocolError(line, nil, "the peer could not read a command: %s", r.err.Desc)
	case !awaited && r.id == "":
		return protocolError(line, nil, "a reply has no id")
	case !awaited:
		c.late.Add(1)
		return nil
	}
	decided := false
	if r.err != nil {
		r.err.Command = call.Command
		decided = call.finish(nil, r.err)
	} else {
		c.entered = true
		decided = call.finish(r.value, nil)
	}
	if !decided {
		c.late.Add(1)
	}
	return nil
}

// answered takes the call that r answers from those that are pending.
func (c *Conn) answered(r *reply) (call *Call, awaited bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.id == "" && len(c.ordered) > 0 {
		call, c.ordered = c.ordered[0], c.ordered[1:]
		return call, true
	}
	call, awaited = c.pending[r.id]
	delete(c.pending, r.id)
	return call, awaited
}

// register makes the calls findable for their answers. It fails when the connection
// is over.
func (c *Conn) register(calls []*Call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	for _, call := range calls {
		if call.id == "" {
			c.ordered = append(c.ordered, call)
		} else {
			c.pending[call.id] = call
		}
	}
	return nil
}

// forget takes a call that was given up from the pending ones. One without an id
// keeps its place among the others, since its answer still comes in its turn.
func (c *Conn) forget(call *Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, call.id)
}

// markLen is how many random letters begin the ids of a connection. QEMU 7.2
// reads its monitor a byte per turn of its main loop, about 8 µs each, so ids are
// short; three letters of 32 tell a stranger's reply from ours 32,767 times of
// 32,768, and strangers' replies are rare to begin with.
const markLen = 3

// enterCommand settles the capabilities; before its answer QEMU takes no other.
const enterCommand = "qmp_capabilities"

// nextID is an id that no other connection uses: QEMU finishes the command of a
// client that has gone, and sends the reply to the client that came next.
func (c *Conn) nextID() string { return c.mark + strconv.FormatUint(c.lastID.Add(1), 10) }

// handshake writes qmp_capabilities and the calls in one write, and waits for the
// greeting and the answer. Any failure ends the connection. The calls have no ids,
// for the sake of fewer bytes: QEMU answers in order.
func (c *Conn) handshake(ctx context.Context, calls []*Call) error {
	start := time.Now()
	enter := NewCall(enterCommand, nil, nil)
	id := c.mark
	err := c.send(ctx, append([]*Call{enter}, calls...), c.nc.Write, func() string {
		defer func() { id = "" }()
		return id
	})
	if err == nil {
		err = enter.Wait(ctx)
	}
	if err == nil {
		return nil
	}
	stage := "no greeting"
	select {
	case <-c.greeted:
		stage = "greeted, but not ready"
	default:
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%s after %s (another client may hold the socket, which serves one at a time, or QEMU hangs): %w",
			stage, time.Since(start).Round(time.Millisecond), err)
	} else {
		err = fmt.Errorf("%s: %w", stage, err)
	}
	_ = c.end(err)
	<-c.readerDone
	return fmt.Errorf("qmp handshake with %s: %w", c.name, err)
}
