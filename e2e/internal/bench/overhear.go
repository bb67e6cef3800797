package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// errSilence means that nothing was asked, so nothing could be overheard.
var errSilence = errors.New("no command came by on the socket")

// overhear stands between a QMP socket and its clients while do runs, and
// returns the commands that were sent, without the handshake.
func overhear(socket string, do func() error) (commands []json.RawMessage, err error) {
	moved := socket + ".real"
	if err := os.Rename(socket, moved); err != nil {
		return nil, fmt.Errorf("listen in on %s: %w", socket, err)
	}
	// A rename over the stand-in's path also removes the stand-in.
	defer func() { err = errors.Join(err, os.Rename(moved, socket)) }()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen in on %s: %w", socket, err)
	}
	listener.SetUnlinkOnClose(false)
	var (
		tap     tap
		clients sync.WaitGroup
	)
	clients.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // Closed below.
			}
			clients.Go(func() { tap.relay(client, moved) })
		}
	})
	err = do()
	err = errors.Join(err, listener.Close())
	clients.Wait()
	if err = errors.Join(err, tap.err); err != nil {
		return nil, err
	}
	if len(tap.commands) == 0 {
		return nil, fmt.Errorf("listen in on %s: %w", socket, errSilence)
	}
	return tap.commands, nil
}

// tap collects what clients say.
type tap struct {
	mu       sync.Mutex
	commands []json.RawMessage
	err      error
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
			t.commands = append(t.commands, raw)
			t.mu.Unlock()
		}
	}
}

func (t *tap) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = errors.Join(t.err, fmt.Errorf("listen in on a QMP socket: %w", err))
}
