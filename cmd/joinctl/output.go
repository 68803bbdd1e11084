package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/term"
)

// show writes v as JSON for programs, or what people makes for people.
func (a *app) show(v any, people func() error) error {
	if !a.flags.json {
		return people()
	}
	return writeJSON(a.out, v)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printf writes to standard output.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// columns is a table for people: names of the columns, and cells of a row.
type columns[T any] struct {
	names []string
	cells func(T) []any
	// empty is said instead of a table without rows.
	empty string
}

// showList writes a listing: a JSON array, or a table.
func showList[T any](a *app, items []T, c columns[T]) error {
	return showSeq(a, func(yield func(T, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}, c)
}

// showSeq writes a listing that may be long. JSON is written as it comes.
func showSeq[T any](a *app, items iter.Seq2[T, error], c columns[T]) error {
	if a.flags.json {
		return writeArray(a.out, items)
	}
	t := newTable(c.names...)
	widths := make([]int, len(c.names))
	n := 0
	for item, err := range items {
		if err != nil {
			return err
		}
		cells := cleanRow(c.cells(item))
		widen(widths, cells)
		t.AppendRow(cells)
		n++
	}
	if n == 0 {
		a.sayf("%s\n", c.empty)
		return nil
	}
	fit(t, widths, roomOf(a.out))
	return a.printf("%s\n", t.Render())
}

func writeArray[T any](out io.Writer, items iter.Seq2[T, error]) error {
	w := bufio.NewWriter(out)
	before := "["
	for item, err := range items {
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(item, "  ", "  ")
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n  %s", before, b); err != nil {
			return err
		}
		before = ","
	}
	end := "\n]\n"
	if before == "[" {
		end = "[]\n"
	}
	if _, err := w.WriteString(end); err != nil {
		return err
	}
	return w.Flush()
}

// facts writes one thing as lines of name and value; empty values are left out.
func (a *app) facts(pairs ...any) error {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, len(fmt.Sprint(pairs[i])))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		value := clean(fmt.Sprint(pairs[i+1]))
		if value == "" {
			continue
		}
		if err := a.printf("%-*s  %s\n", width, pairs[i], value); err != nil {
			return err
		}
	}
	return nil
}

func cleanRow(cells []any) table.Row {
	for i, cell := range cells {
		cells[i] = clean(fmt.Sprint(cell))
	}
	return cells
}

// clean keeps text from elsewhere from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// when writes a time for people; "never" said otherwise for no time.
func when(t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// joined writes a list on one line.
func joined[T any](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = fmt.Sprint(item)
	}
	return strings.Join(texts, " ")
}

// isTerminal tells whether a person watches w, or types into it. /dev/null, which
// cron and systemd give a program to read, is a device, too, and nobody is there.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat() // Fd is for devices alone: what it is taken of blocks from then on
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && term.IsTerminal(int(f.Fd()))
}
