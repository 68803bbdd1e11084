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

	// Rekey is the profile by which the element rekeys, "S" or "M"; "" where its signer
	// says nothing.
	Rekey string

	// Keys are the public keys of publicKeySet; none where the maker left it out.
	Keys []DeviceKey

	// Warning says what a person may want to look into though the entry counts;
	// "" is nothing.
	Warning string
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
	// Chain are DER certificates, the element's own first and for this key. Where
	// the signer's rules name roots, it leads to one of them; else no signature in
	// it was checked.
	Chain [][]byte
}

// Verify checks an entry as it stands in a file, signature first, and gives the
// element and its signer. An entry that breaks a rule, one for all entries or one
// of its signer's, is an error that wraps that rule; where its signature was good,
// the element then has what was read before, the serial number first.
func Verify(raw []byte, lookup Lookup) (Element, SignerID, error) {
	e, header, err := parseEntry(raw)
	if err != nil {
		return Element{}, SignerID{}, err
	}
	if header.Alg != "ES256" {
		return Element{}, SignerID{}, ErrAlgorithm
	}
	id := SignerID{KID: header.KID, X5TS256: header.X5TS256}
	signer := lookup(id)
	if signer == nil || signer.id != id {
		return Element{}, SignerID{}, ErrUnknownSigner
	}
	if err := e.verify(signer.key); err != nil {
		return Element{}, SignerID{}, err
	}
	p, err := parsePayload(e.Payload)
	if err != nil {
		return Element{}, SignerID{}, err
	}
	// The copy outside the signature is for searching; it must not lead astray.
	if e.Header.UniqueID != "" && e.Header.UniqueID != p.UniqueID {
		return Element{}, SignerID{}, errUniqueIDDiffers
	}
	element, err := signer.element(p)
	return element, id, err
}
