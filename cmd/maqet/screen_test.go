package main

import (
	"strings"
	"testing"
)

// terminal shows what a person sees: it understands as much as screen writes,
// and wraps long lines.
type terminal struct {
	columns, rows int
	lines         [][]rune
	row, column   int
}

func newTerminal(columns, rows int) *terminal {
	return &terminal{columns: columns, rows: rows, lines: [][]rune{nil}}
}

func (s *terminal) size() (columns, rows int) { return s.columns, s.rows }

func (s *terminal) Write(b []byte) (int, error) {
	text := []rune(string(b))
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(string(text[i:]), "\x1b[A"):
			s.row = max(s.row-1, 0)
			i += 2
		case strings.HasPrefix(string(text[i:]), eraseRow):
			s.lines[s.row] = nil
			i += 3
		case text[i] == '\x1b':
			for text[i] != 'm' {
				i++
			}
		case text[i] == '\r':
			s.column = 0
		case text[i] == '\n':
			s.newline()
		default:
			s.put(text[i])
		}
	}
	return len(b), nil
}

func (s *terminal) newline() {
	s.row, s.column = s.row+1, 0
	if s.row == len(s.lines) {
		s.lines = append(s.lines, nil)
	}
}

func (s *terminal) put(r rune) {
	if s.column == s.columns {
		s.newline()
	}
	line := s.lines[s.row]
	for len(line) <= s.column {
		line = append(line, ' ')
	}
	line[s.column] = r
	s.lines[s.row] = line
	s.column++
}

// seen are the rows that are not empty.
func (s *terminal) seen() string {
	var rows []string
	for _, line := range s.lines {
		if text := strings.TrimRight(string(line), " "); text != "" {
			rows = append(rows, text)
		}
	}
	return strings.Join(rows, "\n")
}

func TestScreen_drawnAgain_replacesWhatWasDrawn(t *testing.T) {
	term := newTerminal(40, 10)
	s := &screen{out: term, size: term.size}
	s.draw([]string{"one", "two"})
	s.draw([]string{"one more"})
	if got := term.seen(); got != "one more" {
		t.Errorf("the terminal shows %q", got)
	}
	s.clear()
	if got := term.seen(); got != "" {
		t.Errorf("after clearing the terminal shows %q", got)
	}
}

func TestScreen_longLine_takesOneRow(t *testing.T) {
	term := newTerminal(10, 10)
	s := &screen{out: term, size: term.size, style: styleDim}
	s.draw([]string{"a line that is longer than the window"})
	if got := term.seen(); got != "a line th" {
		t.Errorf("the terminal shows %q", got)
	}
	s.clear()
	if got := term.seen(); got != "" {
		t.Errorf("after clearing the terminal shows %q", got)
	}
}

func TestScreen_moreLinesThanRows_saysHowManyMore(t *testing.T) {
	term := newTerminal(40, 5)
	s := &screen{out: term, size: term.size}
	s.draw([]string{"1", "2", "3", "4", "5"})
	if got := term.seen(); got != "1\n2\n... and 3 more" {
		t.Errorf("the terminal shows %q", got)
	}
}

func TestScreen_narrowedWindow_erasesWrappedRows(t *testing.T) {
	columns := 40
	var out strings.Builder
	s := &screen{out: &out, size: func() (int, int) { return columns, 24 }}
	s.draw([]string{strings.Repeat("x", 30)})
	out.Reset()
	columns = 12
	s.clear()
	if got := strings.Count(out.String(), "\x1b[A"); got != 3 {
		t.Errorf("goes up %d rows, want the 3 that 30 letters take in 12 columns", got)
	}
}

func TestScreen_unknownSize_takesTheUsual(t *testing.T) {
	s := &screen{size: func() (int, int) { return 0, 0 }}
	if columns, rows := s.measure(); columns != fallbackColumns || rows != fallbackRows {
		t.Errorf("measured %d x %d", columns, rows)
	}
}
