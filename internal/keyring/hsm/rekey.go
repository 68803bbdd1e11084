package hsm

import (
	"context"
	"fmt"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// DeriveSlotRoot implements keyring.Vault: no token hashes a key of its own in the
// way of that chip family.
func (t *Token) DeriveSlotRoot(context.Context, keyring.Slot, joinery.RootKey, lorawan.Rekey) (keyring.Key, error) {
	return nil, keyring.ErrNotServed
}

// SlotMAC implements keyring.Vault.
func (t *Token) SlotMAC(context.Context, keyring.Slot) ([32]byte, error) {
	return [32]byte{}, keyring.ErrNotServed
}

// WrapSlot implements keyring.Vault.
func (t *Token) WrapSlot(context.Context, keyring.Slot, keyring.Outlet) (first, second []byte, err error) {
	return nil, nil, keyring.ErrNotServed
}

// NewOutlet implements keyring.Token: the file key is drawn in the token, leaves it
// under the recipient's key alone, and is never in this process. ErrNotServed where
// the token does not wrap by the algorithm that the recipient's key is for.
func (t *Token) NewOutlet(ctx context.Context, to seal.PublicKey) (keyring.Outlet, error) {
	o := &handover{ctx: ctx, token: t}
	err := t.use(ctx, func(c *conn, s *session) (err error) {
		o.conn = c
		return o.open(s, to)
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// handover is a keyring.Outlet: the file key of a hand-over in the token.
type handover struct {
	ctx    context.Context
	token  *Token
	conn   *conn
	file   file
	header seal.Header
}

func (o *handover) open(s *session, to seal.PublicKey) (err error) {
	can := o.token.can
	if o.file.key, err = s.api.GenerateKey(s.handle, mechNewAES, can.outFileKey); err != nil {
		return notServed("drawing a file key", err)
	}
	defer func() {
		if err != nil {
			o.file.close(s)
		}
	}()
	public, err := s.api.CreateObject(s.handle, publicKey("joinery recipient", to, false))
	if err != nil {
		return notServed("bringing the recipient's key into the token", err)
	}
	defer func() { _ = s.destroy(public) }()
	wrapped, err := s.api.WrapKey(s.handle, oaep(to.Alg()), public, o.file.key)
	if err != nil {
		return notServed("wrapping a file key by "+to.Alg(), err)
	}
	o.header = seal.Header{Format: seal.Format, KID: to.KID(), Alg: to.Alg(), Wrap: seal.WrapA256KW, Key: wrapped}
	if err := o.header.Check(); err != nil {
		return notServed("wrapping a file key by "+to.Alg(), err)
	}
	return o.file.derive(s, can)
}

// notServed names what a token refused; a token that is away keeps its name.
func notServed(doing string, err error) error {
	if rv, ok := answer(err); ok && lost[rv] {
		return err
	}
	return fmt.Errorf("%w (%s: %w)", keyring.ErrNotServed, doing, err)
}

// Header implements keyring.Outlet.
func (o *handover) Header() seal.Header { return o.header }

// Wrap implements keyring.Outlet.
func (o *handover) Wrap(k keyring.Key) (wrapped []byte, err error) {
	err = o.conn.use(o.ctx, func(s *session) (err error) {
		switch k := k.(type) {
		case *key:
			wrapped, err = s.wrap(o.file.key, k.h)
		case *hostKey:
			err = k.lend(s, func(h handle) (err error) {
				wrapped, err = s.wrap(o.file.key, h)
				return err
			})
		default:
			err = keyring.ErrRequest // a handle of another token
		}
		return err
	})
	if err == nil && len(wrapped) != lwcrypto.WrappedKeyLen {
		err = errNoAnswer
	}
	return wrapped, err
}

// MAC implements keyring.Outlet.
func (o *handover) MAC(i seal.Item) (mac []byte, err error) {
	err = o.conn.use(o.ctx, func(s *session) error {
		sum, err := o.file.sum(s, o.token.can, i.MACInput())
		mac = sum[:]
		return err
	})
	return mac, err
}

// Close implements keyring.Outlet.
func (o *handover) Close() {
	if o.conn.isLost() {
		return
	}
	_ = o.conn.use(context.Background(), func(s *session) error {
		o.file.close(s)
		return nil
	})
}
