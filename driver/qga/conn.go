package qga

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// The defaults of Options.
const (
	DefaultAnswer = 5 * time.Second
	// DefaultMaxReply holds the largest answer that an agent gives: two outputs of
	// 16 MiB of a program, in base64.
	DefaultMaxReply = 48 << 20
)

// shortReply bounds the answer to everything but guest-exec-status: more than a chunk of
// a file in base64, or the account of a guest with a thousand disks. What is read from an
// answer may need twenty times its length, and a guest can send megabytes of it.
const shortReply = 2 << 20

// Options are the limits of a connection.
type Options struct {
	// Answer is how long the agent may be silent while it owes something, and how
	// long coming into step may take altogether; 0 is DefaultAnswer.
	Answer time.Duration
	// MaxReply is the longest answer in bytes, which only guest-exec-status may have; all
	// others are at most 2 MiB long. 0 is DefaultMaxReply.
	MaxReply int
}

// Conn is one connection to one agent, in step with it.
type Conn struct {
	nc  net.Conn
	opt Options
	in  *lineReader
	// over is why the connection is over; nil while it is not.
	over error
}

// Dial connects to the socket at path and comes into step with the agent.
func Dial(ctx context.Context, path string, opt Options) (*Conn, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to the guest agent: %w", err)
	}
	return New(ctx, nc, opt)
}

// New comes into step with the agent behind nc, which belongs to the Conn from here
// on and is closed when that fails.
func New(ctx context.Context, nc net.Conn, opt Options) (*Conn, error) {
	opt.Answer = cmp.Or(opt.Answer, DefaultAnswer)
	opt.MaxReply = cmp.Or(opt.MaxReply, DefaultMaxReply)
	c := &Conn{nc: nc, opt: opt}
	c.in = newLineReader(&patient{conn: c}, min(opt.MaxReply, shortReply))
	if err := c.sync(ctx); err != nil {
		_ = c.Close() // the error is the reason already
		return nil, err
	}
	return c, nil
}

// Close ends the connection. The agent runs on, and so does what it was told to do.
func (c *Conn) Close() error {
	if c.over == nil {
		c.over = &closedError{errors.New("it was closed by this side")}
	}
	if err := c.nc.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the connection to the guest agent: %w", err)
	}
	return nil
}

// Allow changes how long the agent may be silent from now on, for a command that takes
// its time.
func (c *Conn) Allow(answer time.Duration) { c.opt.Answer = answer }

// Do sends a command and reads its answer into result, unless that is nil. Args is
// what json.Marshal makes an object of, or nil. A refusal is an *Error, and leaves
// the connection in step; after any other error it is over.
func (c *Conn) Do(ctx context.Context, command string, args, result any) error {
	line, err := c.exchange(ctx, command, args)
	if err != nil {
		return err
	}
	return c.decode(command, line, result)
}

// exchange writes a command and reads one line.
func (c *Conn) exchange(ctx context.Context, command string, args any) ([]byte, error) {
	request, err := encode(command, args)
	if err != nil {
		return nil, err
	}
	if c.in.max = min(c.opt.MaxReply, shortReply); command == execStatus {
		c.in.max = c.opt.MaxReply
	}
	var line []byte
	err = c.during(ctx, func() (err error) {
		if err := c.write(ctx, request); err != nil {
			return err
		}
		line, err = c.in.next(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return line, nil
}

// during calls do, which the end of ctx interrupts. An error ends the connection.
func (c *Conn) during(ctx context.Context, do func() error) error {
	if c.over != nil {
		return c.over
	}
	err := ctx.Err()
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(past()) })
		err = do()
		stop()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		err = ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		err = ErrNotAnswering
	default:
	}
	return c.end(err)
}

// end makes cause the reason why the connection is over.
func (c *Conn) end(cause error) error {
	c.over = &closedError{cause}
	_ = c.nc.Close() // cause is the reason already
	return c.over
}

// past is a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

// request is a command as the agent reads it.
type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
}

func encode(command string, args any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // it ends with the newline that the agent waits for
	enc.SetEscapeHTML(false)
	if err := enc.Encode(request{command, args}); err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return b.Bytes(), nil
}

// writePiece is how much is written at a time: an agent that takes a long command
// slowly is not silent.
const writePiece = 64 << 10

func (c *Conn) write(ctx context.Context, text []byte) error {
	for len(text) > 0 {
		if err := c.extend(ctx, c.nc.SetWriteDeadline); err != nil {
			return err
		}
		n, err := c.nc.Write(text[:min(len(text), writePiece)])
		if err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// extend gives the agent its time anew, unless ctx has ended: its end sets a deadline
// of its own, before this one or after it.
func (c *Conn) extend(ctx context.Context, set func(time.Time) error) error {
	if err := set(time.Now().Add(c.opt.Answer)); err != nil {
		return err
	}
	return ctx.Err()
}

// patient reads from the connection, with the agent's time anew for each piece.
type patient struct {
	conn *Conn
	ctx  context.Context //nolint:containedctx // that of the call that reads just now
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.conn.extend(p.ctx, p.conn.nc.SetReadDeadline); err != nil {
		return 0, err
	}
	return p.conn.nc.Read(b)
}

// reply is an answer. Exactly one of its members is there.
type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// maxDesc is how much of an agent's sentence is kept.
const maxDesc = 512

// decode reads the answer to a command.
func (c *Conn) decode(command string, line []byte, result any) error {
	var r reply
	err := json.Unmarshal(line, &r)
	switch {
	case err != nil:
		err = protocolError(line, err, "the answer to %s is no JSON object", command)
	case r.Error != nil:
		return &Error{Command: command, Class: Clean(r.Error.Class, maxDesc), Desc: Clean(r.Error.Desc, maxDesc)}
	case r.Return == nil:
		err = protocolError(line, nil, "the answer to %s is neither a result nor a refusal", command)
	case result != nil:
		if unfit := json.Unmarshal(r.Return, result); unfit != nil {
			err = protocolError(line, unfit, "the answer to %s is of another form", command)
		}
	}
	if err != nil {
		return c.end(err)
	}
	return nil
}
