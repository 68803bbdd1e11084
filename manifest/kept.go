package manifest

import (
	"crypto/ecdsa"
	"fmt"
	"slices"

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

// Chain says what the certificates of a key in a kept entry are worth.
type Chain string

// Chains.
const (
	ChainNone    Chain = "none"    // the entry has no certificate of the key
	ChainNoRoot  Chain = "no-root" // it has, and with its signer no root is pinned
	ChainFailed  Chain = "failed"  // they lead to no root of the signer, or are another element's or slot's
	ChainChecked Chain = "checked" // they lead to a root that is pinned with the signer, and name this element and slot
)

// SignerOfKept gives the names of the signer of a kept entry, as it has them.
func SignerOfKept(raw []byte) (SignerID, error) {
	_, h, err := parseEntry(raw)
	if err != nil {
		return SignerID{}, fmt.Errorf("kept entry: %w", err)
	}
	return SignerID{KID: h.KID, X5TS256: h.X5TS256}, nil
}

// CheckKept holds a kept entry against its signer as that is pinned now. The error is
// ErrSignature where s did not sign the entry as it stands, and the rule of s that it
// breaks else; chain is of the key in a slot, also with an error of the latter kind.
func (s *Signer) CheckKept(raw []byte, slot string) (e Element, chain Chain, err error) {
	entry, h, err := parseEntry(raw)
	if err == nil && (h.Alg != "ES256" || s.id != SignerID{KID: h.KID, X5TS256: h.X5TS256}) {
		err = ErrSignature
	}
	if err == nil {
		err = entry.verify(s.key)
	}
	var p payload
	if err == nil {
		p, err = parsePayload(entry.Payload)
	}
	var keys []certified
	if err == nil {
		keys, err = p.keys()
	}
	if err != nil {
		return e, ChainNone, fmt.Errorf("kept entry: %w", err)
	}
	e, err = s.element(p)
	return e, s.chainOf(keys, slot, e), err
}

// chainOf judges the certificates of the key in a slot of an element.
func (s *Signer) chainOf(keys []certified, slot string, e Element) Chain {
	i := slices.IndexFunc(keys, func(k certified) bool { return k.Slot == slot })
	switch {
	case i < 0 || keys[i].leaf == nil:
		return ChainNone
	case s.chains == nil:
		return ChainNoRoot
	case s.chains.check(keys[i], e.ProvisionedAt) != nil || !isFor(keys[i].leaf, slot):
		return ChainFailed
	}
	named, err := subjectOf(keys[i].leaf)
	if err != nil || named.serial != e.UniqueID || !named.first && !e.DevEUI.IsZero() && named.devEUI != e.DevEUI {
		return ChainFailed
	}
	return ChainChecked
}
