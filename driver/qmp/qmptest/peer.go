package qmptest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
)

// Request is a command as the client sent it.
type Request struct {
	// Command is the value of execute.
	Command string `json:"execute"`
	// Args is the value of arguments, or nil.
	Args json.RawMessage `json:"arguments"`
	// ID is the value of id, of whatever type, or nil.
	ID json.RawMessage `json:"id"`
}

// Peer is the server's side of one connection, used by one script.
type Peer struct {
	runner *runner
	nc     net.Conn
	dec    *json.Decoder
	read   *bufio.Reader

	mu sync.Mutex // one line at a time, for scripts that start goroutines
}

func newPeer(r *runner, nc net.Conn) *Peer {
	read := bufio.NewReader(nc)
	return &Peer{runner: r, nc: nc, read: read, dec: json.NewDecoder(read)}
}

// Greeting is the line that Greet sends: QEMU 7.2.22.
const Greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "qmptest"}, "capabilities": ["oob"]}}`

// Greet sends the greeting.
func (p *Peer) Greet() { p.Line(Greeting) }

// Handshake greets, and accepts qmp_capabilities.
func (p *Peer) Handshake() {
	p.Greet()
	p.Reply(p.Expect("qmp_capabilities"), nil)
}

// Next returns the next command. A client that leaves ends the script.
func (p *Peer) Next() Request {
	r, err := p.next()
	if err != nil {
		p.leave("wait for a command", err)
	}
	return r
}

func (p *Peer) next() (Request, error) {
	var r Request
	err := p.dec.Decode(&r)
	return r, err
}

// Expect returns the next command, which must have this name.
func (p *Peer) Expect(command string) Request {
	r, err := p.next()
	if err != nil {
		p.leave("wait for "+command, err)
	}
	if r.Command != command {
		p.fail("the client sent %q, want %q", r.Command, command)
	}
	return r
}

// Reply answers r with result, where nil is the empty object.
func (p *Peer) Reply(r Request, result any) {
	if result == nil {
		result = struct{}{}
	}
	p.value(struct {
		Return any             `json:"return"`
		ID     json.RawMessage `json:"id,omitempty"`
	}{result, r.ID})
}

// Fail answers r with an error.
func (p *Peer) Fail(r Request, class, desc string) {
	type refusal struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	}
	p.value(struct {
		ID    json.RawMessage `json:"id,omitempty"`
		Error refusal         `json:"error"`
	}{r.ID, refusal{class, desc}})
}

// Oversized answers r with a line of size bytes, without its line end.
func (p *Peer) Oversized(r Request, size int) {
	head, tail := `{"return": "`, fmt.Sprintf(`", "id": %s}`, r.ID)
	pad := size - len(head) - len(tail)
	if pad < 0 {
		p.fail("a reply of %d bytes does not fit its own frame", size)
	}
	p.Line(head + strings.Repeat("x", pad) + tail)
}

// EventTime is the timestamp of every event sent by Event.
const EventTime = 1700000000

// Event sends an event, with data unless that is nil.
func (p *Peer) Event(name string, data any) {
	type stamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	}
	p.value(struct {
		Timestamp stamp  `json:"timestamp"`
		Event     string `json:"event"`
		Data      any    `json:"data,omitempty"`
	}{stamp{EventTime, 250000}, name, data})
}

// Flood sends n events FLOOD, numbered from 0 in their data's n.
func (p *Peer) Flood(n int) {
	for i := range n {
		p.Event("FLOOD", map[string]int{"n": i})
	}
}

// Line sends text and the line end of QMP.
func (p *Peer) Line(text string) { p.Raw(text + "\r\n") }

// Raw sends text as it is.
func (p *Peer) Raw(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.nc, text); err != nil {
		p.leave("write", err)
	}
}

func (p *Peer) value(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		p.fail("encode %T: %v", v, err)
	}
	p.Line(string(b))
}

// ReadBytes takes n bytes of whatever the client sends, and no more. It is for
// scripts that stop reading in mid-word and cannot be mixed with Next.
func (p *Peer) ReadBytes(n int) {
	buf := make([]byte, n)
	if _, err := io.ReadFull(p.nc, buf); err != nil {
		p.leave("read bytes", err)
	}
}

// Stall reads and says nothing until the client closes or the test ends.
func (p *Peer) Stall() {
	_, err := io.Copy(io.Discard, io.MultiReader(p.dec.Buffered(), p.read))
	if err != nil {
		p.leave("stall", err)
	}
}

// Hang does not even read, until release is closed or the test ends.
func (p *Peer) Hang(release <-chan struct{}) {
	ended := make(chan struct{})
	p.runner.onClose(sync.OnceValue(func() error { close(ended); return nil }))
	select {
	case <-release:
	case <-ended:
	}
}

// CloseRead refuses whatever the client sends from now on, which gets EPIPE, while
// the other direction stays open.
func (p *Peer) CloseRead() {
	socket, ok := p.nc.(*net.UnixConn)
	if !ok {
		p.fail("closing one direction needs a unix socket, this is a %T", p.nc)
	}
	if err := socket.CloseRead(); err != nil {
		p.leave("close the reading side", err)
	}
}

// Close closes the connection. What was sent before still arrives.
func (p *Peer) Close() {
	if err := p.nc.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		p.runner.t.Errorf("qmptest: close: %v", err)
	}
}

// Reset waits until the client has sent something and closes without reading it,
// which a unix socket reports to the client as ECONNRESET. It cannot be mixed with
// Next, which reads ahead.
func (p *Peer) Reset() {
	socket, ok := p.nc.(*net.UnixConn)
	if !ok {
		p.fail("a reset needs a unix socket, this is a %T", p.nc)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		p.leave("reset", err)
	}
	if err := raw.Read(readable); err != nil {
		p.leave("wait for input to refuse", err)
	}
	p.Close()
}

// Handlers answers commands by name. What it returns is sent as the reply; an
// *Refusal becomes an error reply of its class, any other error a GenericError.
type Handlers map[string]func(Request) (any, error)

// Refusal is an error reply.
type Refusal struct{ Class, Desc string }

// Error returns the description.
func (r *Refusal) Error() string { return r.Desc }

// Serve answers commands until the client leaves. It answers qmp_capabilities by
// itself, and a command without a handler with CommandNotFound, as QEMU does.
func (p *Peer) Serve(h Handlers) {
	for {
		r, err := p.next()
		if gone(err) {
			return
		}
		if err != nil {
			p.leave("wait for a command", err)
		}
		p.answer(r, h)
	}
}

func (p *Peer) answer(r Request, h Handlers) {
	handle, known := h[r.Command]
	switch {
	case !known && r.Command == "qmp_capabilities":
		p.Reply(r, nil)
		return
	case !known:
		p.Fail(r, "CommandNotFound", fmt.Sprintf("The command %s has not been found", r.Command))
		return
	}
	result, err := handle(r)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		p.Fail(r, refusal.Class, refusal.Desc)
	case err != nil:
		p.Fail(r, "GenericError", err.Error())
	default:
		p.Reply(r, result)
	}
}

// Greeted is a Script that shakes hands and serves h until the client leaves.
func Greeted(h Handlers) Script {
	return func(p *Peer) {
		p.Greet()
		p.Serve(h)
	}
}

// gone reports whether err means that the other side or the test is over.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || isHangup(err)
}

// leave ends the script over an input or output error. A connection that is over
// is no fault of the script: what the client saw is for the test to judge.
func (p *Peer) leave(doing string, err error) {
	if !gone(err) && !p.runner.isOver() {
		p.runner.t.Errorf("qmptest: %s: %v", doing, err)
	}
	p.Close()
	runtime.Goexit()
}

// fail reports a broken expectation and ends the script.
func (p *Peer) fail(format string, args ...any) {
	if !p.runner.isOver() {
		p.runner.t.Errorf("qmptest: "+format, args...)
	}
	p.Close()
	runtime.Goexit()
}
