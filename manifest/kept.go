package manifest

import (
	"crypto/ecdsa"
	"fmt"

	"github.com/go-json-experiment/json"
)

// signedPart is the members of an entry that its signature covers, and itself.
type signedPart struct {
	Payload   string `json:"payload"`
	Protected string `json:"protected"`
	Signature string `json:"signature"`
}

// SignedPart gives an entry without whatever nobody signed: the unprotected header
// and members that are not known, in which whoever had the file in hands could have
// written anything. What is signed stays letter by letter, so that the signature
// still verifies. The entry is one that Verify takes, or took once.
func SignedPart(raw []byte) ([]byte, error) {
	var part signedPart
	if err := unmarshal(raw, &part); err != nil || part.Payload == "" || part.Protected == "" || part.Signature == "" {
		return nil, fmt.Errorf("kept entry: %w", ErrSyntax)
	}
	return json.Marshal(part)
}

// DeviceKeyOf gives the device key of an entry that was verified before and kept
// since; nil where the entry names none. Its signature is not checked again: the
// signer may be pinned no longer, and what it signed then still stands.
func DeviceKeyOf(raw []byte) (*ecdsa.PublicKey, error) {
	keys, err := keptKeys(raw)
	if err != nil {
		return nil, err
	}
	key, _ := deviceKeyOf(keys)
	return key.Public, nil
}

func keptKeys(raw []byte) (keys []certified, err error) {
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
	return keys, nil
}

// KeyInSlotOf gives the key that a kept entry names for a slot, as DeviceKeyOf
// gives the device key; nil where it names none.
func KeyInSlotOf(raw []byte, slot string) (*ecdsa.PublicKey, error) {
	keys, err := keptKeys(raw)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Slot == slot {
			return k.Public, nil
		}
	}
	return nil, nil
}
