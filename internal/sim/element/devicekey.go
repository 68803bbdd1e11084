package element

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
)

// DeviceKeySize is the length of a private device key, in bytes: the scalar,
// big-endian.
const DeviceKeySize = 32

// SetDeviceKey puts the element's P-256 key in, as a factory does: a scalar of 32
// bytes, big-endian. The caller keeps, and should wipe, what it gave.
func (e *Element) SetDeviceKey(scalar []byte) error {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return fmt.Errorf("element %v: device key: want %d bytes between 1 and the order of P-256", e.devEUI, DeviceKeySize)
	}
	e.device = key
	return nil
}

// HasDeviceKey tells whether the element can sign.
func (e *Element) HasDeviceKey() bool {
	if e.chip != nil {
		_, err := e.chip.PublicKey()
		return err == nil
	}
	return e.device != nil
}

// Sign signs a SHA-256 digest with the device key: r ‖ s, 32 bytes each,
// big-endian, as an element's Sign command answers. ErrNoKey where there is no
// device key.
func (e *Element) Sign(digest [32]byte) (signature [64]byte, err error) {
	if !e.HasDeviceKey() {
		return signature, ErrNoKey
	}
	if e.chip != nil {
		return e.chip.Sign(digest)
	}
	r, s, err := ecdsa.Sign(rand.Reader, e.device, digest[:])
	if err != nil {
		return signature, fmt.Errorf("element %v: sign: %w", e.devEUI, err)
	}
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signature, nil
}
