package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// command is one QMP command, as far as it is looked at.
type command struct {
	Execute   string `json:"execute"`
	Arguments struct {
		JobID string `json:"job-id"`
	} `json:"arguments"`
}

// message is a line from QEMU: a reply, an event, or the greeting.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  json.RawMessage `json:"error"`
	Event  string          `json:"event"`
	Data   struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	} `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// at is when QEMU sent an event.
func (m message) at() time.Time {
	return time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*int64(time.Microsecond))
}

// worker gives commands in turn and waits for the jobs that they begin.
type worker struct {
	*connection
	// stopped is when the guest's vCPUs last stopped, paused how long they stood still.
	stopped time.Time
	paused  time.Duration
	// concluded are the jobs that have, which may be told before the reply to the
	// command that began one.
	concluded map[string]bool
}

// jobs gives commands in turn, each when the one before it is done: one that begins a
// job is done when that has concluded without an error and is dismissed. It prints how
// long the guest stood still meanwhile.
func jobs(socket string, commands []json.RawMessage, deadline time.Time, out io.Writer) error {
	conn, err := dial(socket, deadline)
	if err != nil {
		return err
	}
	defer conn.close()
	w := &worker{connection: conn, concluded: map[string]bool{}}
	if _, err := w.give([]byte(capabilities)); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	for _, text := range commands {
		if err := w.do(text); err != nil {
			return fmt.Errorf("%s: %s: %w", socket, text, err)
		}
	}
	_, err = fmt.Fprintln(out, "paused", w.paused)
	return err
}

// do gives a command and sees its job to the end.
func (w *worker) do(text json.RawMessage) error {
	var c command
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if _, err := w.give(text); err != nil || c.Arguments.JobID == "" {
		return err
	}
	for !w.concluded[c.Arguments.JobID] {
		if _, err := w.next(); err != nil {
			return err
		}
	}
	delete(w.concluded, c.Arguments.JobID)
	if err := w.outcome(c.Arguments.JobID); err != nil {
		return err
	}
	dismiss, err := json.Marshal(map[string]any{"execute": "job-dismiss", "arguments": map[string]string{"id": c.Arguments.JobID}})
	if err != nil {
		return err
	}
	_, err = w.give(dismiss)
	return err
}

// outcome is the error of a job that has concluded.
func (w *worker) outcome(id string) error {
	answer, err := w.give([]byte(`{"execute":"query-jobs"}`))
	if err != nil {
		return err
	}
	var all []struct {
		ID    string `json:"id"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &all); err != nil {
		return err
	}
	for _, j := range all {
		if j.ID == id && j.Error != "" {
			return errors.New(j.Error)
		}
	}
	return nil
}

// give sends a command and waits for its reply; a refusal is an error.
func (w *worker) give(text []byte) (json.RawMessage, error) {
	if err := w.send(text); err != nil {
		return nil, err
	}
	for {
		m, err := w.next()
		switch {
		case err != nil:
			return nil, err
		case m.Error != nil:
			return nil, fmt.Errorf("refused: %s", m.Error)
		case m.Return != nil:
			return m.Return, nil
		}
	}
}

// next is the next line, and takes note of what it says about jobs and vCPUs.
func (w *worker) next() (message, error) {
	var m message
	err := w.decoder.Decode(&m)
	switch {
	case m.Event == "JOB_STATUS_CHANGE" && m.Data.Status == "concluded":
		w.concluded[m.Data.ID] = true
	case m.Event == "STOP":
		w.stopped = m.at()
	case m.Event == "RESUME" && !w.stopped.IsZero():
		w.paused += m.at().Sub(w.stopped)
		w.stopped = time.Time{}
	}
	return m, err
}
