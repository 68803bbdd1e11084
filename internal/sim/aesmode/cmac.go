// Package aesmode holds the two AES constructions that LoRaWAN's activation
// needs beyond the block cipher: AES-CMAC (RFC 4493) and AES key wrap
// (RFC 3394). The simulator has its own, written from the two texts, so that it
// and the Join Server check each other.
package aesmode

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// CMAC makes AES-CMACs under one key. It reuses its own scratch space: one
// goroutine at a time.
type CMAC struct {
	block  cipher.Block
	k1, k2 [aes.BlockSize]byte
	x      [aes.BlockSize]byte // chaining value
	m      [aes.BlockSize]byte // block being filled
}

// NewCMAC makes the subkeys K1 and K2 (RFC 4493 §2.3) of an AES cipher.
func NewCMAC(block cipher.Block) *CMAC {
	c := &CMAC{block: block}
	c.block.Encrypt(c.k1[:], c.k1[:])
	double(&c.k1)
	c.k2 = c.k1
	double(&c.k2)
	return c
}

// double multiplies b by x in GF(2^128): shift left by one, and where a bit
// falls out, add the polynomial's 0x87 (RFC 4493 §2.3, const_Rb).
func double(b *[aes.BlockSize]byte) {
	carry := byte(0)
	for i := len(b) - 1; i >= 0; i-- {
		next := b[i] >> 7
		b[i] = b[i]<<1 | carry
		carry = next
	}
	b[len(b)-1] ^= 0x87 & -carry
}

// Sum writes the 16-byte MAC of prefix ‖ message to out (RFC 4493 §2.4). Either
// part may be empty.
func (c *CMAC) Sum(out *[aes.BlockSize]byte, prefix, message []byte) {
	clear(c.x[:])
	n := c.absorb(0, prefix)
	n = c.absorb(n, message)
	last := &c.k1
	if n < aes.BlockSize {
		// An incomplete (or empty) last block is padded with a 1 bit and zeros.
		c.m[n] = 0x80
		clear(c.m[n+1:])
		last = &c.k2
	}
	subtle.XORBytes(c.x[:], c.x[:], c.m[:])
	subtle.XORBytes(c.x[:], c.x[:], last[:])
	c.block.Encrypt(c.x[:], c.x[:])
	*out = c.x
}

// absorb adds data behind the n bytes that wait in c.m and gives the new n. A
// full block waits until it is known whether it is the last.
func (c *CMAC) absorb(n int, data []byte) int {
	for len(data) > 0 {
		if n == aes.BlockSize {
			subtle.XORBytes(c.x[:], c.x[:], c.m[:])
			c.block.Encrypt(c.x[:], c.x[:])
			n = 0
		}
		took := copy(c.m[n:], data)
		n += took
		data = data[took:]
	}
	return n
}
