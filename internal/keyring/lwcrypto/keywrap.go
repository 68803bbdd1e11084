package lwcrypto

import (
	"crypto/cipher"

	"joinery/internal/seal"
)

// WrappedKeyLen is the length of a session key in a KeyEnvelope, in bytes.
const WrappedKeyLen = BlockLen + seal.WrapOverhead

// WrapKey appends key, wrapped under a KEK of 16, 24 or 32 bytes, to dst: the
// AESKey of a KeyEnvelope (TS002-1.1 §22, RFC 3394 §2.2.1). It does not allocate
// where dst has room.
func WrapKey(dst []byte, kek cipher.Block, key *[BlockLen]byte) ([]byte, error) {
	return seal.WrapKey(dst, kek, key[:])
}

// UnwrapKey opens what WrapKey made into key; seal.ErrKeyWrap where it does not
// open, and key is then zero.
func UnwrapKey(key *[BlockLen]byte, kek cipher.Block, wrapped []byte) error {
	if len(wrapped) != WrappedKeyLen {
		clear(key[:])
		return seal.ErrKeyWrap
	}
	_, err := seal.UnwrapKey(key[:0], kek, wrapped)
	return err
}
