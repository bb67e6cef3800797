package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// capabilities begins every conversation; it need not wait for the greeting.
const capabilities = `{"execute":"qmp_capabilities"}`

// pause is how long to wait before looking again for what sends no event.
const pause = time.Millisecond

// machine is one QEMU to be started.
type machine struct {
	Argv   []string `json:"argv"`
	Socket string   `json:"socket"`
	Log    string   `json:"log"`
}

// start runs QEMU, which goes on when this program has ended, until its guest runs.
func (m machine) start(deadline time.Time) error {
	log, err := os.OpenFile(m.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(m.Argv[0], m.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	return await(m.Socket, deadline)
}

// await connects as soon as the socket is there and asks until the guest runs.
func await(socket string, deadline time.Time) error {
	conn, err := dial(socket, deadline)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.send([]byte(capabilities + `{"execute":"query-status"}`)); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	answers := 2
	for {
		state, err := conn.state(answers)
		if err != nil {
			return fmt.Errorf("%s: %w", socket, err)
		}
		if state == "running" {
			return nil
		}
		time.Sleep(pause)
		if err := conn.send([]byte(`{"execute":"query-status"}`)); err != nil {
			return fmt.Errorf("%s: %w", socket, err)
		}
		answers = 1
	}
}

// status asks once for the run state.
func status(socket string, deadline time.Time) error {
	conn, err := dial(socket, deadline)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.send([]byte(capabilities + `{"execute":"query-status"}`)); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	state, err := conn.state(2)
	if err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	if state != "running" {
		return fmt.Errorf("%s: the guest is %q, want running", socket, state)
	}
	return nil
}

// end waits until QEMU lets go of the connection, and says when that begins and ends.
func end(socket string, deadline time.Time, out io.Writer) error {
	conn, err := dial(socket, deadline)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.send([]byte(capabilities)); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	if _, err := conn.answer(); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	if _, err := fmt.Fprintln(out, "connected"); err != nil {
		return err
	}
	for err == nil {
		_, err = conn.answer()
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%s: %w", socket, err)
	}
	_, err = fmt.Fprintln(out, "ended")
	return err
}

// pipeline is all commands in one write.
func pipeline(commands []json.RawMessage) []byte {
	return append([]byte(capabilities), bytes.Join(rawBytes(commands), nil)...)
}

func rawBytes(commands []json.RawMessage) [][]byte {
	all := make([][]byte, len(commands))
	for i, c := range commands {
		all[i] = c
	}
	return all
}

// ask sends all commands at once and reads all answers.
func ask(socket string, request []byte, commands int, deadline time.Time) error {
	conn, err := dial(socket, deadline)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.send(request); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	for range commands + 1 {
		if _, err := conn.answer(); err != nil {
			return fmt.Errorf("%s: %w", socket, err)
		}
	}
	return nil
}

// connection is one visit to a QMP socket.
type connection struct {
	conn    net.Conn
	decoder *json.Decoder
}

// dial connects, and waits for a socket that is not there yet.
func dial(socket string, deadline time.Time) (*connection, error) {
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err == nil {
			c := &connection{conn: conn, decoder: json.NewDecoder(conn)}
			return c, conn.SetDeadline(deadline)
		}
		early := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
		if !early || time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(pause)
	}
}

// close ends the visit; what could still fail has no meaning any more.
func (c *connection) close() { _ = c.conn.Close() }

func (c *connection) send(text []byte) error {
	_, err := c.conn.Write(text)
	return err
}

// state is the run state in the last of the next n answers.
func (c *connection) state(n int) (string, error) {
	var last json.RawMessage
	for range n {
		var err error
		if last, err = c.answer(); err != nil {
			return "", err
		}
	}
	var s struct {
		Status string `json:"status"`
	}
	err := json.Unmarshal(last, &s)
	return s.Status, err
}

// answer is the next reply; the greeting and events are passed over. A refusal
// is an answer, too: what maqet asks may be refused by some machines.
func (c *connection) answer() (json.RawMessage, error) {
	for {
		var m struct {
			Return json.RawMessage `json:"return"`
			Error  json.RawMessage `json:"error"`
		}
		if err := c.decoder.Decode(&m); err != nil {
			return nil, err
		}
		switch {
		case m.Return != nil:
			return m.Return, nil
		case m.Error != nil:
			return m.Error, nil
		}
	}
}
