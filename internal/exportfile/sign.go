package exportfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ErrSignature says that a device is not as the server signed it, or that another
// key signed than the one which is trusted.
var ErrSignature = errors.New("the export is not as it was signed")

// SignatureLen is the length of a signature, r ‖ s, in bytes.
const SignatureLen = 64

// Signer is the public key that signs an export: P-256, as a JSON Web Key of the
// required members alone (RFC 7638 §3.2).
type Signer struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// NewSigner takes a P-256 key.
func NewSigner(key *ecdsa.PublicKey) (Signer, error) {
	if key.Curve != elliptic.P256() {
		return Signer{}, fmt.Errorf("%w: an export is signed by a key of P-256", ErrFormat)
	}
	point, err := key.Bytes()
	if err != nil {
		return Signer{}, fmt.Errorf("%w: the signer's point is not on the curve", ErrFormat)
	}
	return Signer{"P-256", "EC", encode(point[1 : 1+coordinateLen]), encode(point[1+coordinateLen:])}, nil
}

// ParseSignerDER reads a DER SubjectPublicKeyInfo of P-256.
func ParseSignerDER(der []byte) (Signer, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok {
		return Signer{}, fmt.Errorf("%w: the signer's key is not a SubjectPublicKeyInfo of P-256", ErrFormat)
	}
	return NewSigner(key)
}

// MarshalDER gives the DER SubjectPublicKeyInfo; nil for no key.
func (s Signer) MarshalDER() []byte {
	key, err := decodePoint(s.X, s.Y)
	if err != nil {
		return nil
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil
	}
	return der
}

// IsZero tells whether s is no key.
func (s Signer) IsZero() bool { return s == Signer{} }

// Thumbprint names the key: its JWK thumbprint with SHA-256 (RFC 7638); "" for none.
func (s Signer) Thumbprint() string {
	key, err := decodePoint(s.X, s.Y)
	if err != nil {
		return ""
	}
	return thumbprint(canonicalEC(key))
}

func (s Signer) check() error {
	if s.Kty != "EC" || s.Crv != "P-256" {
		return fmt.Errorf("%w: signer is not a JSON Web Key of P-256", ErrFormat)
	}
	if _, err := decodePoint(s.X, s.Y); err != nil {
		return fmt.Errorf("%w: signer is not a point of P-256", ErrFormat)
	}
	return nil
}

// Digests makes what is signed of the devices of one export.
type Digests struct{ head []byte }

// NewDigests begins with the header, which must be whole. ErrFormat.
func NewDigests(h Header) (*Digests, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	canonical, err := canonicalise(h)
	if err != nil {
		return nil, err
	}
	return &Digests{joinLines([]byte(Format), canonical, nil)}, nil
}

// Sum gives the SHA-256 hash that the signature of d is made of.
func (s *Digests) Sum(d Device) (sum [sha256.Size]byte, err error) {
	d = d.WithoutBlobs()
	d.Signature = nil
	canonical, err := canonicalise(d)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	h.Write(s.head)
	h.Write(canonical)
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Sign makes the signature of a device: what signs by a key of P-256 a hash, r ‖ s.
func (s *Digests) Sign(d *Device, sign func(hash [sha256.Size]byte) ([SignatureLen]byte, error)) error {
	sum, err := s.Sum(*d)
	if err != nil {
		return err
	}
	signature, err := sign(sum)
	if err != nil {
		return err
	}
	d.Signature = signature[:]
	return nil
}

// joinLines puts a line feed between lines.
func joinLines(lines ...[]byte) []byte { return bytes.Join(lines, []byte{'\n'}) }

// canonicalise gives the form of RFC 8785.
func canonicalise(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return value, nil
}

// Verifier checks the devices of one export.
type Verifier struct {
	header  Header
	digests *Digests
	key     *ecdsa.PublicKey
}

// NewVerifier checks the header. trusted is the thumbprint of the server's signing
// key, as the server publishes it: without that a file proves nothing, and "" is
// refused. ErrFormat, ErrSignature.
func NewVerifier(h Header, trusted string) (*Verifier, error) {
	digests, err := NewDigests(h)
	if err != nil {
		return nil, err
	}
	if trusted == "" || h.Signer.Thumbprint() != trusted {
		return nil, fmt.Errorf("%w: it is signed by key %s; compare that with the key that the server publishes", ErrSignature, h.Signer.Thumbprint())
	}
	key, err := decodePoint(h.Signer.X, h.Signer.Y)
	if err != nil {
		return nil, err
	}
	return &Verifier{h, digests, key}, nil
}

// Verify checks that a device is whole, that its blobs are those which were signed,
// and the signature. A device without blobs passes. ErrFormat, ErrSignature.
func (v *Verifier) Verify(d Device) error {
	if err := d.Check(v.header); err != nil {
		return err
	}
	for _, k := range d.Keys {
		blob := k.blob()
		if sum := sha256.Sum256(blob); len(blob) != 0 && !bytes.Equal(sum[:], k.SHA256) {
			return fmt.Errorf("%w: a wrapped key is another one", ErrSignature)
		}
	}
	sum, err := v.digests.Sum(d)
	if err != nil {
		return err
	}
	if len(d.Signature) != SignatureLen || !verifyRaw(v.key, sum, d.Signature) {
		return fmt.Errorf("%w: device %s", ErrSignature, d.DevEUI)
	}
	return nil
}

// verifyRaw checks r ‖ s.
func verifyRaw(key *ecdsa.PublicKey, sum [sha256.Size]byte, signature []byte) bool {
	r, s := new(big.Int).SetBytes(signature[:SignatureLen/2]), new(big.Int).SetBytes(signature[SignatureLen/2:])
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	return err == nil && ecdsa.VerifyASN1(key, sum[:], der)
}

// RawSignature turns a signature of DER (SEQUENCE of r and s) into r ‖ s.
func RawSignature(der []byte) (raw [SignatureLen]byte, err error) {
	var n struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &n)
	if err != nil || len(rest) > 0 || n.R.Sign() < 0 || n.S.Sign() < 0 || n.R.BitLen() > 256 || n.S.BitLen() > 256 {
		return raw, fmt.Errorf("%w: not an ECDSA signature of P-256", ErrSignature)
	}
	n.R.FillBytes(raw[:SignatureLen/2])
	n.S.FillBytes(raw[SignatureLen/2:])
	return raw, nil
}
