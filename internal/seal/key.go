package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
)

// ErrPublicKey is wrapped by the errors about a public key that cannot be used.
var ErrPublicKey = errors.New("not a usable transport key")

// Bounds of an RSA modulus, in bits. The lower one holds until 2030 and beyond
// by most rules, the upper one keeps a hostile key from costing seconds.
const (
	minRSABits = 3072
	maxRSABits = 8192
)

const pemPublic = "PUBLIC KEY"

// PublicKey is the public half of a transport key: RSA of at least 3072 bits and
// the algorithm to use it with. The zero value is no key.
//
// An ordinary key (rsaEncryption) is used with OAEP and SHA-256. Some hardware
// tokens know OAEP with SHA-1 only; the key of such a token says so itself, by the
// identifier id-RSAES-OAEP with default parameters (RFC 4055 §4), so that nobody
// seals to it with another hash, and a program that does not know of it refuses.
type PublicKey struct {
	key *rsa.PublicKey
	alg string
	der []byte // SubjectPublicKeyInfo
}

// NewPublicKey takes an RSA public key for OAEP with SHA-256.
func NewPublicKey(key *rsa.PublicKey) (PublicKey, error) {
	return NewPublicKeyFor(key, AlgRSAOAEP256)
}

// NewPublicKeyFor takes an RSA public key for AlgRSAOAEP256 or AlgRSAOAEP.
func NewPublicKeyFor(key *rsa.PublicKey, alg string) (PublicKey, error) {
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return PublicKey{}, fmt.Errorf("%w: RSA of %d bits; want %d to %d", ErrPublicKey, bits, minRSABits, maxRSABits)
	}
	if _, err := hashOf(alg); err != nil {
		return PublicKey{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	der, err := marshalKey(key, alg)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	return PublicKey{key, alg, der}, nil
}

// hashOf gives the hash of an algorithm's OAEP. That SHA-1 has collisions is no
// harm there: OAEP needs its hash to look random, not to be free of collisions.
func hashOf(alg string) (hash.Hash, error) {
	switch alg {
	case AlgRSAOAEP256:
		return sha256.New(), nil
	case AlgRSAOAEP:
		return sha1.New(), nil
	}
	return nil, fmt.Errorf("want alg %q or %q", AlgRSAOAEP256, AlgRSAOAEP)
}

// oidRSAESOAEP is id-RSAES-OAEP (RFC 4055 §4).
var oidRSAESOAEP = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}

// subjectPublicKeyInfo is RFC 5280 §4.1, for the keys that crypto/x509 does not
// know.
type subjectPublicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	PublicKey asn1.BitString
}

// emptySequence is RSAES-OAEP-params whose every field has its default: SHA-1,
// MGF1 with SHA-1, no label.
var emptySequence = asn1.RawValue{FullBytes: []byte{asn1.TagSequence | 0x20, 0}}

func marshalKey(key *rsa.PublicKey, alg string) ([]byte, error) {
	if alg == AlgRSAOAEP256 {
		return x509.MarshalPKIXPublicKey(key)
	}
	bits := x509.MarshalPKCS1PublicKey(key)
	return asn1.Marshal(subjectPublicKeyInfo{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSAESOAEP, Parameters: emptySequence},
		PublicKey: asn1.BitString{Bytes: bits, BitLength: 8 * len(bits)},
	})
}

// parseOAEPKey reads a key of id-RSAES-OAEP; ok is false for any other.
func parseOAEPKey(der []byte) (p PublicKey, ok bool) {
	var info subjectPublicKeyInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 || !info.Algorithm.Algorithm.Equal(oidRSAESOAEP) ||
		!bytes.Equal(info.Algorithm.Parameters.FullBytes, emptySequence.FullBytes) {
		return PublicKey{}, false
	}
	key, err := x509.ParsePKCS1PublicKey(info.PublicKey.RightAlign())
	if err != nil {
		return PublicKey{}, false
	}
	p, err = NewPublicKeyFor(key, AlgRSAOAEP)
	return p, err == nil && bytes.Equal(p.der, der)
}

// ParsePublicKey reads the PEM form ("PUBLIC KEY", SubjectPublicKeyInfo).
func ParsePublicKey(text []byte) (PublicKey, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return PublicKey{}, fmt.Errorf("%w: not a PEM file", ErrPublicKey)
	case bytes.Contains([]byte(block.Type), []byte("PRIVATE")):
		return PublicKey{}, fmt.Errorf("%w: this is a private key; keep it to yourself and give its public half", ErrPublicKey)
	case block.Type != pemPublic || len(bytes.TrimSpace(rest)) > 0:
		return PublicKey{}, fmt.Errorf("%w: want one PEM block of type %q", ErrPublicKey, pemPublic)
	}
	return ParsePublicKeyDER(block.Bytes)
}

// ParsePublicKeyDER reads a DER SubjectPublicKeyInfo.
func ParsePublicKeyDER(der []byte) (PublicKey, error) {
	if p, ok := parseOAEPKey(der); ok {
		return p, nil
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: not a SubjectPublicKeyInfo", ErrPublicKey)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return PublicKey{}, fmt.Errorf("%w: not an RSA key", ErrPublicKey)
	}
	return NewPublicKey(key)
}

// WithSHA1 gives p for OAEP with SHA-1, for who seals to it in a token that knows no
// other: the same key under another name. Whoever holds the private half opens both.
func (p PublicKey) WithSHA1() PublicKey {
	if p.alg != AlgRSAOAEP256 {
		return p
	}
	der, err := marshalKey(p.key, AlgRSAOAEP)
	if err != nil {
		return PublicKey{} // a key that was parsed is written as well
	}
	return PublicKey{p.key, AlgRSAOAEP, der}
}

// SHA1 tells whether p is for OAEP with SHA-1.
func (p PublicKey) SHA1() bool { return p.alg == AlgRSAOAEP }

// Named tells whether h says that it was sealed to p: by the algorithm that p is for,
// or by SHA-1, which is the word of who pinned p.
func (p PublicKey) Named(h Header) bool {
	if p.IsZero() {
		return false
	}
	if h.Alg == AlgRSAOAEP {
		p = p.WithSHA1()
	}
	return p.alg == h.Alg && p.KID() == h.KID
}

// IsZero tells whether p is no key.
func (p PublicKey) IsZero() bool { return p.key == nil }

// Alg names the algorithm to use the key with, as a Header does.
func (p PublicKey) Alg() string { return p.alg }

// RSA gives the bare key.
func (p PublicKey) RSA() *rsa.PublicKey { return p.key }

// KID names the key: base64url without padding of SHA-256 over its DER
// SubjectPublicKeyInfo.
func (p PublicKey) KID() string {
	sum := sha256.Sum256(p.der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// MarshalPEM gives the PEM form.
func (p PublicKey) MarshalPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: p.der})
}

// MarshalDER gives the DER SubjectPublicKeyInfo.
func (p PublicKey) MarshalDER() []byte { return bytes.Clone(p.der) }

// EncryptOAEP encrypts a key by RSA-OAEP with the hash of the key's algorithm and
// an empty label (RFC 8017 §7.1.1): as many bytes as the modulus has.
func (p PublicKey) EncryptOAEP(key []byte) ([]byte, error) {
	if p.IsZero() {
		return nil, fmt.Errorf("%w: there is none", ErrPublicKey)
	}
	h, err := hashOf(p.alg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	ciphertext, err := rsa.EncryptOAEP(h, rand.Reader, p.key, key, nil)
	if err != nil {
		return nil, fmt.Errorf("seal: encrypting to the transport key: %w", err)
	}
	return ciphertext, nil
}
