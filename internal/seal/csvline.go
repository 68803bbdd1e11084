package seal

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLine bounds a line of a key list, in bytes: a row may list all 65,536
// DevNonces.
const maxLine = 512 << 10

var (
	errLineTooLong = errors.New("the line is longer than 512 KiB")
	errQuote       = errors.New(`a field that begins with a quotation mark does not end with one on this line`)
)

// lineReader reads one line at a time in memory that does not grow.
type lineReader struct {
	r    *bufio.Reader
	line uint64 // number of the last line, from 1
}

func newLineReader(in io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(in, maxLine)}
}

// next gives the next line without its end, valid until the call after. io.EOF
// after the last one; errLineTooLong skips a line that is too long.
func (l *lineReader) next() ([]byte, error) {
	text, err := l.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(text) == 0 {
		return nil, io.EOF
	}
	l.line++
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, l.skip()
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	}
	return bytes.TrimRight(text, "\r\n"), nil
}

// skip reads on to the end of a line that is too long.
func (l *lineReader) skip() error {
	for {
		_, err := l.r.ReadSlice('\n')
		switch {
		case err == nil || errors.Is(err, io.EOF):
			return errLineTooLong
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// splitFields splits a line of CSV at sep into fields, reusing the slice given
// (RFC 4180 §2). Quoted fields are unquoted in place; a quotation mark inside an
// unquoted field is taken as it is, and a quoted field ends on its line.
func splitFields(line []byte, sep byte, fields [][]byte) ([][]byte, error) {
	fields = fields[:0]
	for {
		var field []byte
		var err error
		var more bool
		if field, line, more, err = cutField(line, sep); err != nil {
			return fields, err
		}
		fields = append(fields, field)
		if !more {
			return fields, nil
		}
	}
}

// cutField takes one field off line; more tells whether a separator followed.
func cutField(line []byte, sep byte) (field, rest []byte, more bool, err error) {
	if len(line) == 0 || line[0] != '"' {
		field, rest, more = bytes.Cut(line, []byte{sep})
		return bytes.TrimSpace(field), rest, more, nil
	}
	// Two quotation marks stand for one; the first single one ends the field.
	body := line[1:]
	w := 0
	for i := 0; i < len(body); i++ {
		if body[i] == '"' {
			if i+1 == len(body) || body[i+1] != '"' {
				rest = body[i+1:]
				if len(rest) > 0 && rest[0] != sep {
					return nil, nil, false, errQuote
				}
				more = len(rest) > 0
				return bytes.TrimSpace(body[:w]), bytes.TrimPrefix(rest, []byte{sep}), more, nil
			}
			i++
		}
		body[w] = body[i]
		w++
	}
	return nil, nil, false, errQuote
}
