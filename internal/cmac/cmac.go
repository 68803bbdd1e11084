// Package cmac is AES-CMAC (RFC 4493) over opaque block operations, so that the
// key may live in a hardware token. LoRaWAN's MICs and the MACs of sealed keys
// are made with it; it holds no key itself.
package cmac

import "crypto/cipher"

// BlockLen is the length of an AES block, and of a MAC, in bytes.
const BlockLen = 16

// Encrypter encrypts single blocks under one AES key: a cipher of this process,
// or the ECB mode of a token that has no CMAC.
type Encrypter interface {
	// EncryptBlock replaces block by its encryption.
	EncryptBlock(block *[BlockLen]byte) error
}

// Cipher is an Encrypter over a cipher of this process.
type Cipher struct{ cipher.Block }

// EncryptBlock implements Encrypter.
func (c Cipher) EncryptBlock(block *[BlockLen]byte) error {
	c.Encrypt(block[:], block[:])
	return nil
}

// CMAC is working memory for AES-CMAC: its zero value is ready, and it can be
// used again. What it held is cleared after each sum.
type CMAC struct{ state, subkey [BlockLen]byte }

// Sum computes AES-CMAC (RFC 4493 §2.4) of msg. A MIC is its first four bytes.
func (c *CMAC) Sum(e Encrypter, msg []byte) (mac [BlockLen]byte, err error) {
	defer clear(c.state[:])
	defer clear(c.subkey[:])
	// Subkeys K1, and K2 where the last block is not full (RFC 4493 §2.3).
	if err := e.EncryptBlock(&c.subkey); err != nil {
		return mac, err
	}
	double(&c.subkey)

	for len(msg) > BlockLen {
		xor(&c.state, msg[:BlockLen])
		if err := e.EncryptBlock(&c.state); err != nil {
			return mac, err
		}
		msg = msg[BlockLen:]
	}
	xor(&c.state, msg)
	if len(msg) < BlockLen {
		c.state[len(msg)] ^= 0x80
		double(&c.subkey)
	}
	xor(&c.state, c.subkey[:])
	if err := e.EncryptBlock(&c.state); err != nil {
		return mac, err
	}
	return c.state, nil
}

// double multiplies by x in GF(2^128) with the polynomial of RFC 4493 §2.3, in
// constant time.
func double(b *[BlockLen]byte) {
	carry := b[0] >> 7
	for i := range BlockLen - 1 {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[BlockLen-1] = b[BlockLen-1]<<1 ^ carry*0x87
}

// xor adds at most a block of src to dst.
func xor(dst *[BlockLen]byte, src []byte) {
	for i, b := range src {
		dst[i] ^= b
	}
}
