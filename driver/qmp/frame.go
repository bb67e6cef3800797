package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"
)

const (
	// readBuffer is the size of one read from the socket.
	readBuffer = 16 << 10
	// keepLine is the largest line buffer kept between lines, so that one big
	// reply does not pin its size for the life of the connection.
	keepLine = 64 << 10
)

// lineReader cuts the byte stream into lines of at most max bytes.
type lineReader struct {
	src *bufio.Reader
	max int
	buf []byte
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{src: bufio.NewReaderSize(r, readBuffer), max: limit}
}

// next returns the next line that is not blank, without its line end. The slice
// is valid until the following call. A stream that ends inside a line is
// io.ErrUnexpectedEOF, one that ends between lines io.EOF.
func (l *lineReader) next() ([]byte, error) {
	for {
		line, err := l.line()
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			return line, nil
		}
	}
}

// line returns one line. Lines that fit the read buffer are not copied.
func (l *lineReader) line() ([]byte, error) {
	if cap(l.buf) > keepLine {
		l.buf = nil
	}
	l.buf = l.buf[:0]
	for {
		part, err := l.src.ReadSlice('\n')
		if contentLen(l.buf, part) > l.max {
			return nil, protocolError(append(l.buf, part...), nil,
				"a line exceeds the bound of %d bytes (Options.MaxReply)", l.max)
		}
		switch {
		case err == nil && len(l.buf) == 0:
			return trimEnd(part), nil
		case err == nil:
			l.buf = append(l.buf, part...)
			return trimEnd(l.buf), nil
		case errors.Is(err, bufio.ErrBufferFull):
			l.buf = append(l.buf, part...)
		case errors.Is(err, io.EOF) && len(l.buf)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// contentLen returns the length of a line of two parts without its line end. A
// carriage return at the very end counts as the beginning of one: its line feed
// may be in the next read.
func contentLen(head, tail []byte) int {
	n := len(head) + len(tail)
	last := func(i int) byte { // the byte i places before the end
		switch {
		case i < len(tail):
			return tail[len(tail)-1-i]
		case i < n:
			return head[n-1-i]
		default:
			return 0
		}
	}
	switch {
	case last(0) == '\n' && last(1) == '\r':
		return n - 2
	case last(0) == '\n', last(0) == '\r':
		return n - 1
	default:
		return n
	}
}

// trimEnd removes one line end, with or without a carriage return. A carriage
// return alone stays: its line feed may not have arrived yet.
func trimEnd(b []byte) []byte {
	n := len(b)
	if n == 0 || b[n-1] != '\n' {
		return b
	}
	if n > 1 && b[n-2] == '\r' {
		return b[:n-2]
	}
	return b[:n-1]
}

// message is one decoded line. Exactly one of greeting, event and reply is set.
type message struct {
	greeting *Greeting
	event    *Event
	reply    *reply
}

// reply is the answer to the command with the same id, or without an id to the next
// command that has none.
type reply struct {
	id    string
	value json.RawMessage
	err   *Error
}

// wireMessage has every top-level key that QMP sends. Raw fields tell an absent
// key from an empty one: the presence of error decides, whatever is in it.
type wireMessage struct {
	QMP       json.RawMessage `json:"QMP"`
	Event     *string         `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
	Return json.RawMessage `json:"return"`
	Error  json.RawMessage `json:"error"`
	ID     json.RawMessage `json:"id"`
}

// decodeMessage reads one line. The result shares no memory with line. Every
// error is a *ProtocolError.
func decodeMessage(line []byte) (message, error) {
	var w wireMessage
	if err := json.Unmarshal(line, &w); err != nil {
		return message{}, protocolError(line, err, "a line is not a QMP message")
	}
	switch {
	case w.QMP != nil:
		g, err := decodeGreeting(w.QMP)
		if err != nil {
			return message{}, protocolError(line, err, "the greeting cannot be read")
		}
		return message{greeting: g}, nil
	case w.Event != nil:
		return message{event: &Event{
			Name:      *w.Event,
			Data:      w.Data,
			Timestamp: time.Unix(w.Timestamp.Seconds, w.Timestamp.Microseconds*int64(time.Microsecond)),
		}}, nil
	case w.Error != nil || w.Return != nil:
		return decodeReply(line, &w)
	default:
		return message{}, protocolError(line, nil, "a line is neither greeting, event nor reply")
	}
}

// decodeReply reads a reply.
func decodeReply(line []byte, w *wireMessage) (message, error) {
	r := &reply{value: w.Return}
	if w.Error != nil {
		var e struct{ Class, Desc string }
		if err := json.Unmarshal(w.Error, &e); err != nil {
			return message{}, protocolError(line, err, "an error reply cannot be read")
		}
		r.value, r.err = nil, &Error{Class: e.Class, Desc: e.Desc}
	}
	if w.ID == nil {
		return message{reply: r}, nil
	}
	if err := json.Unmarshal(w.ID, &r.id); err != nil {
		return message{}, protocolError(line, err, "the id of a reply is not a string")
	}
	return message{reply: r}, nil
}
