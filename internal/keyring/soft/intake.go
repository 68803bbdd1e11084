package soft

import (
	"context"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// transportKey is the RSA key to which others seal: its private half as PKCS #8
// in protected memory, parsed for each batch and then forgotten.
type transportKey struct {
	private secret.Key
	public  seal.PublicKey
}

func loadTransport(m *secret.Memory, private, public []byte) (k transportKey, err error) {
	if k.public, err = seal.ParsePublicKeyDER(public); err != nil {
		return k, fmt.Errorf("%w: transport key", ErrDamaged)
	}
	k.private, err = m.Key(private)
	return k, err
}

// transportKeys are those that open what was sealed to them, the newest last.
type transportKeys []transportKey

// loadTransports moves the transport keys of c into m.
func loadTransports(m *secret.Memory, c *contents) (list transportKeys, err error) {
	all := append(slices.Clone(c.OldTransports), storedTransport{c.Transport, c.TransportPublic})
	for _, stored := range all {
		k, err := loadTransport(m, stored.Private, stored.Public)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

// copyTransports gives contents with copies of the transport keys alone.
func (c *contents) copyTransports() *contents {
	made := &contents{Transport: slices.Clone(c.Transport), TransportPublic: c.TransportPublic}
	for _, k := range c.OldTransports {
		made.OldTransports = append(made.OldTransports, storedTransport{slices.Clone(k.Private), k.Public})
	}
	return made
}

// newest is the one to which others are told to seal.
func (l transportKeys) newest() transportKey { return l[len(l)-1] }

// opener opens the file key of h with the key that it names.
func (l transportKeys) opener(h seal.Header) (*seal.Opener, error) {
	for _, k := range l {
		if k.public.Named(h) {
			return k.opener(h)
		}
	}
	return l.newest().opener(h) // which says what is wrong with h
}

// opener opens the file key of h.
func (k transportKey) opener(h seal.Header) (opener *seal.Opener, err error) {
	err = k.private.Use(func(der []byte) error {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return fmt.Errorf("%w: transport key", ErrDamaged)
		}
		private, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			return fmt.Errorf("%w: transport key", ErrDamaged)
		}
		defer wipeRSA(private)
		opener, err = seal.NewOpener(private, h)
		return err
	})
	return opener, err
}

// wipeRSA clears what can be reached of a private key. The copies inside
// crypto/rsa cannot be; a build that erases secrets takes care of those.
func wipeRSA(k *rsa.PrivateKey) {
	for _, n := range append([]*big.Int{k.D, k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}, k.Primes...) {
		if n != nil {
			clear(n.Bits())
		}
	}
}

// TransportKey implements keyring.Intake.
func (t *Token) TransportKey() seal.PublicKey { return t.transports.newest().public }

// OpenBatch implements keyring.Intake.
func (t *Token) OpenBatch(_ context.Context, h seal.Header) (keyring.Batch, error) {
	opener, err := t.transports.opener(h)
	if err != nil {
		return nil, transport(err)
	}
	return &batch{t, opener}, nil
}

// batch is a keyring.Batch.
type batch struct {
	token  *Token
	opener *seal.Opener
}

// Roots implements keyring.Batch.
func (b *batch) Roots(row seal.SealedRow) (nwk, app joinery.SealedRoot, err error) {
	err = b.opener.Open(row.Item(), row.MAC, func(keys [][]byte) error {
		if nwk, err = b.root(keys[0]); err != nil {
			return err
		}
		app, err = b.root(keys[1])
		return err
	})
	if err != nil {
		return joinery.SealedRoot{}, joinery.SealedRoot{}, transport(err)
	}
	return nwk, app, nil
}

// root wraps an opened root key, nil for none, in both forms.
func (b *batch) root(key []byte) (r joinery.SealedRoot, err error) {
	switch len(key) {
	case 0:
		return r, nil
	case lwcrypto.BlockLen:
	default:
		return r, keyring.ErrTransport
	}
	newest := b.token.generations.Newest()
	use, err := wrapUnder(b.token.joinKEKs[newest], key)
	if err != nil {
		return r, err
	}
	encrypted, err := b.token.custody.EncryptOAEP(key)
	if err != nil {
		return r, err
	}
	r.Use = keyring.WithGeneration(newest, use)
	r.Custody = keyring.WithGeneration(b.token.generations.Custody, append([]byte{keyring.FormatOAEP256}, encrypted...))
	return r, nil
}

// KEK implements keyring.Batch.
func (b *batch) KEK(in seal.SealedKEK) (blob []byte, err error) {
	err = b.opener.Open(in.Item(), in.MAC, func(keys [][]byte) error {
		blob, err = wrapUnder(b.token.storageKEK, keys[0])
		return err
	})
	if err != nil {
		return nil, transport(err)
	}
	return blob, nil
}

// Close implements keyring.Batch.
func (b *batch) Close() { b.opener.Wipe() }

// wrapUnder makes a blob of key.
func wrapUnder(kek secret.Cipher, key []byte) (blob []byte, err error) {
	blob = append(make([]byte, 0, 1+len(key)+seal.WrapOverhead), keyring.FormatKeyWrap)
	err = kek.Use(func(c cipher.Block) error {
		blob, err = seal.WrapKey(blob, c, key)
		return err
	})
	return blob, err
}

// transport names the failures of a foreign or damaged file; whatever else goes
// wrong keeps its name.
func transport(err error) error {
	for _, foreign := range []error{seal.ErrHeader, seal.ErrOtherKey, seal.ErrOpen, seal.ErrMAC, seal.ErrKeyWrap} {
		if errors.Is(err, foreign) {
			return fmt.Errorf("%w (%w)", keyring.ErrTransport, err)
		}
	}
	return err
}
