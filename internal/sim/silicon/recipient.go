// Package silicon opens the files in which a factory hands the keys of
// simulated secure elements to the simulator: each key is sealed to the
// simulator's recipient key, as a real factory writes keys into silicon that
// nobody reads out again. The format is "joinery-silicon/3", and version 2 is read,
// too; see Reader.
package silicon

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RecipientBits is the size of a recipient key.
const RecipientBits = 3072

// Names of the two files that CreateRecipient makes.
const (
	RecipientKeyFile = "recipient.key"
	RecipientPubFile = "recipient.pub"
)

// PEM block types.
const (
	pemPrivate = "PRIVATE KEY" // PKCS #8
	pemPublic  = "PUBLIC KEY"  // SubjectPublicKeyInfo
)

// Recipient is the key pair to which silicon files are sealed.
type Recipient struct {
	key *rsa.PrivateKey
	kid string
}

// KID names the key: base64url(SHA-256(SubjectPublicKeyInfo)).
func (r *Recipient) KID() string { return r.kid }

// String keeps the key out of logs.
func (r *Recipient) String() string { return "recipient " + r.kid }

// Format is String for every verb of package fmt.
func (r *Recipient) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(r.String())) }

// CreateRecipient makes a key pair in dir, which is made if need be: the
// private half in recipient.key, mode 0600, the public one in recipient.pub.
// It replaces neither: whatever was sealed to an old key would be lost.
func CreateRecipient(dir string) (*Recipient, error) {
	keyFile, pubFile := filepath.Join(dir, RecipientKeyFile), filepath.Join(dir, RecipientPubFile)
	for _, file := range []string{keyFile, pubFile} {
		if _, err := os.Lstat(file); err == nil {
			return nil, fmt.Errorf("%s exists already: name another directory, or remove it if nothing is sealed to it", file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("recipient key: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("recipient key: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, RecipientBits)
	if err != nil {
		return nil, fmt.Errorf("recipient key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("recipient key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("recipient key: %w", err)
	}
	if err := writeNew(keyFile, 0o600, pemPrivate, private); err != nil {
		return nil, err
	}
	if err := writeNew(pubFile, 0o644, pemPublic, public); err != nil {
		return nil, err
	}
	return &Recipient{key: key, kid: kidOf(public)}, nil
}

func writeNew(file string, mode fs.FileMode, kind string, der []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("recipient key: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	return errors.Join(err, f.Sync(), f.Close())
}

// LoadRecipient reads a private recipient key, PEM PKCS #8. A file that others
// than its owner may read is refused.
func LoadRecipient(file string) (*Recipient, error) {
	if err := CheckPrivate(file); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("recipient key: %w", err)
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemPrivate {
		return nil, fmt.Errorf("recipient key %s: want a PEM block %q (PKCS #8), as `joinsim recipient` makes", file, pemPrivate)
	}
	defer clear(block.Bytes)
	// The error could repeat parts of the file and is left out.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("recipient key %s: damaged, not a PKCS #8 private key", file)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("recipient key %s: want an RSA key", file)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("recipient key %s: %w", file, err)
	}
	return &Recipient{key: key, kid: kidOf(public)}, nil
}

// CheckPrivate refuses a file with secrets that its group or others may touch.
func CheckPrivate(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s holds secrets and has mode %04o: run chmod 600 %s", file, mode, file)
	}
	return nil
}

func kidOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
