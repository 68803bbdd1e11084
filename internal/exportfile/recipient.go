package exportfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-json-experiment/json"

	"joinery/internal/seal"
)

// ErrRecipient is wrapped by the errors about a public key that cannot receive root
// keys. Each says what to give instead.
var ErrRecipient = errors.New("not a usable recipient key")

// maxKeyText bounds the text of a key, in bytes.
const maxKeyText = 64 << 10

// Recipient is a public key that may receive root keys: RSA of 3072 to 8192 bits,
// or P-256. The zero value is none.
type Recipient struct {
	rsa  *rsa.PublicKey
	ec   *ecdsa.PublicKey
	sha1 bool
}

// ParseRecipient reads a public key: PEM ("PUBLIC KEY", SubjectPublicKeyInfo) or a
// JSON Web Key (RFC 7517). A key of id-RSAES-OAEP with SHA-1 (RFC 4055 §4), which is
// how the transport key of another Joinery over such a token looks, has opted in to
// SHA-1 by that. The error wraps ErrRecipient.
func ParseRecipient(text []byte) (Recipient, error) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) > maxKeyText:
		return Recipient{}, fmt.Errorf("%w: it is longer than any key", ErrRecipient)
	case len(text) > 0 && text[0] == '{':
		return parseJWK(text)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return Recipient{}, fmt.Errorf("%w: want PEM or a JSON Web Key", ErrRecipient)
	case bytes.Contains([]byte(block.Type), []byte("PRIVATE")):
		return Recipient{}, errPrivate
	case block.Type == "CERTIFICATE":
		return Recipient{}, fmt.Errorf("%w: this is a certificate; give its key (openssl x509 -pubkey -noout)", ErrRecipient)
	case block.Type == "RSA PUBLIC KEY":
		return Recipient{}, fmt.Errorf("%w: this is PKCS #1; convert it (openssl rsa -RSAPublicKey_in -pubout)", ErrRecipient)
	case block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0:
		return Recipient{}, fmt.Errorf("%w: want one PEM block of type PUBLIC KEY", ErrRecipient)
	}
	return ParseRecipientDER(block.Bytes)
}

var errPrivate = fmt.Errorf("%w: this is a private key; keep it to yourself and give its public half", ErrRecipient)

// ParseRecipientDER reads a DER SubjectPublicKeyInfo, see ParseRecipient.
func ParseRecipientDER(der []byte) (Recipient, error) {
	if p, err := seal.ParsePublicKeyDER(der); err == nil {
		return Recipient{rsa: p.RSA(), sha1: p.Alg() == seal.AlgRSAOAEP}, nil
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return Recipient{}, fmt.Errorf("%w: not a SubjectPublicKeyInfo", ErrRecipient)
	}
	return NewRecipient(parsed)
}

// NewRecipient takes an *rsa.PublicKey or *ecdsa.PublicKey.
func NewRecipient(key any) (Recipient, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if _, err := seal.NewPublicKey(key); err != nil {
			return Recipient{}, fmt.Errorf("%w: RSA of %d bits; want 3072 to 8192, and an ordinary exponent", ErrRecipient, key.N.BitLen())
		}
		return Recipient{rsa: key}, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return Recipient{}, fmt.Errorf("%w: of elliptic curves only P-256 is taken", ErrRecipient)
		}
		if _, err := key.ECDH(); err != nil {
			return Recipient{}, fmt.Errorf("%w: the point is not on the curve", ErrRecipient)
		}
		return Recipient{ec: key}, nil
	}
	return Recipient{}, fmt.Errorf("%w: want RSA of at least 3072 bits, or P-256", ErrRecipient)
}

// jwk is the public members of a key that we read, and enough of the others to tell
// what somebody gave by mistake.
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitzero"`
	N   string `json:"n,omitzero"`
	E   string `json:"e,omitzero"`
	X   string `json:"x,omitzero"`
	Y   string `json:"y,omitzero"`
	Use string `json:"use,omitzero"`
	D   any    `json:"d,omitzero"`
	K   any    `json:"k,omitzero"`
}

func parseJWK(text []byte) (Recipient, error) {
	var k jwk
	if err := json.Unmarshal(text, &k); err != nil {
		return Recipient{}, fmt.Errorf("%w: not a JSON Web Key of RSA or P-256", ErrRecipient)
	}
	switch {
	case k.D != nil || k.K != nil:
		return Recipient{}, errPrivate
	case k.Use != "" && k.Use != "enc":
		return Recipient{}, fmt.Errorf("%w: its use is not enc", ErrRecipient)
	case k.Kty == "RSA":
		n, e := decodeNumber(k.N), decodeNumber(k.E)
		if n == nil || e == nil || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return Recipient{}, fmt.Errorf("%w: n or e of the JSON Web Key is missing or no base64url", ErrRecipient)
		}
		return NewRecipient(&rsa.PublicKey{N: n, E: int(e.Int64())})
	case k.Kty == "EC" && k.Crv == "P-256":
		key, err := decodePoint(k.X, k.Y)
		if err != nil {
			return Recipient{}, err
		}
		return NewRecipient(key)
	}
	return Recipient{}, fmt.Errorf("%w: a JSON Web Key is of kty RSA, or EC with crv P-256", ErrRecipient)
}

// decodeNumber reads a base64urlUInt (RFC 7518 §2); nil for what is none.
func decodeNumber(text string) *big.Int {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

const coordinateLen = 32

// decodePoint reads the coordinates of a point on P-256 (RFC 7518 §6.2.1).
func decodePoint(x, y string) (*ecdsa.PublicKey, error) {
	point := []byte{4} // uncompressed (SEC 1 §2.3.3)
	for _, text := range []string{x, y} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || len(b) != coordinateLen {
			return nil, fmt.Errorf("%w: x or y of the JSON Web Key is not 32 bytes of base64url", ErrRecipient)
		}
		point = append(point, b...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("%w: the point is not on the curve", ErrRecipient)
	}
	return key, nil
}

// IsZero tells whether r is no key.
func (r Recipient) IsZero() bool { return r.rsa == nil && r.ec == nil }

// WithSHA1 gives r as one that opted in to OAEP with SHA-1, because the token that
// holds its private half knows no other. It has no effect on P-256.
func (r Recipient) WithSHA1() Recipient {
	r.sha1 = r.rsa != nil
	return r
}

// SHA1 tells whether r opted in to OAEP with SHA-1.
func (r Recipient) SHA1() bool { return r.sha1 }

// RSA gives the bare key; nil where it is none of RSA.
func (r Recipient) RSA() *rsa.PublicKey { return r.rsa }

// Kind names the key for people: "RSA-3072", "P-256".
func (r Recipient) Kind() string {
	switch {
	case r.rsa != nil:
		return fmt.Sprintf("RSA-%d", r.rsa.N.BitLen())
	case r.ec != nil:
		return "P-256"
	}
	return "none"
}

// canonical gives the required members in the order and form that a thumbprint is
// made of (RFC 7638 §3.2).
func (r Recipient) canonical() []byte {
	switch {
	case r.rsa != nil:
		e := big.NewInt(int64(r.rsa.E)).Bytes()
		return []byte(`{"e":"` + encode(e) + `","kty":"RSA","n":"` + encode(r.rsa.N.Bytes()) + `"}`)
	case r.ec != nil:
		return canonicalEC(r.ec)
	}
	return nil
}

func canonicalEC(key *ecdsa.PublicKey) []byte {
	point, err := key.Bytes()
	if err != nil { // checked when it was made
		return nil
	}
	x, y := point[1:1+coordinateLen], point[1+coordinateLen:]
	return []byte(`{"crv":"P-256","kty":"EC","x":"` + encode(x) + `","y":"` + encode(y) + `"}`)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Thumbprint names the key: base64url of its JWK thumbprint with SHA-256 (RFC 7638),
// 43 characters; "" for none. It does not tell which algorithms it may be used with.
func (r Recipient) Thumbprint() string { return thumbprint(r.canonical()) }

func thumbprint(canonical []byte) string {
	if canonical == nil {
		return ""
	}
	sum := sha256.Sum256(canonical)
	return encode(sum[:])
}

// MarshalJWK gives the JSON Web Key, of the required members alone.
func (r Recipient) MarshalJWK() []byte { return r.canonical() }

// MarshalDER gives the SubjectPublicKeyInfo: rsaEncryption, or id-RSAES-OAEP where
// the recipient opted in to SHA-1, so that ParseRecipientDER gives r again.
func (r Recipient) MarshalDER() []byte {
	switch {
	case r.rsa != nil:
		return r.transport().MarshalDER()
	case r.ec != nil:
		der, err := x509.MarshalPKIXPublicKey(r.ec)
		if err != nil { // checked when it was made
			return nil
		}
		return der
	}
	return nil
}

// MarshalPEM gives the PEM form of MarshalDER.
func (r Recipient) MarshalPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: r.MarshalDER()})
}

// transport gives an RSA key as package seal knows it.
func (r Recipient) transport() seal.PublicKey {
	alg := seal.AlgRSAOAEP256
	if r.sha1 {
		alg = seal.AlgRSAOAEP
	}
	p, err := seal.NewPublicKeyFor(r.rsa, alg)
	if err != nil { // checked when it was made
		return seal.PublicKey{}
	}
	return p
}

// TransportKey gives an RSA key as one to which package seal seals, as form seal
// does. ErrRecipient for P-256.
func (r Recipient) TransportKey() (seal.PublicKey, error) {
	if r.rsa == nil {
		return seal.PublicKey{}, fmt.Errorf("%w: two steps need an RSA key", ErrRecipient)
	}
	return r.transport(), nil
}
