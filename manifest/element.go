package manifest

import (
	"crypto/ecdsa"
	"time"

	"joinery/lorawan"
)

// Element is what an entry says of one secure element.
type Element struct {
	// Version of the payload: 1 or 3.
	Version int
	// UniqueID is the serial number: 9 bytes as 18 lower-case hex digits.
	UniqueID      string
	JoinEUI       lorawan.EUI64
	DevEUI        lorawan.EUI64
	ProvisionedAt time.Time

	// What the maker says of the part; any of it may be empty.
	Model          string
	PartNumber     string
	GroupID        string
	DeviceRevision string
	Manufacturer   Party
	Provisioner    Party
	Distributor    Party

	// Keys are the public keys of publicKeySet; none where the maker left it out.
	Keys []DeviceKey
}

// Party is an organisation named in an entry.
type Party struct {
	Organisation string `json:"organizationName,omitempty"`
	Unit         string `json:"organizationalUnitName,omitempty"`
}

// DeviceKey is a public key whose private half never leaves the element.
type DeviceKey struct {
	// Slot is the slot of the private half, as text: "1".
	Slot   string
	Public *ecdsa.PublicKey // P-256
	// Chain are DER certificates, the element's own first and for this key. No
	// signature in it was checked.
	Chain [][]byte
}

// Verify checks an entry as it stands in a file, signature first, and gives
// the element and its signer. An entry whose JSON, signature, version or
// identifiers break a rule is an error that wraps that rule.
func Verify(raw []byte, lookup Lookup) (Element, SignerID, error) {
	e, header, err := parseEntry(raw)
	if err != nil {
		return Element{}, SignerID{}, err
	}
	if header.Alg != "ES256" {
		return Element{}, SignerID{}, ErrAlgorithm
	}
	id := SignerID{KID: header.KID, X5TS256: header.X5TS256}
	key := lookup(id)
	if key == nil {
		return Element{}, SignerID{}, ErrUnknownSigner
	}
	if err := e.verify(key); err != nil {
		return Element{}, SignerID{}, err
	}
	element, err := parsePayload(e.Payload)
	if err != nil {
		return Element{}, SignerID{}, err
	}
	// The copy outside the signature is for searching; it must not lead astray.
	if e.Header.UniqueID != "" && e.Header.UniqueID != element.UniqueID {
		return Element{}, SignerID{}, errUniqueIDDiffers
	}
	return element, id, nil
}
