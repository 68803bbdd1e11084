package remote

import (
	"encoding/binary"
	"errors"
	"unsafe"
)

// errMalformed says that a frame is not what its kind wants.
var errMalformed = errors.New("keyring: malformed frame")

// encoder appends values to a frame: integers big-endian, everything of variable
// length behind its length as a varint.
type encoder struct{ b []byte }

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16) { e.b = binary.BigEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }
func (e *encoder) raw(v []byte) { e.b = append(e.b, v...) }

func (e *encoder) length(n int) { e.b = binary.AppendUvarint(e.b, uint64(n)) }

func (e *encoder) bytes(v []byte) {
	e.length(len(v))
	e.b = append(e.b, v...)
}

func (e *encoder) string(v string) {
	e.length(len(v))
	e.b = append(e.b, v...)
}

func (e *encoder) bool(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}

// decoder takes values off a frame. After the first thing that is not there
// everything is zero, so that only the end has to be looked at.
type decoder struct {
	b   []byte
	bad bool
}

// take gives the next n bytes of the frame itself; nil where there are fewer.
func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() uint8 {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if v := d.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// length takes the number of things that follow, each of which has at least size
// bytes, so that no frame makes us reserve more than it is long.
func (d *decoder) length(size int) int {
	n, used := binary.Uvarint(d.b)
	if d.bad || used <= 0 || n > uint64((len(d.b)-used)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[used:]
	return int(n)
}

// borrowed gives bytes of the frame itself: nil for none. They are gone when the
// frame is cleared.
func (d *decoder) borrowed() []byte {
	n := d.length(1)
	if n == 0 {
		return nil
	}
	return d.take(n)
}

// bytes gives a copy; nil for none.
func (d *decoder) bytes() []byte { return append([]byte(nil), d.borrowed()...) }

func (d *decoder) string() string { return string(d.borrowed()) }

// borrowedString gives text of the frame itself, for a secret that is to be gone
// with it. Nothing may keep it.
func (d *decoder) borrowedString() string {
	b := d.borrowed()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// bool takes 0 or 1 and nothing else: there is one way to write each value.
func (d *decoder) bool() bool {
	v := d.u8()
	if v > 1 {
		d.bad = true
	}
	return v == 1
}

// done tells whether all of the frame was as it should be, and nothing is left.
func (d *decoder) done() error {
	if d.bad || len(d.b) > 0 {
		return errMalformed
	}
	return nil
}
