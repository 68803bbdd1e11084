package hsm

import (
	"crypto/aes"
	"crypto/cipher"

	"github.com/miekg/pkcs11"

	"joinery/internal/cmac"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
)

// hostKey is a keyring.Key in this process's memory, for tokens that cannot keep
// it: a session key at level ecb-oracle, a root key at level in-memory. All of it
// is on the heap once, and cleared by Destroy.
type hostKey struct {
	conn  *conn // whose KEKs wrap it
	raw   [lwcrypto.BlockLen]byte
	block cipher.Block // expanded when it is first needed
	mac   cmac.CMAC
}

func (k *hostKey) cipher() (cipher.Block, error) {
	if k.block == nil {
		b, err := aes.NewCipher(k.raw[:])
		if err != nil {
			return nil, err
		}
		k.block = b
	}
	return k.block, nil
}

// EncryptBlock implements cmac.Encrypter.
func (k *hostKey) EncryptBlock(b *[lwcrypto.BlockLen]byte) error {
	c, err := k.cipher()
	if err != nil {
		return err
	}
	c.Encrypt(b[:], b[:])
	return nil
}

// DecryptECB implements lwcrypto.BlockDecrypter.
func (k *hostKey) DecryptECB(blocks []byte) error {
	c, err := k.cipher()
	if err != nil {
		return err
	}
	for ; len(blocks) >= lwcrypto.BlockLen; blocks = blocks[lwcrypto.BlockLen:] {
		c.Decrypt(blocks[:lwcrypto.BlockLen], blocks[:lwcrypto.BlockLen])
	}
	return nil
}

// CMAC implements keyring.Key.
func (k *hostKey) CMAC(msg []byte) ([lwcrypto.BlockLen]byte, error) { return k.mac.Sum(k, msg) }

// Derive implements keyring.Key.
func (k *hostKey) Derive(block lwcrypto.Block, _ keyring.Use) (keyring.Key, error) {
	child := &hostKey{conn: k.conn, raw: block}
	if err := k.EncryptBlock(&child.raw); err != nil {
		return nil, err
	}
	return child, nil
}

// Reveal implements keyring.Key.
func (k *hostKey) Reveal(block lwcrypto.Block) ([lwcrypto.BlockLen]byte, error) {
	err := k.EncryptBlock(&block)
	return block, err
}

// Destroy implements keyring.Key.
func (k *hostKey) Destroy() {
	clear(k.raw[:])
	if k.block != nil {
		secret.WipeBlock(k.block)
		k.block = nil
	}
}

// lend brings the key into the token for f: only there is the KEK that wraps it.
func (k *hostKey) lend(s *session, f func(handle) error) error {
	t := append(sessionKey(true), pkcs11.NewAttribute(pkcs11.CKA_VALUE, k.raw[:]))
	h, err := s.api.CreateObject(s.handle, t)
	if err != nil {
		return failed("bringing a session key into the token", err)
	}
	defer func() { _ = s.destroy(h) }()
	return f(h)
}
