package hsm

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"

	"github.com/miekg/pkcs11"

	"joinery"
	"joinery/internal/cmac"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// OpenBatch implements keyring.Intake: the file key is unwrapped into the token.
func (t *Token) OpenBatch(ctx context.Context, h seal.Header) (keyring.Batch, error) {
	if err := h.Check(); err != nil {
		return nil, foreign(err)
	}
	b := &batch{ctx: ctx, token: t}
	err := t.use(ctx, func(c *conn, s *session) error {
		key, err := opener(c.objects.transports, h)
		if err != nil {
			return foreign(err)
		}
		b.conn = c
		b.file, err = openFile(s, t.can, key.private, h)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// opener finds the transport key to which something was sealed.
func opener(transports []pair, h seal.Header) (pair, error) {
	for _, p := range transports {
		if p.key.Named(h) {
			return p, nil
		}
	}
	return pair{}, seal.ErrOtherKey
}

// foreign names the failures of a foreign or damaged file.
func foreign(err error) error { return fmt.Errorf("%w (%w)", keyring.ErrTransport, err) }

// file is the file key of a sealed file in the token, and the key of its MACs:
// there, too, or, where the token does not derive, here. Whoever has it can forge
// items of this file, and open none.
type file struct {
	key     handle
	mac     handle
	hostMAC cipher.Block
}

// openFile opens the file key of h and derives that of its MACs. ErrTransport
// where it does not open, or is none of AES-256.
func openFile(s *session, can *capabilities, transport handle, h seal.Header) (f file, err error) {
	f.key, err = s.api.UnwrapKey(s.handle, oaep(h.Alg), transport, h.Key, can.fileKey)
	if rv, ok := answer(err); ok && !lost[rv] {
		return file{}, foreign(seal.ErrOpen)
	}
	if err != nil {
		return file{}, err
	}
	if err := f.derive(s, can); err != nil {
		f.close(s)
		return file{}, err
	}
	return f, nil
}

// derive makes the key of the MACs.
func (f *file) derive(s *session, can *capabilities) (err error) {
	// Some tokens do not tell the length of what they unwrapped (SoftHSM says 0).
	n, err := s.attribute(f.key, pkcs11.CKA_VALUE_LEN)
	if err == nil && !bytes.Equal(n, ulong(32)) && !bytes.Equal(n, ulong(0)) {
		return foreign(seal.ErrOpen)
	}
	blocks := seal.MACKeyBlocks()
	if can.derive {
		f.mac, err = s.derive(f.key, blocks, can.macKey)
		return err
	}
	defer clear(blocks)
	if err := s.encrypt(f.key, blocks); err != nil {
		return err
	}
	f.hostMAC, err = aes.NewCipher(blocks)
	return err
}

// check compares the MAC of an item in constant time.
func (f *file) check(s *session, can *capabilities, i seal.Item, mac []byte) error {
	want, err := f.sum(s, can, i.MACInput())
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want[:], mac) != 1 {
		return foreign(seal.ErrMAC)
	}
	return nil
}

func (f *file) sum(s *session, can *capabilities, msg []byte) ([lwcrypto.BlockLen]byte, error) {
	switch {
	case f.hostMAC != nil:
		return new(cmac.CMAC).Sum(cmac.Cipher{Block: f.hostMAC}, msg)
	case can.cmac:
		return s.cmac(f.mac, msg)
	}
	return new(cmac.CMAC).Sum(ecb{s, f.mac}, msg)
}

func (f *file) close(s *session) {
	for _, h := range []handle{f.key, f.mac} {
		if h != 0 {
			_ = s.destroy(h)
		}
	}
	if f.hostMAC != nil {
		secret.WipeBlock(f.hostMAC)
	}
}

// ecb is a cmac.Encrypter over the ECB mode of a token.
type ecb struct {
	s *session
	h handle
}

func (e ecb) EncryptBlock(b *[lwcrypto.BlockLen]byte) error { return e.s.encrypt(e.h, b[:]) }

// batch is a keyring.Batch: the keys of one sealed file. A key on its way through
// is sensitive, and extractable until it is destroyed, because key wrap under two
// other keys of the token is what it is there for.
type batch struct {
	ctx   context.Context
	token *Token
	conn  *conn
	file  file
}

func (b *batch) use(f func(*session) error) error { return b.conn.use(b.ctx, f) }

// Roots implements keyring.Batch.
func (b *batch) Roots(row seal.SealedRow) (nwk, app joinery.SealedRoot, err error) {
	if !b.token.can.servesSealed() {
		return nwk, app, keyring.ErrNotServed
	}
	err = b.use(func(s *session) (err error) {
		if err := b.file.check(s, b.token.can, row.Item(), row.MAC); err != nil {
			return err
		}
		if nwk, err = b.root(s, row.NwkKey); err != nil {
			return err
		}
		app, err = b.root(s, row.AppKey)
		return err
	})
	if err != nil {
		return joinery.SealedRoot{}, joinery.SealedRoot{}, err
	}
	return nwk, app, nil
}

// root wraps a sealed root key, if there is one, in both forms.
func (b *batch) root(s *session, wrapped []byte) (r joinery.SealedRoot, err error) {
	switch len(wrapped) {
	case 0:
		return r, nil
	case lwcrypto.WrappedKeyLen:
	default:
		return r, foreign(seal.ErrKeyWrap)
	}
	err = b.transit(s, wrapped, func(root handle) error {
		kek, to := b.conn.objects.newestJoinKEK(), b.conn.objects.newestCustody()
		use, err := s.wrap(kek.handles[0], root)
		if err != nil {
			return failed("wrapping a root key for use", err)
		}
		alg := b.token.can.custody
		custody, err := s.api.WrapKey(s.handle, oaep(alg), to.public, root)
		if err != nil {
			return failed("wrapping a root key for custody", err)
		}
		r.Use = keyring.WithGeneration(kek.number, append([]byte{keyring.FormatKeyWrap}, use...))
		r.Custody = keyring.WithGeneration(to.number, append([]byte{formatOf(alg)}, custody...))
		return nil
	})
	return r, err
}

// formatOf gives the format of a blob that an algorithm made.
func formatOf(alg string) byte {
	if alg == seal.AlgRSAOAEP {
		return keyring.FormatOAEP1
	}
	return keyring.FormatOAEP256
}

// transit unwraps a key of the file for the length of f.
func (b *batch) transit(s *session, wrapped []byte, f func(handle) error) error {
	h, err := s.unwrap(b.file.key, wrapped, b.token.can.transit)
	if rv, ok := answer(err); ok && !lost[rv] {
		return foreign(seal.ErrKeyWrap)
	}
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(h) }()
	return f(h)
}

// KEK implements keyring.Batch.
func (b *batch) KEK(in seal.SealedKEK) (blob []byte, err error) {
	err = b.use(func(s *session) error {
		if err := b.file.check(s, b.token.can, in.Item(), in.MAC); err != nil {
			return err
		}
		if !isWrappedKEK(in.Wrapped) {
			return foreign(seal.ErrKeyWrap)
		}
		return b.transit(s, in.Wrapped, func(kek handle) error {
			wrapped, err := s.wrap(b.conn.objects.storageKEK, kek)
			blob = append([]byte{keyring.FormatKeyWrap}, wrapped...)
			return failed("wrapping a KEK", err)
		})
	})
	if err != nil {
		return nil, err
	}
	return blob, nil
}

// Close implements keyring.Batch.
func (b *batch) Close() {
	_ = b.conn.use(context.Background(), func(s *session) error {
		b.file.close(s)
		return nil
	})
}
