package joinery

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"joinery/lorawan"
	"joinery/manifest"
)

// EUIRange is a closed range of EUI-64s, by numeric value.
type EUIRange struct {
	First lorawan.EUI64
	Last  lorawan.EUI64
}

// Contains tells whether e lies in the range.
func (r EUIRange) Contains(e lorawan.EUI64) bool {
	return r.First.Uint64() <= e.Uint64() && e.Uint64() <= r.Last.Uint64()
}

// Overlaps tells whether two ranges share an EUI-64.
func (r EUIRange) Overlaps(o EUIRange) bool {
	return r.First.Uint64() <= o.Last.Uint64() && o.First.Uint64() <= r.Last.Uint64()
}

// JoinEUIRange is a range of JoinEUIs that this server answers for, and the
// organisation that may import devices into it. Ranges do not overlap.
type JoinEUIRange struct {
	EUIRange
	Org OrgID
	// Elements is set where only signed manifests may be imported: the roots of
	// such devices are derived, so a key list must not take their place.
	Elements bool
}

// Signer is a pinned signer of manifests with what it may provision.
type Signer struct {
	ID   SignerID
	Org  OrgID
	Name string
	// KID and X5TS256 are the "kid" and "x5t#S256" of the protected header,
	// base64url without padding; DER is the signer's certificate (P-256).
	KID     string
	X5TS256 string
	DER     []byte
	// Family says where its entries have their identifiers.
	Family manifest.Family
	// Roots are certificates (DER, one after the other) to one of which the device
	// certificate of each entry must lead; empty: entries need none.
	Roots []byte
	// SerialSuffix is how serial numbers end that it may provision, in lower-case
	// hexadecimal digits; "" is any.
	SerialSuffix string
	// Shared lets every organisation import what it signed, into the range of Org:
	// whoever has the entry of a chip is taken for its owner, once.
	Shared bool
	// JoinEUIs and DevEUIs bound what the signer may provision.
	JoinEUIs EUIRange
	DevEUIs  EUIRange
	// Master and Generation are what its elements' roots derive from.
	Master     string
	Generation uint32
	CreatedAt  time.Time
}

// Pinned gives the signer as it verifies entries, with its rules.
func (s Signer) Pinned() (*manifest.Signer, error) {
	rules := manifest.Rules{Family: s.Family, SerialSuffix: s.SerialSuffix}
	roots, err := x509.ParseCertificates(s.Roots)
	if err != nil {
		return nil, fmt.Errorf("%w: a root certificate does not parse", manifest.ErrRules)
	}
	for _, root := range roots {
		rules.Roots = append(rules.Roots, root.Raw)
	}
	// Entries of old parts do not say under which JoinEUI they are; where there is
	// but one, it is that.
	if s.JoinEUIs.First == s.JoinEUIs.Last {
		rules.JoinEUI = s.JoinEUIs.First
	}
	return manifest.NewSigner(s.DER, rules)
}

// RoamingRule lets a network that is not a device's home learn, by HomeNSReq,
// which network is. A rule for a device overrides those of its organisation.
type RoamingRule struct {
	Org    OrgID
	Device DeviceID // zero: every device of Org
	NetIDs []lorawan.NetID
}

// APIKey is a credential of the management API. The secret half is random and
// only its hash is kept.
type APIKey struct {
	ID        APIKeyID
	Org       OrgID // zero for an operator's key
	Operator  bool
	Name      string
	Hash      [sha256.Size]byte
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: valid
}
