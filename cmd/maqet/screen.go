package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

// screen keeps the last lines of a terminal for what is going on right now:
// they are drawn over again and again, and vanish when it is over. It is not
// safe for use by several goroutines.
type screen struct {
	out io.Writer
	// size is the terminal's columns and rows; zero where it is not known.
	size func() (columns, rows int)
	// style is the colour of live lines.
	style text.Colors
	// drawn are the lines that are on the terminal now.
	drawn []string
}

// fallbackColumns and fallbackRows are taken for a terminal that does not tell
// its size.
const (
	fallbackColumns = 80
	fallbackRows    = 24
)

const eraseRow = "\x1b[2K"

func (s *screen) measure() (columns, rows int) {
	columns, rows = s.size()
	if columns < 1 {
		columns = fallbackColumns
	}
	if rows < 1 {
		rows = fallbackRows
	}
	return columns, rows
}

// draw replaces the live lines. Each is cut to one row, since a wrapped line
// could not be taken back, and there are never more than the window has.
func (s *screen) draw(lines []string) {
	columns, rows := s.measure()
	if most := max(rows-2, 1); len(lines) > most {
		more := fmt.Sprintf("... and %d more", len(lines)-most+1)
		lines = append(append([]string{}, lines[:most-1]...), more)
	}
	var b strings.Builder
	b.WriteString(s.erasure())
	s.drawn = s.drawn[:0]
	for _, line := range lines {
		line = text.Trim(line, columns-1)
		s.drawn = append(s.drawn, line)
		if s.style != nil {
			line = s.style.Sprint(line)
		}
		b.WriteString(line + "\n")
	}
	s.write(b.String())
}

// clear takes the live lines back, so that something lasting can be printed.
func (s *screen) clear() {
	s.write(s.erasure())
	s.drawn = s.drawn[:0]
}

// erasure is what takes the live lines back. A window that has become narrower
// since has wrapped them, so rows are counted anew.
func (s *screen) erasure() string {
	if len(s.drawn) == 0 {
		return ""
	}
	columns, _ := s.measure()
	rows := 0
	for _, line := range s.drawn {
		width := text.StringWidthWithoutEscSequences(line)
		rows += max(1, (width+columns-1)/columns)
	}
	// Row by row: many terminals keep a copy of what "erase to the end" takes.
	return "\r" + eraseRow + strings.Repeat("\x1b[A"+eraseRow, rows)
}

func (s *screen) write(sequence string) {
	if sequence != "" {
		fmt.Fprint(s.out, sequence)
	}
}
