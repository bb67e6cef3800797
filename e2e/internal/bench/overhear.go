package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
)

// errSilence means that nothing was asked, so nothing could be overheard.
var errSilence = errors.New("no command came by on the socket")

// overhear stands between a QMP socket and its clients while do runs, and
// returns the commands that were sent, without the handshake.
func overhear(socket string, do func() error) (commands []json.RawMessage, err error) {
	ear, err := listenIn(socket)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(do(), ear.close()); err != nil {
		return nil, err
	}
	if len(ear.commands) == 0 {
		return nil, fmt.Errorf("listen in on %s: %w", socket, errSilence)
	}
	return ear.commands, nil
}

// tap stands between a QMP socket and its clients, and collects what they say.
type tap struct {
	socket, moved string
	listener      *net.UnixListener
	clients       sync.WaitGroup

	mu       sync.Mutex
	commands []json.RawMessage
	// names are the commands' own; heard wakes whoever waits for more of them.
	names []string
	heard chan struct{}
	err   error
}

// listenIn puts a tap in a socket's place, until it is closed.
func listenIn(socket string) (*tap, error) {
	t := &tap{socket: socket, moved: socket + ".real", heard: make(chan struct{})}
	if err := os.Rename(socket, t.moved); err != nil {
		return nil, fmt.Errorf("listen in on %s: %w", socket, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen in on %s: %w", socket, err), os.Rename(t.moved, socket))
	}
	listener.SetUnlinkOnClose(false)
	t.listener = listener
	t.clients.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // Closed.
			}
			t.clients.Go(func() { t.relay(client, t.moved) })
		}
	})
	return t, nil
}

// close puts the socket back, and waits for visits that are under way.
func (t *tap) close() error {
	// A rename over the stand-in's path also removes the stand-in.
	err := errors.Join(t.listener.Close(), os.Rename(t.moved, t.socket))
	t.clients.Wait()
	return errors.Join(err, t.err)
}

// mark is how many commands were heard so far.
func (t *tap) mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.names)
}

// await waits for a command that comes after the mark.
func (t *tap) await(ctx context.Context, mark int, command string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		t.mu.Lock()
		said, heard := t.names[mark:], t.heard
		t.mu.Unlock()
		if slices.Contains(said, command) {
			return nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return fmt.Errorf("wait for %q on %s, where %q came by: %w", command, t.socket, said, ctx.Err())
		}
	}
}

// relay carries both directions until the client goes.
func (t *tap) relay(client net.Conn, server string) {
	defer func() { _ = client.Close() }()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: server, Net: "unix"})
	if err != nil {
		t.fail(err)
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		// It ends with either end of the conversation, which is no fault.
		_, _ = io.Copy(client, conn)
	})
	t.listen(io.TeeReader(client, conn))
	_ = conn.Close()
	answers.Wait()
}

// listen keeps each command. Reading is also what carries it on.
func (t *tap) listen(heard io.Reader) {
	decoder := json.NewDecoder(heard)
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			if !errors.Is(err, io.EOF) {
				t.fail(err)
			}
			return
		}
		var command struct {
			Execute string `json:"execute"`
		}
		if err := json.Unmarshal(raw, &command); err != nil {
			t.fail(err)
			return
		}
		if command.Execute != "qmp_capabilities" {
			t.mu.Lock()
			t.commands, t.names = append(t.commands, raw), append(t.names, command.Execute)
			close(t.heard)
			t.heard = make(chan struct{})
			t.mu.Unlock()
		}
	}
}

func (t *tap) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = errors.Join(t.err, fmt.Errorf("listen in on a QMP socket: %w", err))
}
