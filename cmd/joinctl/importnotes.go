package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"joinery"
	"joinery/client"
)

// maxListed is how many rows are listed at the end of an import; a file of
// --report has them all.
const maxListed = 1000

// notes is what is remembered of the results of an import: little, however many
// rows there are.
type notes struct {
	// results gets every result, as a line of JSON; without a file nobody wants them.
	results results
	// dryRun rows are kept by nobody, so those that were refused are noted here,
	// and written to refused.
	dryRun   bool
	refused  rowList
	warnings rowList
}

// rowList is rows to be listed: the first ones, and how many there are.
type rowList struct {
	first []client.RowResult
	count uint64
	// all gets every row; nil: no file was named.
	all *lineFile
}

func (l *rowList) add(r client.RowResult) error {
	l.count++
	if len(l.first) < maxListed {
		l.first = append(l.first, r)
	}
	return l.all.write(r)
}

// omitted is how many rows are not listed.
func (l *rowList) omitted() uint64 { return l.count - uint64(len(l.first)) }

// take notes the results of a batch of count rows.
func (n *notes) take(results []client.RowResult, count int) error {
	if len(results) != count && (n.dryRun || n.results.lineFile != nil) {
		return errors.New("an answer was lost, and with it what became of some rows")
	}
	for _, r := range results {
		if err := n.results.write(r); err != nil {
			return err
		}
		if n.dryRun && joinery.RowStatus(r.Status).Refused() {
			if err := n.refused.add(r); err != nil {
				return err
			}
		}
		if r.Warning != "" {
			if err := n.warnings.add(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// lineFile is a file of JSON objects, one a line. A nil one takes nothing.
type lineFile struct {
	f *os.File
	w *bufio.Writer
}

// newLineFile makes a file; none where path is "".
func newLineFile(path string) (*lineFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &lineFile{f, bufio.NewWriter(f)}, nil
}

func (l *lineFile) write(v any) error {
	if l == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.w.Write(append(b, '\n'))
	return err
}

func (l *lineFile) close() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.w.Flush(), l.f.Close())
}

// describeRow says of a row what it is about and what is the matter with it.
func describeRow(r client.RowResult, what string) string {
	about := ""
	if r.Serial != "" {
		about = " serial " + clean(r.Serial)
	}
	if !r.DevEUI.IsZero() {
		about += fmt.Sprintf(" (%s/%s)", r.JoinEUI, r.DevEUI)
	}
	return fmt.Sprintf("line %d: %s%s", r.Line, clean(what), about)
}
