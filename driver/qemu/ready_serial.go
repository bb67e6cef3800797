package qemu

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
)

// maxLine is how much of a line of the serial log is looked at as one.
const maxLine = 64 << 10

// serialScan looks for a line in a growing log. It remembers how far it has looked,
// and holds no more than one line.
type serialScan struct {
	path string
	re   *regexp.Regexp
	at   int64  // behind what was read
	line []byte // the line that is not finished yet
}

// newSerialScan looks behind an offset.
func newSerialScan(path string, from int64, match string) (*serialScan, error) {
	re, err := compileMatch(match)
	if err != nil {
		return nil, err
	}
	return &serialScan{path: path, re: re, at: from}, nil
}

// more looks at what has been written since the last call. A line that is not
// finished counts too: a login prompt ends without a newline.
func (s *serialScan) more() (found bool, err error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() < s.at {
		s.at, s.line = 0, nil // it was rotated
	}
	buf := make([]byte, maxLine)
	for {
		n, err := f.ReadAt(buf, s.at)
		s.at += int64(n)
		if s.feed(buf[:n]) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return s.matches(s.line), nil
		}
		if err != nil {
			return false, err
		}
	}
}

// feed looks at the lines that end in b, and keeps the rest.
func (s *serialScan) feed(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			s.line = append(s.line, b...)
			if len(s.line) > maxLine {
				s.line = append(s.line[:0], s.line[len(s.line)-maxLine:]...)
			}
			return false
		}
		line := b[:i]
		if len(s.line) > 0 {
			line = append(s.line, line...)
		}
		b, s.line = b[i+1:], nil
		if s.matches(line) {
			return true
		}
	}
}

// matches looks at one line without its end.
func (s *serialScan) matches(line []byte) bool { return s.re.Match(bytes.TrimRight(line, "\r")) }
