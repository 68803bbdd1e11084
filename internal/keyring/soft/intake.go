package soft

import (
	"context"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

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

func loadTransport(m *secret.Memory, c *contents) (k transportKey, err error) {
	if k.public, err = seal.ParsePublicKeyDER(c.TransportPublic); err != nil {
		return k, fmt.Errorf("%w: transport key", ErrDamaged)
	}
	k.private, err = m.Key(c.Transport)
	return k, err
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
func (t *Token) TransportKey() seal.PublicKey { return t.transport.public }

// OpenBatch implements keyring.Intake.
func (t *Token) OpenBatch(_ context.Context, h seal.Header) (keyring.Batch, error) {
	opener, err := t.transport.opener(h)
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
	if r.Use, err = wrapUnder(b.token.joinKEK, key); err != nil {
		return r, err
	}
	encrypted, err := b.token.custody.EncryptOAEP(key)
	r.Custody = append([]byte{keyring.FormatOAEP256}, encrypted...)
	return r, err
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
