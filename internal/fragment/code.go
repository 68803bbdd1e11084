package fragment

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"math/bits"
)

// Bounds of a session: NbFrag has 14 bits in a fragment's number, which parity
// fragments need, too.
const (
	MaxIndex    = 1<<14 - 1
	MaxFragSize = 255
)

// ErrSession says that a session cannot be.
var ErrSession = errors.New("no such fragmentation session")

// row calls yes with each of the m fragments that parity fragment n, from 1, is the
// XOR of (TS004 annex: the matrix of its parity check code, drawn by PRBS23). In
// version 1 m/2 draws are made, of which some may be of the same fragment, which is
// then in it once; in version 2 it is drawn until there are m/2 fragments.
func row(v Version, n, m int, yes func(i int)) {
	power := 0
	if bits.OnesCount(uint(m)) == 1 {
		power = 1 // else a generator with a period of a power of two would walk in a circle
	}
	x := uint32(1 + 1001*n)
	drawn := make([]uint64, (m+63)/64)
	for draws := 0; draws < m/2; {
		r := m
		for r >= m {
			x = prbs23(x)
			r = int(x) % (m + power)
		}
		fresh := drawn[r/64]&(1<<(r%64)) == 0
		if fresh {
			drawn[r/64] |= 1 << (r % 64)
			yes(r)
		}
		if fresh || v < V2 {
			draws++
		}
	}
}

// prbs23 is the next number of the generator: 23 bits, shifted right, the new one on
// top is bit 0 XOR bit 5.
func prbs23(x uint32) uint32 { return x>>1 | (x^x>>5)&1<<22 }

// Encoder gives the fragments of a block.
type Encoder struct {
	version Version
	block   []byte // filled up with zeros
	size    int
	m       int
}

// NewEncoder makes an encoder of a block in fragments of size bytes. ErrSession.
func NewEncoder(v Version, block []byte, size int) (*Encoder, error) {
	if len(block) == 0 || size < 1 || size > MaxFragSize {
		return nil, fmt.Errorf("%w: want a block, and fragments of 1 to %d bytes", ErrSession, MaxFragSize)
	}
	m := (len(block) + size - 1) / size
	if m > MaxIndex {
		return nil, fmt.Errorf("%w: %d fragments of %d bytes; want at most %d", ErrSession, m, size, MaxIndex)
	}
	padded := make([]byte, m*size)
	copy(padded, block)
	return &Encoder{version: v, block: padded, size: size, m: m}, nil
}

// Count gives how many fragments the block has, without parity.
func (e *Encoder) Count() int { return e.m }

// Padding gives how many zeros stand behind the block.
func (e *Encoder) Padding(length int) int { return len(e.block) - length }

// Fragment gives fragment n, from 1: one of the block's up to Count, parity behind.
func (e *Encoder) Fragment(n int) []byte {
	out := make([]byte, e.size)
	if n <= e.m {
		copy(out, e.block[(n-1)*e.size:])
		return out
	}
	row(e.version, n-e.m, e.m, func(i int) { subtle.XORBytes(out, out, e.block[i*e.size:][:e.size]) })
	return out
}

// Decoder puts a block together from fragments, in any order. Memory is that of the
// block, and of a matrix as large as the square of what is missing.
type Decoder struct {
	version Version
	size, m int
	block   []byte
	have    []bool
	missing int
	// rows are equations between fragments that are missing, each under the first of
	// them that it has, so that they are in echelon form.
	rows     map[int]equation
	received map[int]bool
	most     int
	full     bool
}

// equation says that the XOR of some fragments is data.
type equation struct {
	of   []uint64
	data []byte
}

// NewDecoder makes a decoder of m fragments of size bytes. most bounds how many
// equations it keeps, and so what may be missing; 0: no bound. ErrSession.
func NewDecoder(v Version, m, size, most int) (*Decoder, error) {
	if m < 1 || m > MaxIndex || size < 1 || size > MaxFragSize {
		return nil, fmt.Errorf("%w: want 1 to %d fragments of 1 to %d bytes", ErrSession, MaxIndex, MaxFragSize)
	}
	if most == 0 {
		most = m
	}
	return &Decoder{version: v, size: size, m: m, block: make([]byte, m*size), have: make([]bool, m), missing: m, rows: map[int]equation{}, received: map[int]bool{}, most: most}, nil
}

// Add takes fragment n, from 1. One that came before, or that no session has, is left
// out. It tells whether the block is whole.
func (d *Decoder) Add(n int, data []byte) bool {
	if d.Done() || n < 1 || n > MaxIndex || len(data) != d.size || d.received[n] {
		return d.Done()
	}
	d.received[n] = true
	e := equation{of: make([]uint64, (d.m+63)/64), data: append([]byte(nil), data...)}
	if n <= d.m {
		e.flip(n - 1)
	} else {
		row(d.version, n-d.m, d.m, e.flip)
	}
	d.solve(e)
	return d.Done()
}

func (e *equation) flip(i int) { e.of[i/64] ^= 1 << (i % 64) }

func (e *equation) add(o equation) {
	for i, w := range o.of {
		e.of[i] ^= w
	}
	subtle.XORBytes(e.data, e.data, o.data)
}

// first gives the lowest fragment of an equation, or -1.
func (e *equation) first() int {
	for i, w := range e.of {
		if w != 0 {
			return 64*i + bits.TrailingZeros64(w)
		}
	}
	return -1
}

func (e *equation) count() (n int) {
	for _, w := range e.of {
		n += bits.OnesCount64(w)
	}
	return n
}

// solve takes a new equation in. What it makes known goes into those that were there.
func (d *Decoder) solve(e equation) {
	d.reduce(&e)
	at := e.first()
	if at < 0 {
		return // it says nothing new
	}
	if e.count() == 1 {
		d.know(at, e.data)
		return
	}
	if len(d.rows) >= d.most {
		d.full = true
		return
	}
	d.rows[at] = e
	if len(d.rows) == d.missing {
		d.substitute()
	}
}

// reduce takes out of an equation what is known, and what other equations begin with.
func (d *Decoder) reduce(e *equation) {
	for i := range d.m {
		if e.of[i/64]&(1<<(i%64)) == 0 {
			continue
		}
		if d.have[i] {
			e.flip(i)
			subtle.XORBytes(e.data, e.data, d.block[i*d.size:][:d.size])
		} else if o, ok := d.rows[i]; ok {
			e.add(o)
		}
	}
}

// know keeps a fragment. An equation that began with it is taken in again.
func (d *Decoder) know(i int, data []byte) {
	copy(d.block[i*d.size:], data)
	d.have[i] = true
	d.missing--
	if o, ok := d.rows[i]; ok {
		delete(d.rows, i)
		d.solve(o)
	}
	if d.missing > 0 && len(d.rows) == d.missing {
		d.substitute()
	}
}

// substitute solves from the last fragment on: there are as many equations as
// fragments are missing.
func (d *Decoder) substitute() {
	for i := d.m - 1; i >= 0; i-- {
		e, ok := d.rows[i]
		if !ok {
			continue
		}
		delete(d.rows, i)
		d.reduce(&e)
		copy(d.block[i*d.size:], e.data)
		d.have[i] = true
		d.missing--
	}
}

// Done tells whether the block is whole.
func (d *Decoder) Done() bool { return d.missing == 0 }

// Missing gives how many more fragments are needed at least.
func (d *Decoder) Missing() int { return d.missing - len(d.rows) }

// Received gives how many fragments came, those that came twice once.
func (d *Decoder) Received() int { return len(d.received) }

// Full tells whether more was missing than the decoder has memory for.
func (d *Decoder) Full() bool { return d.full }

// Block gives the whole block but for the padding behind it; nil before it is whole.
func (d *Decoder) Block(padding int) []byte {
	if !d.Done() || padding < 0 || padding > len(d.block) {
		return nil
	}
	return d.block[:len(d.block)-padding]
}
