package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

// columnGap is what stands between columns, as in printTable.
const columnGap = "   "

// columns print rows as they come, lined up under a header. What is wider than
// the rows before it makes its column wider from there on.
type columns struct {
	out    io.Writer
	header []string
	widths []int
	begun  bool
}

// newColumns prints nothing yet. The rows make room before they come, so that
// the columns of what comes one by one line up from the first row on.
func newColumns(out io.Writer, header []string, rows ...[]string) *columns {
	c := &columns{out: out, header: header, widths: make([]int, len(header))}
	c.fit(header)
	for _, row := range rows {
		c.fit(row)
	}
	return c
}

// fit makes room for a row.
func (c *columns) fit(row []string) {
	for i, cell := range row {
		c.widths[i] = max(c.widths[i], text.StringWidthWithoutEscSequences(cell))
	}
}

// add prints rows that are known at one time, the first ones below the header.
func (c *columns) add(rows ...[]string) {
	for _, row := range rows {
		c.fit(row)
	}
	if !c.begun {
		c.begun = true
		c.line(c.header)
	}
	for _, row := range rows {
		c.line(row)
	}
}

func (c *columns) line(row []string) {
	var b strings.Builder
	for i, cell := range row {
		b.WriteString(cell)
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", c.widths[i]-text.StringWidthWithoutEscSequences(cell)) + columnGap)
		}
	}
	fmt.Fprintln(c.out, strings.TrimRight(b.String(), " "))
}
