package sim

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"joinery/internal/sim/aesmode"
	"joinery/internal/sim/element"
)

// keks are a peer's key encryption keys by KEKLabel. Labels of KEKs that this
// make of peer cannot use have a nil cipher.
type keks map[string]cipher.Block

// newKEKs takes KEKs of 16, 24 or 32 bytes; short is set for a peer that
// unwraps under those of 16 bytes only.
func newKEKs(byLabel map[string][]byte, short bool) (keks, error) {
	k := make(keks, len(byLabel))
	for label, key := range byLabel {
		if label == "" {
			return nil, errors.New("a KEK needs a label")
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("KEK %q: want 16, 24 or 32 bytes, got %d", label, len(key))
		}
		if short && len(key) != aes.BlockSize {
			block = nil
		}
		k[label] = block
	}
	return k, nil
}

// open writes the key of an envelope to key. A key in the clear is an error
// unless clearOK, and is written all the same.
func (k keks) open(e *Envelope, clearOK bool, key *[element.KeySize]byte) error {
	if e.KEKLabel == "" {
		if len(e.AESKey) != element.KeySize {
			return fmt.Errorf("a key without KEKLabel has %d bytes, want %d", len(e.AESKey), element.KeySize)
		}
		copy(key[:], e.AESKey)
		if !clearOK {
			return errors.New("it travelled in the clear")
		}
		return nil
	}
	kek, known := k[e.KEKLabel]
	switch {
	case !known:
		return fmt.Errorf("KEKLabel %q is none of this peer's", e.KEKLabel)
	case kek == nil:
		return fmt.Errorf("KEK %q is longer than 128 bits, which this make of Network Server cannot use", e.KEKLabel)
	case len(e.AESKey) != element.KeySize+aesmode.WrapOverhead:
		return fmt.Errorf("a wrapped key has %d bytes, want %d", len(e.AESKey), element.KeySize+aesmode.WrapOverhead)
	}
	if _, err := aesmode.Unwrap(key[:0], kek, e.AESKey); err != nil {
		return fmt.Errorf("under KEKLabel %q: %w", e.KEKLabel, err)
	}
	return nil
}
