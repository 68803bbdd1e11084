package exportfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"

	"joinery/internal/exposure"
	"joinery/internal/jsonlist"
)

// maxLine bounds a line of a file, in bytes: 65,536 DevNonces under several
// JoinEUIs, and blobs.
const maxLine = 4 << 20

// MarshalHeader gives the first line of a file, without line feed.
func MarshalHeader(h Header) ([]byte, error) { return json.Marshal(h, json.Deterministic(true)) }

// MarshalDevice gives the line of a device, without line feed.
func MarshalDevice(d Device) ([]byte, error) { return json.Marshal(d, json.Deterministic(true)) }

// ParseHeader reads the first line of a file strictly: unknown and duplicate members
// are refused. ErrFormat.
func ParseHeader(line []byte) (h Header, err error) {
	if err := json.Unmarshal(line, &h, json.RejectUnknownMembers(true)); err != nil {
		return Header{}, fmt.Errorf("%w: the first line is not a header of %s", ErrFormat, Format)
	}
	return h, h.Check()
}

// ParseDevice reads the line of a device of an export with header h as strictly, in
// room that does not grow beyond the line's: nobody knows yet who wrote it. ErrFormat.
func ParseDevice(line []byte, h Header) (d Device, err error) {
	if len(line) > maxLine {
		return Device{}, fmt.Errorf("%w: a line is longer than %d bytes", ErrFormat, maxLine)
	}
	if err := json.Unmarshal(line, &d, json.RejectUnknownMembers(true), json.WithUnmarshalers(bounded())); err != nil {
		return Device{}, fmt.Errorf("%w: not a device", ErrFormat)
	}
	return d, d.Check(h)
}

// bounded reads the lists of one device and counts while it does.
func bounded() *json.Unmarshalers {
	var times, keys, joinEUIs int
	return json.JoinUnmarshalers(
		jsonlist.Most[exposure.Time](exposure.MaxTimes, &times, ErrFormat),
		jsonlist.Most[Key](maxKeys, &keys, ErrFormat),
		jsonlist.Most[Nonces](maxJoinEUIs, &joinEUIs, ErrFormat),
	)
}

// Writer writes a file.
type Writer struct {
	w      *bufio.Writer
	header Header
}

// NewWriter writes the first line.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	f := &Writer{bufio.NewWriter(w), h}
	text, err := MarshalHeader(h)
	if err != nil {
		return nil, err
	}
	return f, f.line(text)
}

// Write writes one device.
func (f *Writer) Write(d Device) error {
	if err := d.Check(f.header); err != nil {
		return err
	}
	text, err := MarshalDevice(d)
	if err != nil {
		return err
	}
	return f.line(text)
}

// Flush writes what is buffered; call it after the last device.
func (f *Writer) Flush() error { return f.w.Flush() }

func (f *Writer) line(text []byte) error {
	if _, err := f.w.Write(text); err != nil {
		return err
	}
	return f.w.WriteByte('\n')
}

// Reader reads a file. Its memory does not grow with the file. Pages that were put
// one behind the other are read as one file where they repeat the same header.
type Reader struct {
	lines  *bufio.Scanner
	line   int
	head   []byte
	header Header
}

// NewReader reads the first line. ErrFormat.
func NewReader(r io.Reader) (*Reader, error) {
	f := &Reader{lines: bufio.NewScanner(r)}
	f.lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	line, err := f.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the file is empty", ErrFormat)
	case err != nil:
		return nil, err
	}
	f.head = bytes.Clone(line)
	f.header, err = ParseHeader(line)
	return f, err
}

// Header gives what all devices have in common.
func (f *Reader) Header() Header { return f.header }

// Line is the line of the device that Next gave last, from 1.
func (f *Reader) Line() int { return f.line }

// Next gives the next device; io.EOF at the end. After an error that wraps ErrFormat
// the next one may be whole.
func (f *Reader) Next() (Device, error) {
	for {
		line, err := f.next()
		switch {
		case err != nil:
			return Device{}, err
		case bytes.Equal(line, f.head):
			continue
		}
		d, err := ParseDevice(line, f.header)
		if err != nil {
			return Device{}, fmt.Errorf("line %d: %w", f.line, err)
		}
		return d, nil
	}
}

// next gives the next line that is not empty.
func (f *Reader) next() ([]byte, error) {
	for f.lines.Scan() {
		f.line++
		if line := bytes.TrimSpace(f.lines.Bytes()); len(line) > 0 {
			return line, nil
		}
	}
	switch err := f.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%w: line %d is longer than %d bytes; the rest is not read", errTooLong, f.line+1, maxLine)
	case err != nil:
		return nil, fmt.Errorf("reading the export: %w", err)
	}
	return nil, io.EOF
}

// errTooLong ends a file; it does not wrap ErrFormat, since nothing comes after it.
var errTooLong = errors.New("not a usable export")
