package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	goqmp "github.com/digitalocean/go-qemu/qmp"
)

var _ goqmp.Monitor = (*Conn)(nil)

// Connect reports whether the connection is usable. The handshake was done when
// the Conn was made, so there is nothing to connect; a Conn that has ended does
// not come back.
func (c *Conn) Connect() error { return c.Err() }

// Disconnect is Close.
func (c *Conn) Disconnect() error { return c.Close() }

// Run executes one command given as JSON and returns the whole reply as JSON,
// as Monitor asks. It differs from go-qemu's own monitor in this: it gives up
// after Options.RunTimeout, several may run at once, QEMU's refusal is a *Error,
// and an id in the command may be of any type and is found in the reply again.
func (c *Conn) Run(command []byte) ([]byte, error) {
	var in struct {
		Execute   string          `json:"execute"`
		Arguments json.RawMessage `json:"arguments"`
		ID        json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(command, &in); err != nil {
		return nil, fmt.Errorf("qmp run: the command is not one JSON object: %w", err)
	}
	if in.Execute == "" {
		return nil, errors.New(`qmp run: the command has no "execute"`)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.opt.RunTimeout) //nolint:forbidigo // Monitor.Run has no context; the timeout stands in for it.
	defer cancel()
	out := struct {
		Return json.RawMessage `json:"return"`
		ID     json.RawMessage `json:"id,omitempty"`
	}{ID: in.ID}
	var args any
	if in.Arguments != nil {
		args = in.Arguments
	}
	if err := c.Do(ctx, in.Execute, args, &out.Return); err != nil {
		return nil, err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("qmp run %s: encode the reply: %w", in.Execute, err)
	}
	return b, nil
}

// Events returns events in go-qemu's shape until ctx is done or the connection
// ends, when the channel is closed. Every caller has a bounded queue of its own,
// from which the oldest events are dropped. Numbers in Data are float64, as that
// shape has it; Subscribe keeps them exact and counts what was dropped.
func (c *Conn) Events(ctx context.Context) (<-chan goqmp.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("qmp events: %w", err)
	}
	m := &monitorSink{ring: ring[goqmp.Event]{ch: make(chan goqmp.Event, c.opt.EventBuffer)}}
	m.stop = context.AfterFunc(ctx, func() { c.hub.remove(m) })
	c.hub.attach(m)
	if ctx.Err() != nil {
		// The context may have ended before there was anything to remove.
		c.hub.remove(m)
	}
	return m.ring.ch, nil
}

// monitorSink is a subscription in go-qemu's shape. Translating in the reader
// spares a goroutine, which could only end by losing the last events.
type monitorSink struct {
	ring ring[goqmp.Event]
	stop func() bool
}

func (m *monitorSink) take(e Event) {
	out := goqmp.Event{Event: e.Name}
	if e.Data != nil && json.Unmarshal(e.Data, &out.Data) != nil {
		out.Data = nil // not an object; go-qemu's shape has no room for it
	}
	out.Timestamp.Seconds = e.Timestamp.Unix()
	out.Timestamp.Microseconds = int64(e.Timestamp.Nanosecond() / 1000)
	m.ring.offer(out)
}

func (m *monitorSink) end() {
	m.stop()
	close(m.ring.ch)
}
