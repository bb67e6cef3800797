package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// Call is one command on its way. It is used once, and not copied after it was
// sent.
type Call struct {
	// Command is the QMP name, such as query-status.
	Command string
	// Args is nil, or anything that encoding/json turns into an object.
	Args any
	// Result is nil, or where the value of return is decoded to. It is written by
	// Wait, in the goroutine of whoever waits, and by nobody after Wait returned.
	Result any

	mu    sync.Mutex
	done  chan struct{}   // made on first use, closed with the outcome
	conn  *Conn           // set when sent
	id    string          // none for a call whose answer is known by its turn
	over  bool            // outcome decided
	value json.RawMessage // undecoded return
	err   error
}

// NewCall returns a call of command. args and result may be nil.
func NewCall(command string, args, result any) *Call {
	return &Call{Command: command, Args: args, Result: result}
}

// Wait returns when the reply came, the connection ended, or ctx is done. When
// ctx is done first, the call is given up: its reply will be dropped and counted,
// and the connection stays usable. That takes nothing back: QEMU may have done
// what it was asked, or still do it. A call that was never sent waits for ctx.
func (c *Call) Wait(ctx context.Context) error {
	done := c.doneChan()
	select {
	case <-done:
		return c.settle()
	default:
	}
	select {
	case <-done:
	case <-ctx.Done():
		c.abandon(fmt.Errorf("qmp %s: no reply: %w", c.Command, ctx.Err()))
	}
	return c.settle()
}

// Err returns the outcome: nil after success and while the call is pending,
// otherwise a *Error, a context error, or one that matches ErrClosed.
func (c *Call) Err() error {
	select {
	case <-c.doneChan():
		return c.settle()
	default:
		return nil
	}
}

func (c *Call) doneChan() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
	}
	return c.done
}

// claim binds the call to a connection and refuses a second use.
func (c *Call) claim(conn *Conn, id string) error {
	c.doneChan()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil || c.over {
		return fmt.Errorf("qmp %s: the call was sent already; make a new one with NewCall", c.Command)
	}
	c.conn, c.id = conn, id
	return nil
}

// finish decides the outcome. Only the first decision counts; the others are told so.
func (c *Call) finish(value json.RawMessage, err error) (decided bool) {
	done := c.doneChan()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.over, c.value, c.err = true, value, err
	close(done)
	return true
}

// abandon gives the call up, unless its outcome is decided already.
func (c *Call) abandon(err error) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.forget(c)
	}
	c.finish(nil, err)
}

// settle decodes the value once and returns the outcome. Decoding happens here
// rather than in the reader, so that neither a large reply nor a slow decoder
// holds up anybody else's.
func (c *Call) settle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	value := c.value
	c.value = nil
	if c.err != nil || value == nil || c.Result == nil {
		return c.err
	}
	if err := json.Unmarshal(value, c.Result); err != nil {
		c.err = fmt.Errorf("qmp %s: decode the reply into %T: %w", c.Command, c.Result, err)
	}
	return c.err
}

// wireCommand is a command as QMP reads it.
type wireCommand struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	ID        string          `json:"id,omitempty"`
}

// encode returns the command. JSON needs no line ends between objects.
func (c *Call) encode() ([]byte, error) {
	if c.Command == "" {
		return nil, errors.New("qmp: a call without a command name")
	}
	w := wireCommand{Execute: c.Command, ID: c.id}
	if c.Args != nil {
		args, err := encodeArgs(c.Args)
		if err != nil {
			return nil, fmt.Errorf("qmp %s: %w", c.Command, err)
		}
		w.Arguments = args
	}
	line, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("qmp %s: encode: %w", c.Command, err)
	}
	if err := checkText(line); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", c.Command, err)
	}
	return line, nil
}

// encodeArgs returns args as a JSON object, or nothing for a nil map or pointer.
func encodeArgs(args any) (json.RawMessage, error) {
	b, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("encode the arguments: %w", err)
	}
	if bytes.Equal(b, []byte("null")) {
		return nil, nil
	}
	if b[0] != '{' {
		return nil, fmt.Errorf("the arguments are a %T, which is no JSON object", args)
	}
	return b, nil
}
