package main

import (
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// The styles of a terminal. They are values, never changed.
var (
	styleGood = text.Colors{text.FgGreen}
	styleWarn = text.Colors{text.FgYellow}
	styleBad  = text.Colors{text.FgRed}
	styleDim  = text.Colors{text.Faint}
)

// printTable writes columns that line up, without borders, so that a pipe can
// split the lines at white space.
func printTable(out io.Writer, header []string, rows [][]string) {
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "   "
	style.Format.Header = text.FormatDefault
	w := table.NewWriter()
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	w.AppendHeader(tableRow(header))
	for _, r := range rows {
		w.AppendRow(tableRow(r))
	}
	w.SetOutputMirror(out)
	w.Render()
}

func tableRow(cells []string) table.Row {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		row[i] = c
	}
	return row
}
