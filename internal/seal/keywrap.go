package seal

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"
)

// ErrKeyWrap says that a wrapped key does not open under this key: it was
// wrapped under another one, or changed.
var ErrKeyWrap = errors.New("seal: the wrapped key does not open")

// errKeyLen says that what should be wrapped is no AES key.
var errKeyLen = errors.New("seal: a key has 16, 24 or 32 bytes")

const (
	// keyWrapIV is the initial value that unwrapping finds again (RFC 3394 §2.2.3.1).
	keyWrapIV = 0xA6A6A6A6A6A6A6A6
	semiblock = 8
	// maxSemiblocks is the length of the longest key, AES-256.
	maxSemiblocks = 4
	// WrapOverhead is how much longer a wrapped key is, in bytes.
	WrapOverhead = semiblock
)

// WrapKey appends key (16, 24 or 32 bytes), wrapped under the AES cipher kek, to
// dst: 8 bytes more than key (RFC 3394 §2.2.1). It does not allocate where dst
// has room.
func WrapKey(dst []byte, kek cipher.Block, key []byte) ([]byte, error) {
	n := len(key) / semiblock
	if !isKeyLen(len(key)) {
		return dst, errKeyLen
	}
	var r [maxSemiblocks]uint64
	for i := range n {
		r[i] = binary.BigEndian.Uint64(key[semiblock*i:])
	}
	start := len(dst)
	dst = slices.Grow(dst, len(key)+WrapOverhead)[:start+len(key)+WrapOverhead]
	out := dst[start:]
	work := out[:2*semiblock] // a stack buffer would escape into kek
	a := uint64(keyWrapIV)
	for j := range 6 {
		for i := range n {
			binary.BigEndian.PutUint64(work, a)
			binary.BigEndian.PutUint64(work[semiblock:], r[i])
			kek.Encrypt(work, work)
			a = binary.BigEndian.Uint64(work) ^ uint64(n*j+i+1)
			r[i] = binary.BigEndian.Uint64(work[semiblock:])
		}
	}
	binary.BigEndian.PutUint64(out, a)
	for i := range n {
		binary.BigEndian.PutUint64(out[semiblock*(i+1):], r[i])
	}
	clear(r[:])
	return dst, nil
}

// UnwrapKey appends the key that WrapKey wrapped to dst (RFC 3394 §2.2.2);
// ErrKeyWrap if it does not open, and then nothing of it is left behind. It does
// not allocate where dst has room.
func UnwrapKey(dst []byte, kek cipher.Block, wrapped []byte) ([]byte, error) {
	length := len(wrapped) - WrapOverhead
	if !isKeyLen(length) {
		return dst, ErrKeyWrap
	}
	n := length / semiblock
	var r [maxSemiblocks]uint64
	for i := range n {
		r[i] = binary.BigEndian.Uint64(wrapped[semiblock*(i+1):])
	}
	start := len(dst)
	dst = slices.Grow(dst, length)[:start+length]
	out := dst[start:]
	work := out[:2*semiblock]
	a := binary.BigEndian.Uint64(wrapped)
	for j := 5; j >= 0; j-- {
		for i := n - 1; i >= 0; i-- {
			binary.BigEndian.PutUint64(work, a^uint64(n*j+i+1))
			binary.BigEndian.PutUint64(work[semiblock:], r[i])
			kek.Decrypt(work, work)
			a = binary.BigEndian.Uint64(work)
			r[i] = binary.BigEndian.Uint64(work[semiblock:])
		}
	}
	// One difference of integers: no time depends on where they differ.
	if a^keyWrapIV != 0 {
		clear(out)
		clear(r[:])
		return dst[:start], ErrKeyWrap
	}
	for i := range n {
		binary.BigEndian.PutUint64(out[semiblock*i:], r[i])
	}
	clear(r[:])
	return dst, nil
}

func isKeyLen(n int) bool { return n == 16 || n == 24 || n == 32 }
