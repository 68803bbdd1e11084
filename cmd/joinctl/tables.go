package main

import (
	"io"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// newTable makes a table: columns under each other, no lines, no colours.
func newTable(names ...string) table.Writer {
	t := table.NewWriter()
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Box.UnfinishedRow = "…"
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	header := make(table.Row, len(names))
	for i, name := range names {
		header[i] = name
	}
	t.AppendHeader(header)
	return t
}

// freeText is how wide a column may be before it is cut where room is short: an
// identifier, a time or a device's two EUI-64s are never that wide.
const freeText = 36

// fit has a table keep to a terminal: wide columns of text are cut first, and
// what then is too long ends at the edge. To a file or a pipe all of it goes.
func fit(t table.Writer, widths []int, room int) {
	if room <= 0 {
		return
	}
	total := 0
	for _, w := range widths {
		total += w + 2
	}
	if total <= room {
		return
	}
	var cut []table.ColumnConfig
	for i, w := range widths {
		if w > freeText {
			cut = append(cut, table.ColumnConfig{Number: i + 1, WidthMax: freeText, WidthMaxEnforcer: func(s string, n int) string { return text.Snip(s, n, "…") }})
		}
	}
	t.SetColumnConfigs(cut)
	t.Style().Size.WidthMax = room
}

// roomOf gives the width of the terminal that w is, in characters; 0 where it is
// none.
func roomOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// widen notes how wide the cells of a row are.
func widen(widths []int, row table.Row) {
	for i, cell := range row {
		if s, ok := cell.(string); ok && i < len(widths) {
			widths[i] = max(widths[i], text.StringWidthWithoutEscSequences(s))
		}
	}
}
