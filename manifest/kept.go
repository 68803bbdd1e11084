package manifest

import (
	"crypto/ecdsa"
	"fmt"
)

// DeviceKeyOf gives the device key of an entry that was verified before and kept
// since; nil where the entry names none. Its signature is not checked again: the
// signer may be pinned no longer, and what it signed then still stands.
func DeviceKeyOf(raw []byte) (*ecdsa.PublicKey, error) {
	var keys []certified
	e, _, err := parseEntry(raw)
	if err == nil {
		var p payload
		if p, err = parsePayload(e.Payload); err == nil {
			keys, err = p.keys()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kept entry: %w", err)
	}
	key, _ := deviceKeyOf(keys)
	return key.Public, nil
}
