package aesmode

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// WrapOverhead is by how many bytes a wrapped key is longer than the key.
const WrapOverhead = 8

// Errors of key wrap. Neither says anything about a key.
var (
	// ErrUnwrap: the integrity check failed: another KEK, or damaged.
	ErrUnwrap = errors.New("key unwrap: wrong key encryption key or damaged")
	// ErrWrapLength: not a whole number of 8-byte blocks, two at least.
	ErrWrapLength = errors.New("key wrap: length is not a whole number of 8-byte blocks, two at least")
)

// defaultIV is the initial value of RFC 3394 §2.2.3.1.
const defaultIV = 0xA6A6A6A6A6A6A6A6

// Wrap appends to dst the key wrapped under kek (RFC 3394 §2.2.1). kek is AES
// with a key of any size; key has 16 bytes or more, a multiple of 8.
func Wrap(dst []byte, kek cipher.Block, key []byte) ([]byte, error) {
	if len(key) < 16 || len(key)%8 != 0 {
		return nil, ErrWrapLength
	}
	n := len(key) / 8
	r := append([]byte(nil), key...)
	defer clear(r)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], defaultIV)
	for t := 1; t <= 6*n; t++ {
		i := 8 * ((t - 1) % n)
		copy(b[8:], r[i:i+8])
		kek.Encrypt(b[:], b[:])
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^uint64(t))
		copy(r[i:], b[8:])
	}
	dst = append(dst, b[:8]...)
	return append(dst, r...), nil
}

// Unwrap appends to dst the key that wrapped holds (RFC 3394 §2.2.2). It gives
// ErrUnwrap, and no key, where the integrity check fails.
func Unwrap(dst []byte, kek cipher.Block, wrapped []byte) ([]byte, error) {
	if len(wrapped) < 24 || len(wrapped)%8 != 0 {
		return nil, ErrWrapLength
	}
	n := len(wrapped)/8 - 1
	start := len(dst)
	dst = append(dst, wrapped[8:]...)
	r := dst[start:]
	var b [16]byte
	copy(b[:8], wrapped)
	for t := 6 * n; t >= 1; t-- {
		i := 8 * ((t - 1) % n)
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^uint64(t))
		copy(b[8:], r[i:i+8])
		kek.Decrypt(b[:], b[:])
		copy(r[i:], b[8:])
	}
	var iv [8]byte
	binary.BigEndian.PutUint64(iv[:], defaultIV)
	if subtle.ConstantTimeCompare(iv[:], b[:8]) != 1 {
		clear(r)
		return nil, ErrUnwrap
	}
	return dst, nil
}
