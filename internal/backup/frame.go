package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

const magic = "joinery-backup/1\n"

// Kinds of frames.
const (
	frameHeader = 'H'
	frameTable  = 'T'
	frameRows   = 'R'
	frameEnd    = 'E'
)

// Sizes of frames, in bytes: a frame of rows is written when it has reached
// rowsFrame, and none is read that is longer than maxFrame.
const (
	rowsFrame = 256 << 10
	maxFrame  = 64 << 20
	frameHead = 5
)

// Kinds of values.
const (
	valueNull = iota
	valueNumber
	valueText
	valueBytes
)

// frameWriter writes frames and hashes them.
type frameWriter struct {
	w    io.Writer
	hash hash.Hash
}

func newFrameWriter(w io.Writer) (*frameWriter, error) {
	f := &frameWriter{w: w, hash: sha256.New()}
	return f, f.put([]byte(magic))
}

func (f *frameWriter) put(b []byte) error {
	f.hash.Write(b) // never fails
	_, err := f.w.Write(b)
	return err
}

func (f *frameWriter) write(kind byte, content []byte) error {
	if len(content) > maxFrame {
		return fmt.Errorf("a row of %d bytes is more than a backup takes", len(content))
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(content)))
	if err := f.put(head); err != nil {
		return err
	}
	return f.put(content)
}

func (f *frameWriter) writeJSON(kind byte, v any) error {
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(kind, content)
}

// appendRow appends the stored form of a row.
func appendRow(b []byte, row []any) ([]byte, error) {
	for _, value := range row {
		switch v := value.(type) {
		case nil:
			b = append(b, valueNull)
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, valueNumber), uint64(v))
		case string:
			b = binary.AppendUvarint(append(b, valueText), uint64(len(v)))
			b = append(b, v...)
		case []byte:
			b = binary.AppendUvarint(append(b, valueBytes), uint64(len(v)))
			b = append(b, v...)
		default:
			return nil, fmt.Errorf("a backup has no form for %T", value)
		}
	}
	return b, nil
}

// frameReader reads frames and hashes them.
type frameReader struct {
	r    *bufio.Reader
	hash hash.Hash
	buf  []byte
}

func newFrameReader(r io.Reader) (*frameReader, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, rowsFrame), hash: sha256.New()}
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f.r, head); err != nil || string(head) != magic {
		return nil, explain(err, "it does not begin as a backup of joinery does, or is of a newer form")
	}
	f.hash.Write(head)
	return f, nil
}

// next reads one frame; content holds until the call after it. sum is SHA-256
// over all that stood before the frame.
func (f *frameReader) next() (kind byte, content []byte, sum [sha256.Size]byte, err error) {
	f.hash.Sum(sum[:0])
	var head [frameHead]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, sum, explain(err, "it is cut short")
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return 0, nil, sum, damaged("a frame has %d bytes", size)
	}
	if cap(f.buf) < int(size) {
		f.buf = make([]byte, size)
	}
	content = f.buf[:size]
	if _, err := io.ReadFull(f.r, content); err != nil {
		return 0, nil, sum, explain(err, "it is cut short")
	}
	f.hash.Write(head[:])
	f.hash.Write(content)
	return head[0], content, sum, nil
}

// end makes sure that nothing follows.
func (f *frameReader) end() error {
	_, err := f.r.ReadByte()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return explain(err, "something follows its end")
}

// rows reads the rows of a frame, each of n values.
func rows(content []byte, n int) (list [][]any, err error) {
	for len(content) > 0 {
		row := make([]any, n)
		for i := range row {
			if row[i], content, err = value(content); err != nil {
				return nil, err
			}
		}
		list = append(list, row)
	}
	return list, nil
}

func value(b []byte) (v any, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, damaged("a row is cut short")
	}
	kind, b := b[0], b[1:]
	switch kind {
	case valueNull:
		return nil, b, nil
	case valueNumber:
		if len(b) < 8 {
			return nil, nil, damaged("a number is cut short")
		}
		return int64(binary.BigEndian.Uint64(b)), b[8:], nil
	case valueText, valueBytes:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, nil, damaged("a value is cut short")
		}
		content, rest := b[n:n+int(size)], b[n+int(size):]
		if kind == valueText {
			return string(content), rest, nil
		}
		return append(make([]byte, 0, size), content...), rest, nil
	default:
		return nil, nil, damaged("a value is of unknown kind %d", kind)
	}
}
