package qga_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maqet/maqet/driver/qga"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bound is how long any test here waits for anything real.
const bound = 20 * time.Second

// within is a context that ends with the bound.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx
}

// peer is the agent's side of a connection, as a script plays it.
type peer struct {
	nc net.Conn
	in *bufio.Reader
}

// request is a command as it comes from the client. Sentinel tells that the byte
// 0xFF came before it.
type request struct {
	Command  string          `json:"execute"`
	Args     json.RawMessage `json:"arguments"`
	sentinel bool
}

// next is the next command; false when the client is gone.
func (p *peer) next() (request, bool) {
	line, err := p.in.ReadString('\n')
	if err != nil {
		return request{}, false
	}
	rest, found := strings.CutPrefix(line, "\xff")
	r := request{sentinel: found}
	if err := json.Unmarshal([]byte(rest), &r); err != nil {
		panic(fmt.Sprintf("the client wrote %q: %v", line, err))
	}
	return r, true
}

// say writes text as it is. A client that has gone hears nothing. A pipe would wait
// for a reader of nothing, too.
func (p *peer) say(text string) bool {
	if text == "" {
		return true
	}
	_, err := io.WriteString(p.nc, text)
	return err == nil
}

// answer answers with a result, or with a refusal.
func (p *peer) answer(result string) { p.say(`{"return": ` + result + "}\n") }

func (p *peer) refuse(class, desc string) {
	p.say(fmt.Sprintf(`{"error": {"class": %q, "desc": %q}}`+"\n", class, desc))
}

// syncID is the number in a guest-sync-delimited.
func (r request) syncID() int64 {
	var args struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal(r.Args, &args); err != nil {
		panic(err)
	}
	return args.ID
}

// inStep answers guest-sync-delimited as qemu-ga does: with a complaint about the
// sentinel, and then with the number.
func (p *peer) inStep() {
	r, ok := p.next()
	if !ok {
		return
	}
	p.refuse("GenericError", "JSON parse error, stray '\ufffd'")
	p.say(fmt.Sprintf("\xff{\"return\": %d}\n", r.syncID()))
}

// play connects to a script over a pipe, which works in a synctest bubble.
func play(t testing.TB, script func(p *peer)) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer func() { _ = server.Close() }()
		script(&peer{nc: server, in: bufio.NewReader(server)})
	}()
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		<-over
	})
	return client
}

// connect is a connection in step with a script.
func connect(t testing.TB, opt qga.Options, script func(p *peer)) *qga.Conn {
	t.Helper()
	c, err := qga.New(within(t), play(t, func(p *peer) {
		p.inStep()
		script(p)
	}), opt)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return c
}

// hang says nothing until the client has gone.
func (p *peer) hang() { _, _ = io.Copy(io.Discard, p.in) }
