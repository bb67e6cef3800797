package qmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Options bounds a connection. The zero value is right for QEMU.
type Options struct {
	// MaxReply is the largest line accepted, in bytes; 0 means 8 MiB. The largest
	// reply of QEMU 7.2, query-qmp-schema, has 207 kB.
	MaxReply int
	// EventBuffer is how many unread events each subscription keeps; 0 means 256.
	EventBuffer int
	// Handshake is the time for connecting, greeting and qmp_capabilities
	// together; 0 means 5 s. A shorter deadline of the context wins.
	Handshake time.Duration
	// RunTimeout is the time for one Run, which has no context of its own; 0 means
	// 30 s.
	RunTimeout time.Duration
}

const (
	defaultMaxReply    = 8 << 20
	defaultEventBuffer = 256
	defaultHandshake   = 5 * time.Second
	defaultRunTimeout  = 30 * time.Second

	// maxSocketPath is the longest path that fits sockaddr_un on Linux.
	maxSocketPath = 107
	// redialEvery is how often a socket with a full queue is tried again.
	redialEvery = 10 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.MaxReply <= 0 {
		o.MaxReply = defaultMaxReply
	}
	if o.EventBuffer <= 0 {
		o.EventBuffer = defaultEventBuffer
	}
	if o.Handshake <= 0 {
		o.Handshake = defaultHandshake
	}
	if o.RunTimeout <= 0 {
		o.RunTimeout = defaultRunTimeout
	}
	return o
}

// Dial connects to the unix socket at path and completes the handshake, all
// within one budget: the context's deadline or Options.Handshake, whichever is
// sooner. The context bounds the dial only, not the connection's life.
func Dial(ctx context.Context, path string, opt Options) (*Conn, error) {
	return DialPipelined(ctx, path, opt)
}

// DialPipelined is Dial with calls that are written in the same write as
// qmp_capabilities, before the greeting is read. It returns when the handshake is
// done; each call completes on its own. When the handshake fails, every call
// fails too, but may be executed all the same: a QEMU that serves another client
// reads the bytes when that one leaves. So the calls should only ask.
func DialPipelined(ctx context.Context, path string, opt Options, calls ...*Call) (*Conn, error) {
	opt = opt.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opt.Handshake)
	defer cancel()
	nc, err := dialUnix(ctx, path)
	if err != nil {
		failAll(calls, err)
		return nil, err
	}
	return start(ctx, nc, path, opt, calls)
}

// New is DialPipelined over a connection that exists already. The Conn owns nc
// from this call on and closes it, also when New fails.
func New(ctx context.Context, nc net.Conn, opt Options, calls ...*Call) (*Conn, error) {
	opt = opt.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opt.Handshake)
	defer cancel()
	name := "peer"
	if addr := nc.RemoteAddr(); addr != nil && addr.String() != "" {
		name = addr.String()
	}
	return start(ctx, nc, name, opt, calls)
}

func start(ctx context.Context, nc net.Conn, name string, opt Options, calls []*Call) (*Conn, error) {
	c := newConn(nc, name, opt)
	if err := c.handshake(ctx, calls); err != nil {
		return nil, err
	}
	return c, nil
}

// dialUnix connects to path. A listener whose queue is full answers EAGAIN at
// once instead of letting the client wait, so waiting is done here.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("qmp socket %s: the path has %d bytes and a socket path at most %d; use a shorter run directory",
			path, len(path), maxSocketPath)
	}
	var dialer net.Dialer
	var full error // the socket's last refusal for lack of room
	for {
		nc, err := dialer.DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			return nc, nil
		case errors.Is(err, syscall.EAGAIN):
			full = err
		case full == nil || (ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded)):
			return nil, fmt.Errorf("qmp socket %s: connect: %w", path, err)
		}
		retry := time.NewTimer(redialEvery)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return nil, fmt.Errorf("qmp socket %s: other clients fill its queue: %w: %w", path, full, ctx.Err())
		}
	}
}
