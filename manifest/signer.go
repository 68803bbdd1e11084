package manifest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"joinery/lorawan"
)

// SignerID is the two names of a signer, as in the protected header. The zero
// value is no signer.
type SignerID struct {
	// KID is the base64url of the SubjectKeyIdentifier's value, without padding.
	KID string
	// X5TS256 is the base64url of SHA-256 over the DER certificate, without
	// padding (RFC 7515 §4.1.8).
	X5TS256 string
}

// Rules say what must hold of the entries of one signer.
type Rules struct {
	// Family says where its entries have their identifiers; "" is FamilyJoinery.
	Family Family
	// Roots are DER certificates. Where there are any, each entry needs a device
	// key whose x5c leads to one of them. FamilyMicrochip needs one at least.
	Roots [][]byte
	// SerialSuffix is how serial numbers end, in lower-case hexadecimal digits: in
	// chips of Microchip the last byte names the programme ("27", "10"). "" is any.
	SerialSuffix string
	// JoinEUI is that of entries without slot 9; zero: such entries are refused.
	JoinEUI lorawan.EUI64
}

// Signer is a pinned signer with its rules. Safe for concurrent use.
type Signer struct {
	id     SignerID
	key    *ecdsa.PublicKey
	rules  Rules
	valid  [2]time.Time // of its certificate: from, to
	chains *chains      // nil where no root is pinned
}

// Lookup finds a pinned signer; nil where none has both names.
type Lookup func(SignerID) *Signer

// NewSigner makes a signer of its DER certificate, which ParseSigner takes.
func NewSigner(der []byte, rules Rules) (*Signer, error) {
	cert, id, key, err := parseSigner(der)
	if err != nil {
		return nil, err
	}
	if err := rules.check(); err != nil {
		return nil, err
	}
	s := &Signer{id: id, key: key, rules: rules, valid: [2]time.Time{cert.NotBefore, cert.NotAfter}}
	if len(rules.Roots) > 0 {
		if s.chains, err = newChains(rules.Roots); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ID gives both names.
func (s *Signer) ID() SignerID { return s.id }

// ParseSigner reads the DER certificate of a signer: P-256, with a
// SubjectKeyIdentifier. Its validity period is not looked at: signers' own
// certificates run out long before their manifests do.
func ParseSigner(der []byte) (SignerID, *ecdsa.PublicKey, error) {
	_, id, key, err := parseSigner(der)
	return id, key, err
}

func parseSigner(der []byte) (*x509.Certificate, SignerID, *ecdsa.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, SignerID{}, nil, fmt.Errorf("%w: it does not parse", ErrCertificate)
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, SignerID{}, nil, fmt.Errorf("%w: its key is not P-256", ErrCertificate)
	}
	if len(cert.SubjectKeyId) == 0 {
		return nil, SignerID{}, nil, fmt.Errorf("%w: it has no SubjectKeyIdentifier, from which kid is made", ErrCertificate)
	}
	thumbprint := sha256.Sum256(cert.Raw)
	return cert, SignerID{KID: encodeBase64URL(cert.SubjectKeyId), X5TS256: encodeBase64URL(thumbprint[:])}, key, nil
}

// tolerance is how far clocks of makers, and hours to which certificates are
// rounded, may lie apart.
const tolerance = 24 * time.Hour

// element makes an element of what s signed. With an error it has what was read
// before.
func (s *Signer) element(p payload) (Element, error) {
	e, err := p.facts()
	if err != nil {
		return e, err
	}
	keys, err := p.keys()
	if err != nil {
		return e, err
	}
	for _, k := range keys {
		e.Keys = append(e.Keys, k.DeviceKey)
	}
	if err := s.checkSerial(e.UniqueID); err != nil {
		return e, err
	}
	named, err := s.checkDeviceKey(e, keys)
	if err != nil {
		return e, err
	}
	if e.JoinEUI, err = p.joinEUI(s.rules.JoinEUI); err != nil {
		return e, err
	}
	if e.DevEUI, err = s.devEUI(p, named); err != nil {
		return e, err
	}
	if e.ProvisionedAt.Before(s.valid[0].Add(-tolerance)) || e.ProvisionedAt.After(s.valid[1].Add(tolerance)) {
		e.Warning = "it was provisioned outside of the validity of its signer's certificate"
	}
	return e, nil
}

// checkDeviceKey checks the device key and its certificates, where the signer's
// rules ask for them, and gives what the device certificate names.
func (s *Signer) checkDeviceKey(e Element, keys []certified) (subject, error) {
	if s.chains == nil {
		return subject{}, nil
	}
	key, ok := deviceKeyOf(keys)
	if !ok || key.leaf == nil {
		return subject{}, fmt.Errorf("%w: no key in slot %s with its certificates", ErrPublicKey, slotDevice)
	}
	if err := s.chains.check(key, e.ProvisionedAt); err != nil {
		return subject{}, err
	}
	named, err := subjectOf(key.leaf)
	if err != nil {
		return subject{}, err
	}
	if named.serial != e.UniqueID {
		return subject{}, ErrSubject
	}
	return named, nil
}
