package manifest

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of a manifest. Real entries take about 3.5 kB.
const (
	MaxEntry   = 32 << 10
	MaxEntries = 10_000_000
	// maxGap is how much white space may stand between two entries.
	maxGap = 4 << 10
)

// Reader takes the entries off a manifest one by one. Its memory does not grow
// with the file.
type Reader struct {
	dec   *jsontext.Decoder
	in    *boundedReader
	count uint64
	begun bool
	err   error // sticky: what ended the reading
}

// NewReader reads the manifest in r.
func NewReader(r io.Reader) *Reader {
	in := &boundedReader{r: r}
	// Duplicate members are looked for in each entry, where they cost that
	// entry alone; here they would cost the rest of the file.
	return &Reader{in: in, dec: jsontext.NewDecoder(in, jsontext.AllowDuplicateNames(true))}
}

// Index is the index of the entry that Next returned last, from 0.
func (r *Reader) Index() uint64 { return r.count - 1 }

// Next gives the next entry as it stands in the file, unverified; io.EOF after
// the last. An error ends the reading, and says at which entry. The entry is a
// copy and the caller's to keep.
func (r *Reader) Next() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	entry, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	r.count++
	return entry, nil
}

func (r *Reader) next() ([]byte, error) {
	r.in.limit = r.dec.InputOffset() + MaxEntry + maxGap
	if !r.begun {
		open, err := r.dec.ReadToken()
		if err != nil || open.Kind() != '[' {
			return nil, r.fail(err)
		}
		r.begun = true
	}
	if r.dec.PeekKind() == ']' {
		return nil, r.end()
	}
	if r.count == MaxEntries {
		return nil, fmt.Errorf("%w: more than %d entries", ErrTooLarge, MaxEntries)
	}
	value, err := r.dec.ReadValue()
	if err != nil {
		return nil, r.fail(err)
	}
	if len(value) > MaxEntry {
		return nil, r.fail(errBound)
	}
	return append([]byte(nil), value...), nil
}

// end takes the closing bracket and refuses what follows it.
func (r *Reader) end() error {
	if _, err := r.dec.ReadToken(); err != nil {
		return r.fail(err)
	}
	r.in.limit = r.dec.InputOffset() + maxGap
	_, err := r.dec.ReadToken()
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the array", ErrFile)
	}
	return io.EOF
}

// fail names the entry and the rule. The decoder's own text is left out, since
// it may quote the file; an error of the file system is passed on.
func (r *Reader) fail(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, errBound):
		return fmt.Errorf("entry %d: %w: at most %d bytes", r.count, ErrTooLarge, MaxEntry)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the file ends at entry %d", ErrFile, r.count)
	case err == nil, errors.As(err, &syntax):
		return fmt.Errorf("%w: broken at entry %d", ErrFile, r.count)
	}
	return fmt.Errorf("read manifest at entry %d: %w", r.count, err)
}

var errBound = errors.New("bound reached")

// boundedReader passes on bytes up to an offset that moves with the entries.
type boundedReader struct {
	r      io.Reader
	offset int64
	limit  int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.offset >= b.limit {
		return 0, errBound
	}
	if room := b.limit - b.offset; int64(len(p)) > room {
		p = p[:room]
	}
	n, err := b.r.Read(p)
	b.offset += int64(n)
	return n, err
}
