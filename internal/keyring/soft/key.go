package soft

import (
	"crypto/aes"
	"crypto/cipher"

	"joinery/internal/cmac"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
)

// key is a keyring.Key: a root or session key for the length of one verb. All of
// it is on the heap once, and cleared by Destroy.
type key struct {
	raw   [lwcrypto.BlockLen]byte
	block cipher.Block // expanded when it is first needed
	cmac  cmac.CMAC
}

func (k *key) cipher() (cipher.Block, error) {
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
func (k *key) EncryptBlock(b *[lwcrypto.BlockLen]byte) error {
	c, err := k.cipher()
	if err != nil {
		return err
	}
	c.Encrypt(b[:], b[:])
	return nil
}

// DecryptECB implements lwcrypto.BlockDecrypter.
func (k *key) DecryptECB(blocks []byte) error {
	c, err := k.cipher()
	if err != nil {
		return err
	}
	for ; len(blocks) > 0; blocks = blocks[lwcrypto.BlockLen:] {
		c.Decrypt(blocks[:lwcrypto.BlockLen], blocks[:lwcrypto.BlockLen])
	}
	return nil
}

// CMAC implements keyring.Key.
func (k *key) CMAC(msg []byte) ([lwcrypto.BlockLen]byte, error) { return k.cmac.Sum(k, msg) }

// Derive implements keyring.Key. Every use is the same to software.
func (k *key) Derive(block lwcrypto.Block, _ keyring.Use) (keyring.Key, error) {
	child := &key{raw: block}
	if err := k.EncryptBlock(&child.raw); err != nil {
		return nil, err
	}
	return child, nil
}

// Reveal implements keyring.Key.
func (k *key) Reveal(block lwcrypto.Block) ([lwcrypto.BlockLen]byte, error) {
	err := k.EncryptBlock(&block)
	return block, err
}

// Destroy implements keyring.Key.
func (k *key) Destroy() {
	clear(k.raw[:])
	if k.block != nil {
		secret.WipeBlock(k.block)
		k.block = nil
	}
}

// wrappingKey is a keyring.WrappingKey: a peer's KEK in protected memory.
type wrappingKey struct{ cipher secret.Cipher }

// Wrap implements keyring.WrappingKey.
func (w wrappingKey) Wrap(dst []byte, k keyring.Key) (wrapped []byte, err error) {
	own, ok := k.(*key)
	if !ok {
		return nil, keyring.ErrRequest // a handle of another token
	}
	err = w.cipher.Use(func(b cipher.Block) error {
		wrapped, err = lwcrypto.WrapKey(dst, b, &own.raw)
		return err
	})
	return wrapped, err
}

// Destroy implements keyring.WrappingKey.
func (w wrappingKey) Destroy() { w.cipher.Wipe() }
