package seal

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"

	"joinery/internal/secret"
)

// Format names the layout of a Header and of what follows it.
const Format = "joinery-seal/1"

// Names of the algorithms, as RFC 7518 §4.3 and §4.4 have them.
const (
	AlgRSAOAEP256 = "RSA-OAEP-256"
	// AlgRSAOAEP is OAEP with SHA-1: for keys in tokens that know no other. Only
	// a key that names it is used with it; see PublicKey.
	AlgRSAOAEP = "RSA-OAEP"
	WrapA256KW = "A256KW"
)

const fileKeyLen = 32

// Errors of headers and of opening. They say nothing about keys.
var (
	// ErrHeader: the header is not well-formed, or names what we do not do.
	ErrHeader = errors.New("not a usable seal header")
	// ErrOtherKey: the header names another recipient.
	ErrOtherKey = errors.New("seal: sealed to another transport key")
	// ErrOpen: the file key does not open: damaged, or not made for this key.
	ErrOpen = errors.New("seal: the file key does not open")
)

// Header travels in front of sealed keys and tells how to open them. All of it
// may be public.
type Header struct {
	Format string `json:"format"` // "joinery-seal/1"
	KID    string `json:"kid"`    // of the transport key, see PublicKey.KID
	Alg    string `json:"alg"`    // "RSA-OAEP-256", or "RSA-OAEP" for a key that says so: how Key is encrypted
	Wrap   string `json:"wrap"`   // "A256KW": how each key is wrapped
	Key    []byte `json:"key"`    // the encrypted file key, base64 in JSON
}

// ParseHeader reads the JSON form strictly: unknown and duplicate members are
// refused.
func ParseHeader(text []byte) (h Header, err error) {
	if err := json.Unmarshal(text, &h, json.RejectUnknownMembers(true)); err != nil {
		return Header{}, fmt.Errorf("%w: want an object with format, kid, alg, wrap and key", ErrHeader)
	}
	return h, h.Check()
}

// Check tells whether h is well-formed and of algorithms that we do.
func (h Header) Check() error {
	_, unknown := hashOf(h.Alg)
	switch {
	case h.Format != Format:
		return fmt.Errorf("%w: want format %q; a newer version of this program may read it", ErrHeader, Format)
	case unknown != nil:
		return fmt.Errorf("%w: %w", ErrHeader, unknown)
	case h.Wrap != WrapA256KW:
		return fmt.Errorf("%w: want wrap %q", ErrHeader, WrapA256KW)
	case len(h.KID) != 43:
		return fmt.Errorf("%w: kid is not 43 characters of base64url", ErrHeader)
	case len(h.Key) < minRSABits/8 || len(h.Key) > maxRSABits/8:
		return fmt.Errorf("%w: key has %d bytes; want the length of an RSA modulus", ErrHeader, len(h.Key))
	}
	return nil
}

// Sealer wraps keys for one recipient, under one file key. Safe for concurrent
// use until Wipe.
type Sealer struct {
	header Header
	keys   fileKeys
}

// NewSealer draws a file key and encrypts it to the recipient.
func NewSealer(to PublicKey) (*Sealer, error) {
	key := make([]byte, fileKeyLen)
	defer clear(key)
	rand.Read(key) // never fails
	encrypted, err := to.EncryptOAEP(key)
	if err != nil {
		return nil, err
	}
	keys, err := newFileKeys(key)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	header := Header{Format: Format, KID: to.KID(), Alg: to.Alg(), Wrap: WrapA256KW, Key: encrypted}
	return &Sealer{header, keys}, nil
}

// Header gives what the recipient needs to open what s seals.
func (s *Sealer) Header() Header { return s.header }

// Seal wraps a key of 16, 24 or 32 bytes: 8 bytes more. It opens only as part of
// an item whose MAC goes with it.
func (s *Sealer) Seal(key []byte) ([]byte, error) {
	if s.keys.wrap == nil {
		return nil, secret.ErrWiped
	}
	return WrapKey(nil, s.keys.wrap, key)
}

// MAC makes the MAC of an item whose keys s sealed.
func (s *Sealer) MAC(i Item) ([]byte, error) { return s.keys.sum(i) }

// SealRow puts root keys, nil where there is none, into a row that is otherwise
// complete, and then its MAC.
func (s *Sealer) SealRow(row *SealedRow, nwk, app []byte) (err error) {
	row.NwkKey, row.AppKey = nil, nil
	if nwk != nil {
		if row.NwkKey, err = s.Seal(nwk); err != nil {
			return err
		}
	}
	if app != nil {
		if row.AppKey, err = s.Seal(app); err != nil {
			return err
		}
	}
	row.MAC, err = s.MAC(row.Item())
	return err
}

// Wipe overwrites the file key; sealing fails afterwards.
func (s *Sealer) Wipe() { s.keys.wipe() }

// Format implements fmt.Formatter, so that no verb prints the file key.
func (s *Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[sealer]") }

// SealKEK seals one KEK of 16, 24 or 32 bytes by itself, for a role ("ns" or
// "as") and under a label.
func SealKEK(to PublicKey, role, label string, key []byte) (Header, SealedKEK, error) {
	k := SealedKEK{Role: role, Label: label}
	h, err := sealOne(to, key, func(wrapped []byte) Item {
		k.Wrapped = wrapped
		return k.Item()
	}, &k.MAC)
	return h, k, err
}

// SealMaster seals one master key by itself, for a name and a derivation profile:
// the MAC is that of MasterItem.
func SealMaster(to PublicKey, name, profile string, key []byte) (h Header, wrapped, mac []byte, err error) {
	h, err = sealOne(to, key, func(w []byte) Item {
		wrapped = w
		return MasterItem(name, profile, w)
	}, &mac)
	return h, wrapped, mac, err
}

// sealOne seals a key that is an item by itself, and makes its MAC.
func sealOne(to PublicKey, key []byte, item func(wrapped []byte) Item, mac *[]byte) (Header, error) {
	s, err := NewSealer(to)
	if err != nil {
		return Header{}, err
	}
	defer s.Wipe()
	wrapped, err := s.Seal(key)
	if err != nil {
		return Header{}, err
	}
	*mac, err = s.MAC(item(wrapped))
	return s.Header(), err
}

// Opener opens the keys of one file. Safe for concurrent use until Wipe.
type Opener struct{ keys fileKeys }

// NewOpener opens the file key of h. ErrOtherKey where h names another
// recipient, ErrOpen where the file key does not open.
func NewOpener(private *rsa.PrivateKey, h Header) (*Opener, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	public, err := NewPublicKeyFor(&private.PublicKey, h.Alg)
	if err != nil {
		return nil, err
	}
	oaep, err := hashOf(h.Alg)
	if err != nil {
		return nil, err
	}
	if h.KID != public.KID() {
		return nil, ErrOtherKey
	}
	key, err := rsa.DecryptOAEP(oaep, nil, private, h.Key, nil)
	if err != nil {
		return nil, ErrOpen // the cause would tell an attacker which step failed
	}
	defer clear(key)
	if len(key) != fileKeyLen {
		return nil, ErrOpen
	}
	keys, err := newFileKeys(key)
	if err != nil {
		return nil, ErrOpen
	}
	return &Opener{keys}, nil
}

// Open checks the MAC of an item, and only then unwraps its keys and calls use
// with them, in the item's order, an absent one as nil; the bytes are cleared
// when use returns. ErrMAC where the item is not what was sealed, ErrKeyWrap where
// a key does not open, else the error of use.
func (o *Opener) Open(i Item, mac []byte, use func(keys [][]byte) error) error {
	if err := o.keys.check(i, mac); err != nil {
		return err
	}
	keys := make([][]byte, len(i.keys))
	defer func() {
		for _, key := range keys {
			clear(key)
		}
	}()
	for n, wrapped := range i.keys {
		if len(wrapped) == 0 {
			continue
		}
		key, err := UnwrapKey(make([]byte, 0, semiblock*maxSemiblocks), o.keys.wrap, wrapped)
		if err != nil {
			return err
		}
		keys[n] = key
	}
	return use(keys)
}

// Wipe overwrites the file key; opening fails afterwards.
func (o *Opener) Wipe() { o.keys.wipe() }

// Format implements fmt.Formatter, so that no verb prints the file key.
func (o *Opener) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[opener]") }
