package exportfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/go-jose/go-jose/v4"

	"joinery/internal/seal"
	"joinery/internal/secret"
)

// ErrOpen says that a root key does not open with this private key, or is not the one
// that its key check value says.
var ErrOpen = errors.New("a root key of the export does not open")

// OpenedKey is one root key of a device, at its owner's.
type OpenedKey struct {
	Root string // "NwkKey" or "AppKey"
	KCV  string
	Key  []byte // 16 bytes, cleared when the callback returns
}

// Opener opens the devices of one export. It is used by one goroutine.
type Opener struct {
	header  Header
	private crypto.PrivateKey
	// file is the file key that was opened last: devices of form seal that were made
	// together have one in common, and an RSA operation is slow.
	file   *seal.Opener
	fileOf []byte
}

// Open calls use with what opens the devices of an export to this key: ErrOpen where
// it is to another one. The private key is readable in memory for the length of use.
func (k *PrivateKey) Open(h Header, use func(*Opener) error) (err error) {
	if err := h.Check(); err != nil {
		return err
	}
	if h.Recipient != k.recipient.Thumbprint() {
		return fmt.Errorf("%w: the export is to the key %s, and this is %s", ErrOpen, h.Recipient, k.recipient.Thumbprint())
	}
	secret.Do(func() {
		err = k.der.Use(func(der []byte) error {
			private, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				return ErrPrivateKey
			}
			defer wipePrivate(private)
			o := &Opener{header: h, private: private}
			defer o.close()
			return use(o)
		})
	})
	return err
}

// OpenRow opens the root keys of a row that was sealed in two steps to this key, as
// hand-overs of rekeying have them, and calls use with them, NwkKey first; they are
// cleared when it returns. ErrOpen, else the error of use.
func (k *PrivateKey) OpenRow(h seal.Header, row seal.SealedRow, use func(Metadata, []OpenedKey) error) (err error) {
	failed := fmt.Errorf("%w: device %s", ErrOpen, row.DevEUI)
	m := Metadata{JoinEUI: row.JoinEUI, DevEUI: row.DevEUI, MACVersion: row.MACVersion, Root10: row.Root10, JoinNonce: row.JoinNonceFloor}
	open := func(keys [][]byte) error {
		var opened []OpenedKey
		for i, root := range []string{NwkKey, AppKey} {
			if len(keys[i]) == 0 {
				continue
			}
			kcv, err := KCV(keys[i])
			if err != nil {
				return failed
			}
			opened = append(opened, OpenedKey{Root: root, KCV: kcv, Key: keys[i]})
		}
		return use(m, opened)
	}
	secret.Do(func() {
		err = k.der.Use(func(der []byte) error {
			parsed, err := x509.ParsePKCS8PrivateKey(der)
			if err != nil {
				return ErrPrivateKey
			}
			defer wipePrivate(parsed)
			private, ok := parsed.(*rsa.PrivateKey)
			if !ok {
				return failed
			}
			file, err := seal.NewOpener(private, h)
			if err != nil {
				return failed
			}
			defer file.Wipe()
			if err = file.Open(row.Item(), row.MAC, open); errors.Is(err, seal.ErrMAC) {
				err = failed
			}
			return err
		})
	})
	return err
}

// Format implements fmt.Formatter, so that no verb prints a key.
func (o *Opener) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[opener]") }

func (o *Opener) close() {
	if o.file != nil {
		o.file.Wipe()
	}
}

// Open opens the root keys of a device, which a Verifier should have passed, and
// calls use with them, NwkKey first; they are cleared when it returns. ErrFormat,
// ErrOpen, else the error of use.
func (o *Opener) Open(d Device, use func([]OpenedKey) error) error {
	if err := d.Check(o.header); err != nil {
		return err
	}
	keys := make([]OpenedKey, len(d.Keys))
	defer func() {
		for _, k := range keys {
			clear(k.Key)
		}
	}()
	for i, k := range d.Keys {
		if len(k.blob()) == 0 {
			return fmt.Errorf("%w: this file has outlived its keys; device %s has none in it", ErrOpen, d.DevEUI)
		}
		keys[i] = OpenedKey{Root: k.Root, KCV: k.KCV}
	}
	if err := o.openInto(keys, d); err != nil {
		return err
	}
	for _, k := range keys {
		kcv, err := KCV(k.Key)
		if err != nil || len(k.Key) != rootLen || subtle.ConstantTimeCompare([]byte(kcv), []byte(k.KCV)) != 1 {
			return fmt.Errorf("%w: the key check value of device %s is another one", ErrOpen, d.DevEUI)
		}
	}
	return use(keys)
}

func (o *Opener) openInto(keys []OpenedKey, d Device) (err error) {
	failed := fmt.Errorf("%w: device %s", ErrOpen, d.DevEUI)
	switch o.header.Wrapping.Form {
	case FormSeal:
		return o.openSeal(keys, d, failed)
	case FormJWE:
		for i, k := range d.Keys {
			if keys[i].Key, err = o.decrypt(k.JWE); err != nil {
				return failed // the cause would tell which step failed
			}
		}
	default:
		private, ok := o.private.(*rsa.PrivateKey)
		if !ok {
			return failed
		}
		for i, k := range d.Keys {
			if keys[i].Key, err = rsa.DecryptOAEP(oaepHash(o.header.Wrapping.Alg), nil, private, k.Wrapped, nil); err != nil {
				return failed
			}
		}
	}
	return nil
}

func (o *Opener) openSeal(keys []OpenedKey, d Device, failed error) error {
	private, ok := o.private.(*rsa.PrivateKey)
	if !ok {
		return failed
	}
	if o.file == nil || !bytes.Equal(o.fileOf, d.Seal.Key) {
		file, err := seal.NewOpener(private, *d.Seal)
		if err != nil {
			return failed
		}
		o.close()
		o.file, o.fileOf = file, bytes.Clone(d.Seal.Key)
	}
	err := o.file.Open(d.Row().Item(), d.MAC, func(opened [][]byte) error {
		for i, k := range keys {
			from := opened[0] // NwkKey, AppKey
			if k.Root == AppKey {
				from = opened[1]
			}
			keys[i].Key = bytes.Clone(from)
		}
		return nil
	})
	if err != nil {
		return failed
	}
	return nil
}

// decrypt opens the compact JWE of one key.
func (o *Opener) decrypt(text string) ([]byte, error) {
	algs := []jose.KeyAlgorithm{jose.KeyAlgorithm(o.header.Wrapping.Alg)}
	parsed, err := jose.ParseEncryptedCompact(text, algs, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return nil, err
	}
	var key any = o.private
	switch key := o.private.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		return nil, fmt.Errorf("%T", key)
	}
	plain, err := parsed.Decrypt(key)
	defer clear(plain)
	if err != nil {
		return nil, err
	}
	return readOctets(plain)
}

// readOctets reads k of a JSON Web Key of kty oct as Wrapper writes it, without a copy
// of it in a text that nobody clears.
func readOctets(plain []byte) ([]byte, error) {
	inner, ok := bytes.CutPrefix(plain, []byte(jwkHead))
	inner, tail := bytes.CutSuffix(inner, []byte(jwkTail))
	if !ok || !tail || len(inner) != base64.RawURLEncoding.EncodedLen(rootLen) {
		return nil, ErrOpen
	}
	key := make([]byte, rootLen)
	if _, err := base64.RawURLEncoding.Strict().Decode(key, inner); err != nil {
		clear(key)
		return nil, ErrOpen
	}
	return key, nil
}
