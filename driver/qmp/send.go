package qmp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// drainTime is how long the reader may still take in what a dying peer sent
// before it closed, once a write has found it gone.
const drainTime = time.Second

// Send writes the calls in one write and returns without waiting for replies.
// Either all calls are on their way, or every one of them has failed with the
// error that Send returns. A call that was used before is refused and left as it
// is.
func (c *Conn) Send(ctx context.Context, calls ...*Call) error {
	return c.send(ctx, calls, c.nc.Write, c.nextID)
}

// Do sends one command and waits for its reply, which is decoded into result.
// args and result may be nil.
func (c *Conn) Do(ctx context.Context, command string, args, result any) error {
	call := NewCall(command, args, result)
	if err := c.Send(ctx, call); err != nil {
		return err
	}
	return call.Wait(ctx)
}

// DoAll sends the calls in one write and waits for all of them. The errors are
// joined; each call's own is its Err.
func (c *Conn) DoAll(ctx context.Context, calls ...*Call) error {
	if err := c.Send(ctx, calls...); err != nil {
		return err
	}
	errs := make([]error, 0, len(calls))
	for _, call := range calls {
		errs = append(errs, call.Wait(ctx))
	}
	return errors.Join(errs...)
}

// writeFunc writes bytes to the socket and returns how many went.
type writeFunc func(b []byte) (int, error)

// send writes the calls with ids that nextID gives them one after the other.
func (c *Conn) send(ctx context.Context, calls []*Call, out writeFunc, nextID func() string) error {
	if len(calls) == 0 {
		return nil
	}
	for i, call := range calls {
		if err := call.claim(c, nextID()); err != nil {
			failAll(calls[:i], err)
			return err
		}
	}
	buf, err := encodeAll(calls)
	if err != nil {
		failAll(calls, err)
		return err
	}
	if err = c.register(calls); err == nil {
		err = c.write(ctx, buf, out)
	}
	if err == nil {
		return nil
	}
	for _, call := range calls {
		c.forget(call)
	}
	err = fmt.Errorf("qmp %s: %w", calls[0].Command, err)
	failAll(calls, err)
	return err
}

// encodeAll returns the calls as the bytes of one write.
func encodeAll(calls []*Call) ([]byte, error) {
	var buf []byte
	for _, call := range calls {
		line, err := call.encode()
		if err != nil {
			return nil, err
		}
		buf = append(buf, line...)
	}
	return buf, nil
}

func failAll(calls []*Call, err error) {
	for _, call := range calls {
		call.finish(nil, err)
	}
}

// write writes buf as a whole, alone, and never beyond ctx. If ctx ends before
// the first byte went, the connection is as good as before. If it ends in the
// middle, the connection ends, since the peer waits for the rest of a command
// that will not come.
func (c *Conn) write(ctx context.Context, buf []byte, out writeFunc) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not sent: %w", err)
	}
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return fmt.Errorf("not sent, another command is stuck in the socket: %w", ctx.Err())
	case <-c.done:
		return c.Err()
	}

	release := c.interruptWrite(ctx)
	n, err := out(buf)
	release()
	switch {
	case err == nil:
		return nil
	case c.Err() != nil:
		return c.Err()
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return c.peerGone(err)
	case n == 0:
		return fmt.Errorf("not sent, the peer does not read: %w", ctx.Err())
	default:
		_ = c.end(fmt.Errorf("a command stuck after %d of %d bytes, the peer does not read: %w", n, len(buf), ctx.Err()))
		return c.Err()
	}
}

// interruptWrite lets the end of ctx interrupt the write that follows. The
// function it returns undoes that, and leaves no deadline behind.
func (c *Conn) interruptWrite(ctx context.Context) (release func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = c.nc.SetWriteDeadline(time.Unix(1, 0)) // fails only on a closed socket, where no write waits
	})
	return func() {
		if stop() {
			return
		}
		<-fired
		_ = c.nc.SetWriteDeadline(time.Time{})
	}
}

// peerGone handles a write that failed because the peer is not there. What it
// sent before it went, above all its last events, is still to be read: the reader
// finds the end by itself, and is given a limit, once, in case it does not.
func (c *Conn) peerGone(err error) error {
	err = fmt.Errorf("write: %w", err)
	if c.gone.CompareAndSwap(nil, &err) {
		_ = c.nc.SetReadDeadline(time.Now().Add(drainTime)) // fails only on a closed socket, which is what is wanted
	}
	return fmt.Errorf("%w: %s: %w", ErrClosed, c.name, err)
}
