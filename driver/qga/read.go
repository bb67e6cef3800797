package qga

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
)

// readBuffer is the size of one read from the socket.
const readBuffer = 32 << 10

// lineReader cuts the agent's bytes into lines of at most max bytes.
type lineReader struct {
	from *patient
	src  *bufio.Reader
	max  int
}

func newLineReader(from *patient, limit int) *lineReader {
	return &lineReader{from: from, src: bufio.NewReaderSize(from, readBuffer), max: limit}
}

// next is the next line that is not blank, without its end. A stream that ends inside
// a line is io.ErrUnexpectedEOF.
func (l *lineReader) next(ctx context.Context) ([]byte, error) {
	l.from.ctx = ctx
	for {
		line, err := l.line()
		if err != nil {
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

func (l *lineReader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := l.src.ReadSlice('\n')
		if len(line)+len(part) > l.max {
			return nil, protocolError(append(line, part...), nil, "an answer is longer than %d bytes", l.max)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// behindSentinel is the next line of at most limit bytes that has a sentinel before
// it, from the last sentinel on. All else is passed over, however long it is.
func (l *lineReader) behindSentinel(ctx context.Context, limit int) ([]byte, error) {
	l.from.ctx = ctx
	var line []byte
	inside := false
	for {
		b, err := l.src.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case b == sentinel:
			line, inside = line[:0], true
		case !inside:
		case b == '\n':
			return bytes.TrimSpace(line), nil
		case len(line) == limit:
			inside = false
		default:
			line = append(line, b)
		}
	}
}
