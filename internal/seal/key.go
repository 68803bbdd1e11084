package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
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

// PublicKey is the public half of a transport key: RSA of at least 3072 bits,
// used with OAEP and SHA-256. The zero value is no key.
type PublicKey struct {
	key *rsa.PublicKey
	der []byte // SubjectPublicKeyInfo
}

// NewPublicKey takes an RSA public key.
func NewPublicKey(key *rsa.PublicKey) (PublicKey, error) {
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return PublicKey{}, fmt.Errorf("%w: RSA of %d bits; want %d to %d", ErrPublicKey, bits, minRSABits, maxRSABits)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	return PublicKey{key, der}, nil
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

// IsZero tells whether p is no key.
func (p PublicKey) IsZero() bool { return p.key == nil }

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

// EncryptOAEP encrypts a key by RSA-OAEP with SHA-256 and an empty label (RFC
// 8017 §7.1.1): as many bytes as the modulus has.
func (p PublicKey) EncryptOAEP(key []byte) ([]byte, error) {
	if p.IsZero() {
		return nil, fmt.Errorf("%w: there is none", ErrPublicKey)
	}
	ciphertext, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, p.key, key, nil)
	if err != nil {
		return nil, fmt.Errorf("seal: encrypting to the transport key: %w", err)
	}
	return ciphertext, nil
}
