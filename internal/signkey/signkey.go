// Package signkey keeps the private key by which a maker signs firmware in a file of
// its own, under a passphrase: the key is PKCS #8, P-256, and the file is age's, in its
// armour, so that `age --decrypt` opens it without this project.
package signkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"regexp"

	"filippo.io/age"
	agetext "filippo.io/age/armor" //nolint:misspell // the package is called so
)

// Errors.
var (
	// ErrFormat: not the file of a key, or none on P-256.
	ErrFormat = errors.New("not a key that signs firmware")
	// ErrPassphrase: the passphrase does not open the file.
	ErrPassphrase = errors.New("the passphrase does not open it")
)

// MaxFile bounds the file of a key, in bytes.
const MaxFile = 16 << 10

// MinPassphrase is how long a passphrase must be at least, in bytes.
const MinPassphrase = 12

// Key is a private key that is open.
type Key struct{ private *ecdsa.PrivateKey }

// New draws a key, and writes its file.
func New(out io.Writer, passphrase string) (*Key, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has less than %d characters: take a longer one", MinPassphrase)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	to.SetWorkFactor(workFactor(passphrase))
	armoured := agetext.NewWriter(out)
	sealed, err := age.Encrypt(armoured, to)
	if err != nil {
		return nil, err
	}
	err = pem.Encode(sealed, &pem.Block{Type: "PRIVATE KEY", Bytes: text})
	return &Key{private}, errors.Join(err, sealed.Close(), armoured.Close())
}

// Is tells whether a file looks like that of a key.
func Is(file []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(file), []byte(agetext.Header)) }

// Open opens the file of a key. ErrFormat, ErrPassphrase.
func Open(file []byte, passphrase string) (*Key, error) {
	if !Is(file) {
		return nil, ErrFormat
	}
	by, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, ErrPassphrase // an empty one
	}
	opened, err := age.Decrypt(agetext.NewReader(bytes.NewReader(file)), by)
	if err != nil {
		if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
			return nil, ErrPassphrase
		}
		return nil, ErrFormat
	}
	text := make([]byte, MaxFile)
	defer clear(text)
	n, err := io.ReadFull(opened, text)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, ErrFormat
	}
	block, _ := pem.Decode(text[:n])
	if block == nil {
		return nil, ErrFormat
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, ErrFormat
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, ErrFormat
	}
	return &Key{private}, nil
}

// Public gives the public half.
func (k *Key) Public() *ecdsa.PublicKey { return &k.private.PublicKey }

// Sign signs a SHA-256 digest: r ‖ s.
func (k *Key) Sign(digest [32]byte) (signature [64]byte, err error) {
	r, s, err := ecdsa.Sign(rand.Reader, k.private, digest[:])
	if err != nil {
		return signature, err
	}
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signature, nil
}

// String keeps the key out of logs.
func (k *Key) String() string { return "a key that signs firmware" }

// Format is String for every verb of package fmt.
func (k *Key) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(k.String())) }

// Drawn draws a passphrase for files that programs open: 130 bits.
func Drawn() string { return drawnPrefix + rand.Text() }

const drawnPrefix = "joinery-"

// drawn is the form of a passphrase that was drawn. Nobody guesses one, however fast a
// guess is, so a file under it need not be slow to open.
var drawn = regexp.MustCompile(`^` + drawnPrefix + `[A-Z2-7]{26}$`)

// workFactor is scrypt's: a second and 256 MiB for what a person typed.
func workFactor(passphrase string) int {
	if drawn.MatchString(passphrase) {
		return 11
	}
	return 18
}

// MarshalPublic writes a public key as PEM.
func MarshalPublic(key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParsePublic reads a public key on P-256, PEM. ErrFormat.
func ParsePublic(text []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%w: want a PEM block PUBLIC KEY", ErrFormat)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: the public key is damaged", ErrFormat)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: want a public key on P-256", ErrFormat)
	}
	return public, nil
}
