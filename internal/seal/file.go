package seal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
)

// A sealed key list is lines of JSON (NDJSON): a fileHeader first, then one
// SealedRow a line. It shows identifiers and hides keys; a row that was changed
// does not open, and none as anything but the roots of its own device. Rows can be
// left out, and nothing says who made the file: who may import for a JoinEUI is
// for the server to decide.
type fileHeader struct {
	Format string `json:"format"` // "joinery-keylist/1"
	Seal   Header `json:"seal"`
}

// FileWriter writes a sealed key list.
type FileWriter struct{ w *bufio.Writer }

// NewFileWriter writes the first line.
func NewFileWriter(w io.Writer, h Header) (*FileWriter, error) {
	f := &FileWriter{bufio.NewWriter(w)}
	if err := h.Check(); err != nil {
		return nil, err
	}
	return f, f.line(fileHeader{KeyListFormat, h})
}

// Write writes one row.
func (f *FileWriter) Write(row SealedRow) error {
	if err := row.Check(); err != nil {
		return fmt.Errorf("line %d: %w", row.Line, err)
	}
	return f.line(row)
}

// Flush writes what is buffered; call it after the last row.
func (f *FileWriter) Flush() error { return f.w.Flush() }

func (f *FileWriter) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := f.w.Write(text); err != nil {
		return err
	}
	return f.w.WriteByte('\n')
}

// FileReader reads a sealed key list. Its memory does not grow with the list.
type FileReader struct {
	lines  *lineReader
	header Header
}

// NewFileReader reads the first line. The error wraps ErrKeyList where the file
// is none of ours.
func NewFileReader(r io.Reader) (*FileReader, error) {
	f := &FileReader{lines: newLineReader(r)}
	line, err := f.lines.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the file is empty", ErrKeyList)
	case errors.Is(err, errLineTooLong):
		return nil, fmt.Errorf("%w: want %q in the first line", ErrKeyList, KeyListFormat)
	case err != nil:
		return nil, fmt.Errorf("reading the sealed key list: %w", err)
	}
	var h fileHeader
	if err := json.Unmarshal(line, &h, json.RejectUnknownMembers(true)); err != nil || h.Format != KeyListFormat {
		return nil, fmt.Errorf("%w: want %q in the first line; is this a list that was not sealed yet?", ErrKeyList, KeyListFormat)
	}
	if err := h.Seal.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyList, err)
	}
	f.header = h.Seal
	return f, nil
}

// Header gives what the recipient needs to open the rows.
func (f *FileReader) Header() Header { return f.header }

// Next gives the next row. A *RowError, whose line is that of the sealed file,
// means that this row is damaged and the next one may be whole; io.EOF is the
// end; after any other error there is no more.
func (f *FileReader) Next() (SealedRow, error) {
	for {
		line, err := f.lines.next()
		switch {
		case errors.Is(err, errLineTooLong):
			return SealedRow{}, &RowError{f.lines.line, err.Error()}
		case err != nil:
			return SealedRow{}, err
		case len(bytes.TrimSpace(line)) == 0:
			continue
		}
		var row SealedRow
		if err := json.Unmarshal(line, &row, json.RejectUnknownMembers(true)); err != nil {
			return SealedRow{}, &RowError{f.lines.line, "not a sealed row"}
		}
		if err := row.Check(); err != nil {
			return SealedRow{}, &RowError{f.lines.line, err.Error()}
		}
		return row, nil
	}
}
