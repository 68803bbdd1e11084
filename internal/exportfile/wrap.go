package exportfile

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"

	"github.com/go-jose/go-jose/v4"

	"joinery/internal/cmac"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// rootLen is the length of a root key, in bytes: AES-128.
const rootLen = 16

// Wrapper wraps root keys that are in memory. A token does the same by itself and
// puts its blobs together with NewKey. Safe for concurrent use until Wipe.
type Wrapper struct {
	to       Recipient
	wrapping Wrapping
	sealer   *seal.Sealer
	jwe      jose.Encrypter
}

// NewWrapper prepares to wrap to a recipient. ErrWrapping where that does not suit.
func NewWrapper(to Recipient, w Wrapping) (*Wrapper, error) {
	if err := to.Allows(w); err != nil {
		return nil, err
	}
	wrapper := &Wrapper{to: to, wrapping: w}
	var err error
	switch w.Form {
	case FormSeal:
		wrapper.sealer, err = seal.NewSealer(to.transport())
	case FormJWE:
		var key any = to.rsa
		if to.ec != nil {
			key = to.ec
		}
		recipient := jose.Recipient{Algorithm: jose.KeyAlgorithm(w.Alg), Key: key, KeyID: to.Thumbprint()}
		wrapper.jwe, err = jose.NewEncrypter(jose.A256GCM, recipient, (&jose.EncrypterOptions{}).WithContentType(jwkContent))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrapping, err)
	}
	return wrapper, nil
}

// jwkContent says that what a JWE encrypts is a key (RFC 7517 §7).
const jwkContent = "jwk+json"

// Wrap makes a device of an export, without its signature, from its root keys: 16
// bytes, or nil for one that it has not. Keys that its version does not use are left
// out. ErrFormat where one is missing. It neither keeps nor clears them.
func (w *Wrapper) Wrap(m Metadata, nwk, app []byte) (Device, error) {
	// A rekeying key is sealed in the form of root keys when storage keys rotate; no
	// export has one, whose metadata are checked before.
	if err := m.Check(); err != nil && (m.Root10 != seal.RootRekeyKey || w.sealer == nil) {
		return Device{}, err
	}
	d := Device{Metadata: m}
	roots := map[string][]byte{NwkKey: nwk, AppKey: app}
	for _, root := range m.Roots() {
		if len(roots[root]) != rootLen {
			return Device{}, fmt.Errorf("%w: %s of %d bytes", ErrFormat, root, len(roots[root]))
		}
		k, err := w.wrap(root, roots[root])
		if err != nil {
			return Device{}, err
		}
		d.Keys = append(d.Keys, k)
	}
	if w.sealer == nil {
		return d, nil
	}
	header := w.sealer.Header()
	d.Seal = &header
	var err error
	d.MAC, err = w.sealer.MAC(d.Row().Item())
	return d, err
}

func (w *Wrapper) wrap(root string, key []byte) (Key, error) {
	kcv, err := KCV(key)
	if err != nil {
		return Key{}, err
	}
	switch w.wrapping.Form {
	case FormSeal:
		wrapped, err := w.sealer.Seal(key)
		return NewKey(root, kcv, wrapped), err
	case FormJWE:
		text, err := w.encrypt(key)
		sum := sha256.Sum256([]byte(text))
		return Key{Root: root, KCV: kcv, SHA256: sum[:], JWE: text}, err
	default:
		wrapped, err := rsa.EncryptOAEP(oaepHash(w.wrapping.Alg), rand.Reader, w.to.rsa, key, nil)
		return NewKey(root, kcv, wrapped), err
	}
}

// encrypt gives the compact JWE of a key as a JSON Web Key (RFC 7517 §7).
func (w *Wrapper) encrypt(key []byte) (string, error) {
	text := make([]byte, 0, 64)
	defer func() { clear(text[:cap(text)]) }()
	text = append(text, jwkHead...)
	text = append(base64.RawURLEncoding.AppendEncode(text, key), jwkTail...)
	made, err := w.jwe.Encrypt(text)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrWrapping, err)
	}
	return made.CompactSerialize()
}

// What stands around a key in a JWE.
const (
	jwkHead = `{"kty":"oct","k":"`
	jwkTail = `"}`
)

// NewKey puts a wrapped key of form raw or seal together.
func NewKey(root, kcv string, wrapped []byte) Key {
	sum := sha256.Sum256(wrapped)
	return Key{Root: root, KCV: kcv, SHA256: sum[:], Wrapped: wrapped}
}

// oaepHash gives the hash of an algorithm. That SHA-1 has collisions is no harm to
// OAEP, which needs its hash to look random only.
func oaepHash(alg string) hash.Hash {
	if alg == AlgRSAOAEP {
		return sha1.New()
	}
	return sha256.New()
}

// KCV gives the key check value of a key of 16, 24 or 32 bytes: the first three bytes
// of AES-CMAC(key, 16 zero bytes) in upper-case hexadecimal digits.
func KCV(key []byte) (string, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", fmt.Errorf("%w: a key is of 16, 24 or 32 bytes", ErrFormat)
	}
	defer secret.WipeBlock(block)
	mac, err := new(cmac.CMAC).Sum(cmac.Cipher{Block: block}, make([]byte, cmac.BlockLen))
	return FormatKCV(mac), err
}

// FormatKCV gives a key check value from AES-CMAC of 16 zero bytes.
func FormatKCV(mac [cmac.BlockLen]byte) string { return fmt.Sprintf("%X", mac[:3]) }

// Wipe overwrites the file key, if there is one; wrapping may fail afterwards.
func (w *Wrapper) Wipe() {
	if w.sealer != nil {
		w.sealer.Wipe()
	}
}

// Format implements fmt.Formatter, so that no verb prints a file key.
func (w *Wrapper) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[wrapper]") }
