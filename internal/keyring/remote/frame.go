package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// MaxFrame is the length of the longest frame, in bytes, without its length.
const MaxFrame = 1 << 20

// errTooLong says that a message does not fit into a frame.
var errTooLong = errors.New("keyring: a message is too long for its process")

// frameHead is the length that stands in front of a frame.
const frameHead = 4

// keptBuffer is how much of a buffer stays when it was needed for longer frames.
const keptBuffer = 64 << 10

// inbox reads frames. It is used by one goroutine.
type inbox struct {
	from       io.Reader
	buf        []byte
	next, last int // what was read and not yet given out
	given      int // where the frame that was given out begins
}

// frame gives the next frame, which is cleared by the next call. io.EOF where the
// other side ended between frames.
func (in *inbox) frame(longest int) ([]byte, error) {
	clear(in.buf[in.given:in.next])
	in.given = in.next
	if err := in.fill(frameHead); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(in.buf[in.next:])
	if n > uint32(longest) {
		return nil, fmt.Errorf("%w: %d bytes", errMalformed, n)
	}
	if err := in.fill(frameHead + int(n)); err != nil {
		if err == io.EOF { //nolint:errorlint // as io.Reader gives it
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	frame := in.buf[in.next+frameHead : in.next+frameHead+int(n)]
	in.given, in.next = in.next, in.next+frameHead+int(n)
	return frame, nil
}

// await waits until something comes, and leaves it there.
func (in *inbox) await() error {
	clear(in.buf[in.given:in.next])
	in.given = in.next
	return in.fill(1)
}

// fill reads until n bytes are there that were not given out.
func (in *inbox) fill(n int) error {
	if in.last-in.next >= n {
		return nil
	}
	in.makeRoom(n)
	for in.last-in.next < n {
		got, err := in.from.Read(in.buf[in.last:])
		in.last += got
		if got == 0 && err != nil {
			if err == io.EOF && in.last > in.next { //nolint:errorlint // as io.Reader gives it
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// makeRoom moves what is there to the front of a buffer for n bytes, and leaves
// no copy behind.
func (in *inbox) makeRoom(n int) {
	old, there := in.buf, in.buf[in.next:in.last]
	switch {
	case n > len(old):
		in.buf = make([]byte, max(n, keptBuffer))
	case len(old) > keptBuffer && n <= keptBuffer && len(there) <= keptBuffer:
		in.buf = make([]byte, keptBuffer)
	case len(old)-in.next >= max(n, keptBuffer/2):
		return // enough room behind it
	}
	moved := copy(in.buf, there)
	if len(old) > 0 && &old[0] == &in.buf[0] {
		clear(old[moved:in.last])
	} else {
		clear(old)
	}
	in.given, in.next, in.last = 0, 0, moved
}

// wipe clears everything that is left.
func (in *inbox) wipe() { clear(in.buf) }

// outbox writes frames for many goroutines. While one of them writes, the others
// leave their frames to it, so that under load one system call takes many.
type outbox struct {
	to io.Writer

	mu      sync.Mutex
	e       encoder // frames that wait to be written
	start   int     // where the frame at hand begins
	spare   []byte
	writing bool
	err     error
}

// begin starts a frame, which is written by end. Nobody else writes meanwhile.
func (o *outbox) begin() *encoder {
	o.mu.Lock()
	o.start = len(o.e.b)
	o.e.u32(0) // the length, see end
	return &o.e
}

// end sends the frame. It fails where the frame is too long, which leaves the
// connection as it is, or where the connection is broken.
func (o *outbox) end() error {
	defer o.mu.Unlock()
	n := len(o.e.b) - o.start - frameHead
	if n > MaxFrame {
		clear(o.e.b[o.start:])
		o.e.b = o.e.b[:o.start]
		return fmt.Errorf("%w: %d bytes, and %d is the most", errTooLong, n, MaxFrame)
	}
	binary.BigEndian.PutUint32(o.e.b[o.start:], uint32(n))
	if o.err != nil {
		clear(o.e.b)
		o.e.b = o.e.b[:0]
		return o.err
	}
	if o.writing {
		return nil
	}
	o.writing = true
	for len(o.e.b) > 0 && o.err == nil {
		frames := o.e.b
		o.e.b, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		_, err := o.to.Write(frames)
		clear(frames)
		o.mu.Lock()
		o.err = err
		if cap(frames) <= keptBuffer {
			o.spare = frames[:0]
		}
	}
	o.writing = false
	return o.err
}
