package qemurun

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"
)

// qmpTimeout bounds one command on an otherwise idle QEMU.
const qmpTimeout = 30 * time.Second

// client is the least that can speak QMP: one command at a time, events on the
// side. It shares no code with maqet's own transport, so that it can judge it.
type client struct {
	conn   net.Conn
	dec    *json.Decoder
	events []Event
}

// Event is one QMP event.
type Event struct {
	Name string         `json:"event"`
	Data map[string]any `json:"data"`
}

type message struct {
	Event
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Greeting json.RawMessage `json:"QMP"`
}

func newClient(conn net.Conn) *client {
	return &client{conn: conn, dec: json.NewDecoder(conn)}
}

// next reads messages, keeping events, until want accepts one.
func (c *client) next(deadline time.Time, want func(message) bool) (message, error) {
	if err := c.conn.SetReadDeadline(deadline); err != nil {
		return message{}, err
	}
	for {
		var m message
		if err := c.dec.Decode(&m); err != nil {
			return message{}, err
		}
		if m.Name != "" {
			c.events = append(c.events, m.Event)
		}
		if want(m) {
			return m, nil
		}
	}
}

func (c *client) execute(command string, arguments any) (json.RawMessage, error) {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	data, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(append(data, '\n')); err != nil {
		return nil, err
	}
	m, err := c.next(time.Now().Add(qmpTimeout), func(m message) bool { return m.Return != nil || m.Error != nil })
	if err != nil {
		return nil, err
	}
	if m.Error != nil {
		return nil, fmt.Errorf("%s: %s", m.Error.Class, m.Error.Desc)
	}
	return m.Return, nil
}

// Execute runs a QMP command; an error reply ends the test.
func (m *Machine) Execute(command string, arguments any) json.RawMessage {
	m.t.Helper()
	reply, err := m.qmp.execute(command, arguments)
	if err != nil {
		m.fatalf("qmp %s: %v", command, err)
	}
	return reply
}

// Status returns the run state of query-status.
func (m *Machine) Status() string {
	m.t.Helper()
	var status struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(m.Execute("query-status", nil), &status); err != nil {
		m.fatalf("query-status: %v", err)
	}
	return status.Status
}

// WaitEvent waits for an event of this name, counting those that came before.
func (m *Machine) WaitEvent(name string, timeout time.Duration) Event {
	m.t.Helper()
	for _, e := range m.qmp.events {
		if e.Name == name {
			return e
		}
	}
	got, err := m.qmp.next(time.Now().Add(timeout), func(msg message) bool { return msg.Name == name })
	if err != nil {
		var seen []string
		for _, e := range m.qmp.events {
			seen = append(seen, e.Name)
		}
		m.fatalf("event %s within %s: %v; seen: %s", name, timeout, err, strings.Join(seen, " "))
	}
	return got.Event
}

// TryExecute runs a QMP command on a QEMU that may be ending meanwhile, and reports
// whether it was answered without an error.
func (m *Machine) TryExecute(command string) bool {
	_, err := m.qmp.execute(command, nil)
	return err == nil
}
