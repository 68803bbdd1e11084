package soft

import (
	"context"
	"crypto/cipher"
	"errors"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// slotKey opens the slot key of rekeying profile M into key.
func (t *Token) slotKey(key *[lwcrypto.SlotKeyLen]byte, s keyring.Slot) error {
	if s.Master == "" {
		return errors.Join(t.openHalf(key[:lwcrypto.BlockLen], s.First), t.openHalf(key[lwcrypto.BlockLen:], s.Second))
	}
	return t.masters.slotKey(key, s.Master, s.Derivation)
}

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

// openHalf opens half of a slot key that was handed over.
func (t *Token) openHalf(half, blob []byte) error {
	k, err := t.openRoot(blob)
	if err != nil {
		return err
	}
	defer k.Destroy()
	copy(half, k.raw[:])
	return nil
}

// DeriveSlotRoot implements keyring.Vault.
func (t *Token) DeriveSlotRoot(_ context.Context, s keyring.Slot, root joinery.RootKey, step lorawan.Rekey) (keyring.Key, error) {
	var slot [lwcrypto.SlotKeyLen]byte
	defer clear(slot[:])
	if err := t.slotKey(&slot, s); err != nil {
		return nil, err
	}
	k := &key{}
	if err := chipRoot(&k.raw, &slot, s.Serial, s.Derivation.DevEUI, root, step); err != nil {
		return nil, err
	}
	return k, nil
}

// chipRoot derives the root key d.Root of rekeying profile M.
func (m masters) chipRoot(root *[lwcrypto.BlockLen]byte, name string, d keyring.Derivation, serial [lwcrypto.SerialLen]byte, step lorawan.Rekey) error {
	var slot [lwcrypto.SlotKeyLen]byte
	defer clear(slot[:])
	if err := m.slotKey(&slot, name, d); err != nil {
		return err
	}
	return chipRoot(root, &slot, serial, d.DevEUI, d.Root, step)
}

func chipRoot(key *[lwcrypto.BlockLen]byte, slot *[lwcrypto.SlotKeyLen]byte, serial [lwcrypto.SerialLen]byte, devEUI lorawan.EUI64, root joinery.RootKey, step lorawan.Rekey) error {
	var both [2 * lwcrypto.BlockLen]byte
	defer clear(both[:])
	temp := lwcrypto.TempKey(step, devEUI)
	lwcrypto.DeriveKey(&both, slot, &serial, &temp)
	switch root {
	case joinery.AppKey:
		copy(key[:], both[:lwcrypto.BlockLen])
	case joinery.NwkKey:
		copy(key[:], both[lwcrypto.BlockLen:])
	default:
		return keyring.ErrRequest
	}
	return nil
}

// SlotMAC implements keyring.Vault.
func (t *Token) SlotMAC(_ context.Context, s keyring.Slot) (mac [32]byte, err error) {
	var slot [lwcrypto.SlotKeyLen]byte
	defer clear(slot[:])
	if err := t.slotKey(&slot, s); err != nil {
		return mac, err
	}
	return lwcrypto.AuthMAC(&slot, &s.Serial), nil
}

// WrapSlot implements keyring.Vault.
func (t *Token) WrapSlot(_ context.Context, s keyring.Slot, out keyring.Outlet) (first, second []byte, err error) {
	var slot [lwcrypto.SlotKeyLen]byte
	defer clear(slot[:])
	if err := t.slotKey(&slot, s); err != nil {
		return nil, nil, err
	}
	a, b := &key{}, &key{}
	defer a.Destroy()
	defer b.Destroy()
	copy(a.raw[:], slot[:lwcrypto.BlockLen])
	copy(b.raw[:], slot[lwcrypto.BlockLen:])
	if first, err = out.Wrap(a); err != nil {
		return nil, nil, err
	}
	second, err = out.Wrap(b)
	return first, second, err
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
