package hsm

import (
	"context"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"joinery/internal/cmac"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
)

// key is a keyring.Key: the handle of a session object.
type key struct {
	conn *conn
	can  *capabilities
	h    handle
	mac  cmac.CMAC
}

// newRoot gives a handle of a root key.
func newRoot(c *conn, can *capabilities, h handle) keyring.Key {
	return &key{conn: c, can: can, h: h}
}

func (k *key) use(f func(*session) error) error { return k.conn.use(context.Background(), f) }

// EncryptBlock implements cmac.Encrypter, where the token has no CMAC.
func (k *key) EncryptBlock(b *[lwcrypto.BlockLen]byte) error {
	return k.use(func(s *session) error { return s.encrypt(k.h, b[:]) })
}

// DecryptECB implements lwcrypto.BlockDecrypter.
func (k *key) DecryptECB(blocks []byte) error {
	return k.use(func(s *session) error { return s.decrypt(k.h, blocks) })
}

// CMAC implements keyring.Key.
func (k *key) CMAC(msg []byte) (mac [lwcrypto.BlockLen]byte, err error) {
	if !k.can.cmac {
		return k.mac.Sum(k, msg)
	}
	err = k.use(func(s *session) (err error) {
		mac, err = s.cmac(k.h, msg)
		return err
	})
	return mac, err
}

// Derive implements keyring.Key. At level ecb-oracle the derived key is in memory.
func (k *key) Derive(block lwcrypto.Block, use keyring.Use) (keyring.Key, error) {
	if !k.can.derive {
		child := &hostKey{conn: k.conn, raw: block}
		if err := k.EncryptBlock(&child.raw); err != nil {
			child.Destroy()
			return nil, err
		}
		return child, nil
	}
	t, ok := k.can.derived[use]
	if !ok {
		return nil, fmt.Errorf("%w: a key without a use", keyring.ErrRequest)
	}
	child := &key{conn: k.conn, can: k.can}
	err := k.use(func(s *session) (err error) {
		child.h, err = s.derive(k.h, block[:], t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return child, nil
}

// readable is the template of a session key that leaves in the clear.
var readable = ofLen(append(template{
	pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
	pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
	pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
	pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
	pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
	pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
}, rightsOf(nil)...), lwcrypto.BlockLen)

// Reveal implements keyring.Key.
func (k *key) Reveal(block lwcrypto.Block) (value [lwcrypto.BlockLen]byte, err error) {
	if !k.can.derive {
		value = block
		err = k.EncryptBlock(&value)
		return value, err
	}
	err = k.use(func(s *session) error { return reveal(s, k.h, block, &value) })
	return value, err
}

// reveal derives a key that can be read, and reads it.
func reveal(s *session, base handle, block lwcrypto.Block, value *[lwcrypto.BlockLen]byte) error {
	h, err := s.derive(base, block[:], readable)
	if err != nil {
		return err
	}
	defer func() { _ = s.destroy(h) }()
	n, err := s.api.Value(s.handle, h, value[:])
	if err == nil && n != len(value) {
		err = errNoAnswer
	}
	return err
}

// Destroy implements keyring.Key.
func (k *key) Destroy() {
	if !k.conn.isLost() {
		k.conn.discard(k.h)
	}
}

// wrappingKey is a keyring.WrappingKey: a peer's KEK as a session object that
// stays. It is opened again from its blob when the login was lost.
type wrappingKey struct {
	token *Token
	blob  []byte

	mu   sync.Mutex
	conn *conn
	h    handle
}

// Wrap implements keyring.WrappingKey.
func (w *wrappingKey) Wrap(dst []byte, k keyring.Key) ([]byte, error) {
	var wrapped []byte
	var err error
	switch k := k.(type) {
	case *key:
		wrapped, err = w.wrap(k.conn, func(s *session, kek handle, out *[]byte) (err error) {
			*out, err = s.wrap(kek, k.h)
			return err
		})
	case *hostKey:
		wrapped, err = w.wrap(k.conn, func(s *session, kek handle, out *[]byte) error {
			return k.lend(s, func(h handle) (err error) {
				*out, err = s.wrap(kek, h)
				return err
			})
		})
	default:
		return nil, keyring.ErrRequest // a handle of another token
	}
	if err != nil {
		return nil, err
	}
	if len(wrapped) != lwcrypto.WrappedKeyLen {
		return nil, errNoAnswer
	}
	return append(dst, wrapped...), nil
}

func (w *wrappingKey) wrap(c *conn, f func(s *session, kek handle, out *[]byte) error) (wrapped []byte, err error) {
	kek, err := w.handleIn(c)
	if err != nil {
		return nil, err
	}
	err = c.use(context.Background(), func(s *session) error { return f(s, kek, &wrapped) })
	return wrapped, err
}

// handleIn gives the KEK's handle within a login, and opens it there if that is
// another one than before.
func (w *wrappingKey) handleIn(c *conn) (handle, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == c {
		return w.h, nil
	}
	h, err := w.token.openKEK(c, w.blob)
	if err != nil {
		return 0, err
	}
	w.conn, w.h = c, h
	return h, nil
}

// Destroy implements keyring.WrappingKey.
func (w *wrappingKey) Destroy() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil && !w.conn.isLost() {
		w.conn.discard(w.h)
	}
	w.conn = nil
}
