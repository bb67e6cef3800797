package qga

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Ping asks for a sign of life.
func (c *Conn) Ping(ctx context.Context) error { return c.Do(ctx, "guest-ping", nil, nil) }

// Shutdown tells the guest to power off. The agent gives no answer to that, only a
// refusal, so a ping behind it tells whether one comes. An agent that falls silent
// instead, or a connection that ends, is a guest that goes: that is no error here,
// and the caller finds out whether it went.
func (c *Conn) Shutdown(ctx context.Context) error {
	const command = "guest-shutdown"
	shutdown, err := encode(command, map[string]string{"mode": "powerdown"})
	if err != nil {
		return err
	}
	ping, err := encode("guest-ping", nil)
	if err != nil {
		return err
	}
	var line []byte
	err = c.during(ctx, func() error {
		if err := c.write(ctx, append(shutdown, ping...)); err != nil {
			return err
		}
		line, err = c.in.next(ctx)
		return err
	})
	var broken *ProtocolError
	switch {
	case errors.Is(err, context.Canceled), errors.As(err, &broken):
		return fmt.Errorf("%s: %w", command, err)
	case err != nil:
		return nil //nolint:nilerr // no answer is what a guest gives that goes
	}
	if err := c.decode(command, line, nil); err != nil {
		// The answer to the ping is still to come, and nobody waits for it.
		_ = c.Close()
		return err
	}
	return nil
}

// ExecRequest is a program to be run in the guest.
type ExecRequest struct {
	// Path is the program: a name that the agent looks up in its own PATH, or a path.
	Path string   `json:"path"`
	Args []string `json:"arg,omitempty"`
	// Env is the whole environment as NAME=VALUE; empty is the agent's own.
	Env []string `json:"env,omitempty"`
	// Input is what the program reads on its standard input; nil is nothing.
	Input []byte `json:"input-data,omitempty"`
	// Capture keeps what the program writes until it has ended.
	Capture bool `json:"capture-output,omitempty"`
}

// Exec starts a program in the guest and returns its number there.
func (c *Conn) Exec(ctx context.Context, req ExecRequest) (pid int64, err error) {
	for _, list := range [][]string{{req.Path}, req.Args, req.Env} {
		for _, word := range list {
			// Encoding would put other bytes in place of these.
			if !utf8.ValidString(word) {
				return 0, fmt.Errorf("guest-exec: %w: %q", ErrNotUTF8, word)
			}
		}
	}
	var r struct {
		PID int64 `json:"pid"`
	}
	err = c.Do(ctx, "guest-exec", req, &r)
	return r.PID, err
}

// ErrNotUTF8 is a word that the protocol, which is JSON, cannot carry.
var ErrNotUTF8 = errors.New("not UTF-8, which the guest agent's protocol cannot carry")

// ExecStatus is how a program in the guest is.
type ExecStatus struct {
	// Exited tells that it has ended, and that whatever it left running has let go of
	// its outputs. Only then the rest means something.
	Exited bool `json:"exited"`
	// ExitCode is there when it ended by itself, Signal when it was ended.
	ExitCode *int `json:"exitcode"`
	Signal   *int `json:"signal"`
	// Out and Err are what it wrote, up to 16 MiB each; the agent drops the rest.
	Out          []byte `json:"out-data"`
	Err          []byte `json:"err-data"`
	OutTruncated bool   `json:"out-truncated"`
	ErrTruncated bool   `json:"err-truncated"`
}

// execStatus is the one command with a long answer.
const execStatus = "guest-exec-status"

// ExecStatus asks how a program is. The answer that it has exited is given once: the
// agent forgets the program with it.
func (c *Conn) ExecStatus(ctx context.Context, pid int64) (ExecStatus, error) {
	var s ExecStatus
	err := c.Do(ctx, execStatus, map[string]int64{"pid": pid}, &s)
	return s, err
}

// MaxChunk is the most that one FileRead or FileWrite carries: an agent far away from
// its own limit of 48 MB, and an answer that comes in well under a second.
const MaxChunk = 256 << 10

// File is an open file in the guest. It stays open when the connection ends; another
// one goes on with the same Handle.
type File struct {
	Handle int64
}

// Open opens a file in the guest; mode is that of C's fopen. A file that is made is
// writable for everybody in the guest until somebody changes that.
func (c *Conn) Open(ctx context.Context, path, mode string) (File, error) {
	if !utf8.ValidString(path) {
		return File{}, fmt.Errorf("guest-file-open: %w: %q", ErrNotUTF8, path)
	}
	var f File
	err := c.Do(ctx, "guest-file-open", map[string]string{"path": path, "mode": mode}, &f.Handle)
	return f, err
}

// Read reads at most MaxChunk bytes on. At the end of the file eof is true.
func (c *Conn) Read(ctx context.Context, f File) (chunk []byte, eof bool, err error) {
	var r struct {
		Buf []byte `json:"buf-b64"`
		EOF bool   `json:"eof"`
	}
	err = c.Do(ctx, "guest-file-read", map[string]int64{"handle": f.Handle, "count": MaxChunk}, &r)
	if err == nil && len(r.Buf) > MaxChunk {
		return nil, false, c.end(protocolError(nil, nil, "%d bytes are said to be read of at most %d", len(r.Buf), MaxChunk))
	}
	return r.Buf, r.EOF, err
}

// Write writes a chunk of at most MaxChunk bytes, and returns how many were taken.
func (c *Conn) Write(ctx context.Context, f File, chunk []byte) (int, error) {
	if len(chunk) > MaxChunk {
		return 0, fmt.Errorf("guest-file-write: a chunk of %d bytes is more than %d", len(chunk), MaxChunk)
	}
	var r struct {
		Count int `json:"count"`
	}
	err := c.Do(ctx, "guest-file-write", map[string]any{"handle": f.Handle, "buf-b64": chunk}, &r)
	if err == nil && (r.Count <= 0 && len(chunk) > 0 || r.Count > len(chunk)) {
		err = c.end(protocolError(nil, nil, "%d bytes of %d are said to be written", r.Count, len(chunk)))
	}
	return r.Count, err
}

// CloseFile writes what is buffered and closes a file in the guest.
func (c *Conn) CloseFile(ctx context.Context, f File) error {
	return c.Do(ctx, "guest-file-close", f.arg(), nil)
}

// Flush hands what the agent has buffered to the guest's kernel.
func (c *Conn) Flush(ctx context.Context, f File) error {
	return c.Do(ctx, "guest-file-flush", f.arg(), nil)
}

func (f File) arg() map[string]int64 { return map[string]int64{"handle": f.Handle} }
