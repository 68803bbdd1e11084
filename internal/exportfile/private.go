package exportfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/go-json-experiment/json"

	"joinery/internal/secret"
)

// ErrPrivateKey is wrapped by the errors about a private key that cannot be used.
// They repeat nothing of it.
var ErrPrivateKey = errors.New("not a usable private key")

// PrivateKey is a recipient's private key, in package secret's memory.
type PrivateKey struct {
	memory    *secret.Memory
	der       secret.Key // PKCS #8
	recipient Recipient
}

// ParsePrivateKey reads RSA or P-256 in PEM (PKCS #8, PKCS #1, SEC 1) or as a JSON
// Web Key. It clears text. ErrPrivateKey.
func ParsePrivateKey(text []byte) (*PrivateKey, error) { return OpenPrivateKey(text, Unlock{}) }

// OpenPrivateKey is ParsePrivateKey for a key that may be protected: PKCS #8 in PEM
// by a passphrase (PBES2), or any of these forms in a file of age. It clears text.
// ErrPrivateKey, or the error of u.Passphrase.
func OpenPrivateKey(text []byte, u Unlock) (k *PrivateKey, err error) {
	defer clear(text)
	defer clear(u.Identities)
	secret.Do(func() { k, err = openPrivateKey(text, u) })
	return k, err
}

func openPrivateKey(text []byte, u Unlock) (*PrivateKey, error) {
	if !isAge(text) {
		return parsePrivateKey(text, u)
	}
	inner, err := openAge(text, u)
	defer clear(inner)
	if err != nil {
		return nil, err
	}
	return parsePrivateKey(inner, u)
}

func parsePrivateKey(text []byte, u Unlock) (*PrivateKey, error) {
	text = bytes.TrimSpace(text)
	var key any
	var err error
	if len(text) > 0 && text[0] == '{' {
		key, err = parsePrivateJWK(text)
	} else {
		key, err = parsePrivatePEM(text, u)
	}
	if err != nil {
		return nil, err
	}
	defer wipePrivate(key)
	var public any
	switch key := key.(type) {
	case *rsa.PrivateKey:
		public = &key.PublicKey
	case *ecdsa.PrivateKey:
		public = &key.PublicKey
	}
	recipient, err := NewRecipient(public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPrivateKey, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not fit together", ErrPrivateKey)
	}
	defer clear(der)
	memory, err := secret.NewMemory()
	if err != nil {
		return nil, err
	}
	held, err := memory.Key(der)
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return &PrivateKey{memory, held, recipient}, nil
}

func parsePrivatePEM(text []byte, u Unlock) (any, error) {
	for len(text) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		defer clear(block.Bytes)
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY":
			return openPBES2(block.Bytes, u)
		case block.Headers["DEK-Info"] != "":
			return nil, fmt.Errorf("%w: it is encrypted in an old way; have openssl pkcs8 -topk8 -v2 aes-256-cbc write it anew", ErrPrivateKey)
		case block.Type == "PRIVATE KEY":
			return parsed(x509.ParsePKCS8PrivateKey(block.Bytes))
		case block.Type == "RSA PRIVATE KEY":
			return parsed(x509.ParsePKCS1PrivateKey(block.Bytes))
		case block.Type == "EC PRIVATE KEY":
			return parsed(x509.ParseECPrivateKey(block.Bytes))
		} // "EC PARAMETERS" stands in front of some keys
	}
	return nil, fmt.Errorf("%w: want a private key in PEM, or a JSON Web Key", ErrPrivateKey)
}

// parsed drops the cause of an error, which might repeat what it read.
func parsed[K any](key K, err error) (any, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: it is damaged, or of another kind than it says", ErrPrivateKey)
	}
	return key, nil
}

// privateJWK is the members of a private key (RFC 7518 §6.2.2, §6.3.2), base64url.
type privateJWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	N   string `json:"n"`
	E   string `json:"e"`
	X   string `json:"x"`
	Y   string `json:"y"`
	D   string `json:"d"`
	P   string `json:"p"`
	Q   string `json:"q"`
}

func parsePrivateJWK(text []byte) (any, error) {
	var k privateJWK
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("%w: not a JSON Web Key", ErrPrivateKey)
	}
	switch {
	case k.D == "":
		return nil, fmt.Errorf("%w: this is the public half", ErrPrivateKey)
	case k.Kty == "RSA":
		n, e, d, p, q := decodeNumber(k.N), decodeNumber(k.E), decodeNumber(k.D), decodeNumber(k.P), decodeNumber(k.Q)
		if n == nil || e == nil || !e.IsInt64() || d == nil || p == nil || q == nil {
			return nil, fmt.Errorf("%w: a JSON Web Key of RSA needs n, e, d, p and q", ErrPrivateKey)
		}
		key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())}, D: d, Primes: []*big.Int{p, q}}
		if key.Validate() != nil {
			return nil, fmt.Errorf("%w: the members do not fit together", ErrPrivateKey)
		}
		key.Precompute()
		return key, nil
	case k.Kty == "EC" && k.Crv == "P-256":
		return parsePrivatePoint(k)
	}
	return nil, fmt.Errorf("%w: a JSON Web Key is of kty RSA, or EC with crv P-256", ErrPrivateKey)
}

func parsePrivatePoint(k privateJWK) (any, error) {
	d, err := base64.RawURLEncoding.Strict().DecodeString(k.D)
	defer clear(d)
	if err != nil || len(d) != coordinateLen {
		return nil, fmt.Errorf("%w: d is not 32 bytes of base64url", ErrPrivateKey)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		return nil, fmt.Errorf("%w: d is not a key of P-256", ErrPrivateKey)
	}
	public, err := decodePoint(k.X, k.Y)
	if err != nil || !key.PublicKey.Equal(public) {
		return nil, fmt.Errorf("%w: x and y are not the public half of d", ErrPrivateKey)
	}
	return key, nil
}

// wipePrivate clears the numbers of a key. What the standard library computed from
// them for speed is left to the garbage collector, and to secret.Do.
func wipePrivate(key any) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		for _, n := range append([]*big.Int{key.D, key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}, key.Primes...) {
			if n != nil {
				clear(n.Bits())
			}
		}
	case *ecdsa.PrivateKey:
		clear(key.D.Bits()) //nolint:staticcheck // the number itself is what has to go
	}
}

// Recipient gives the public half.
func (k *PrivateKey) Recipient() Recipient { return k.recipient }

// Close wipes the key.
func (k *PrivateKey) Close() error { return k.memory.Close() }

// Format implements fmt.Formatter, so that no verb prints a key.
func (k *PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }
