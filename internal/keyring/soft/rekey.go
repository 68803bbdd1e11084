package soft

import (
	"context"
	"crypto/cipher"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// slotKey derives the slot key of rekeying profile M into key.
func (m masters) slotKey(key *[lwcrypto.SlotKeyLen]byte, name string, d keyring.Derivation) error {
	master, ok := m[name]
	if !ok {
		return keyring.ErrUnknownMaster
	}
	first, second := d.SlotBlocks()
	copy(key[:], first[:])
	copy(key[lwcrypto.BlockLen:], second[:])
	return master.cipher.Use(func(b cipher.Block) error {
		b.Encrypt(key[:lwcrypto.BlockLen], key[:lwcrypto.BlockLen])
		b.Encrypt(key[lwcrypto.BlockLen:], key[lwcrypto.BlockLen:])
		return nil
	})
}

// DeriveSlotRoot implements keyring.Vault.
func (t *Token) DeriveSlotRoot(_ context.Context, name string, d keyring.Derivation, serial [lwcrypto.SerialLen]byte, step lorawan.Rekey) (keyring.Key, error) {
	k := &key{}
	if err := t.masters.chipRoot(&k.raw, name, d, serial, step); err != nil {
		return nil, err
	}
	return k, nil
}

// chipRoot derives the root key d.Root of rekeying profile M.
func (m masters) chipRoot(root *[lwcrypto.BlockLen]byte, name string, d keyring.Derivation, serial [lwcrypto.SerialLen]byte, step lorawan.Rekey) error {
	var slot [lwcrypto.SlotKeyLen]byte
	var both [2 * lwcrypto.BlockLen]byte
	defer clear(slot[:])
	defer clear(both[:])
	if err := m.slotKey(&slot, name, d); err != nil {
		return err
	}
	temp := lwcrypto.TempKey(step, d.DevEUI)
	lwcrypto.DeriveKey(&both, &slot, &serial, &temp)
	switch d.Root {
	case joinery.AppKey:
		copy(root[:], both[:lwcrypto.BlockLen])
	case joinery.NwkKey:
		copy(root[:], both[lwcrypto.BlockLen:])
	default:
		return keyring.ErrRequest
	}
	return nil
}

// SlotMAC implements keyring.Vault.
func (t *Token) SlotMAC(_ context.Context, name string, d keyring.Derivation, serial [lwcrypto.SerialLen]byte) (mac [32]byte, err error) {
	var slot [lwcrypto.SlotKeyLen]byte
	defer clear(slot[:])
	if err := t.masters.slotKey(&slot, name, d); err != nil {
		return mac, err
	}
	return lwcrypto.AuthMAC(&slot, &serial), nil
}

// NewOutlet implements keyring.Token.
func (t *Token) NewOutlet(_ context.Context, to seal.PublicKey) (keyring.Outlet, error) {
	s, err := seal.NewSealer(to)
	if err != nil {
		return nil, err
	}
	return outlet{s}, nil
}

// outlet is a keyring.Outlet.
type outlet struct{ *seal.Sealer }

// Wrap implements keyring.Outlet.
func (o outlet) Wrap(k keyring.Key) ([]byte, error) {
	own, ok := k.(*key)
	if !ok {
		return nil, keyring.ErrRequest // a handle of another token
	}
	return o.Seal(own.raw[:])
}

// Close implements keyring.Outlet.
func (o outlet) Close() { o.Wipe() }
