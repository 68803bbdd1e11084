package keyring

import (
	"context"
	"fmt"

	"joinery"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// ErrNoRekey says that the device cannot be rekeyed from here. Imported root keys have no
// rekeying key; nor has a device of which nobody said that it rekeys.
var ErrNoRekey = fmt.Errorf("%w: there is no rekeying key", ErrNoRoot)

// rekeyedRoot makes a root key of a rekeyed key set, for a use. Nothing of it is
// stored: the rekeying key of the device derives from the master key, the one of
// each later generation from the one before, and the root key from the last
// (profile S); or all of it follows from slot key and last step (profile M).
func (k *Keyring) rekeyedRoot(ctx context.Context, ks *joinery.KeySet, which joinery.RootKey, use Use) (Key, error) {
	if !ks.CanRekey() || len(ks.Steps) == 0 {
		return nil, ErrNoRekey
	}
	last := ks.Steps[len(ks.Steps)-1]
	switch ks.Rekey {
	case joinery.RekeyS:
	case joinery.RekeyM:
		slot, err := k.slot(ctx, ks)
		if err != nil {
			return nil, err
		}
		return k.token.DeriveSlotRoot(ctx, slot, which, last)
	default:
		return nil, ErrNoRekey
	}
	block := lwcrypto.RekeyNwkKey(last)
	switch which {
	case joinery.NwkKey:
	case joinery.AppKey:
		block = lwcrypto.RekeyAppKey(last)
	default:
		return nil, mismatch("no root key is named")
	}
	rekey, err := k.rekeyingKey(ctx, ks, ks.Steps[:len(ks.Steps)-1])
	if err != nil {
		return nil, err
	}
	defer rekey.Destroy()
	return rekey.Derive(block, use)
}

// firstRekeyingKey gives the rekeying key of profile S with which the device came:
// it derives from the master key, or was handed over.
func (k *Keyring) firstRekeyingKey(ctx context.Context, ks *joinery.KeySet) (Key, error) {
	if ks.Master != "" {
		return k.token.DeriveRoot(ctx, ks.Master, Derivation{Rekey: true, Generation: ks.Generation, DevEUI: ks.DevEUI})
	}
	blob, err := k.unbind(ctx, heldBinding(kindUse, ks.Held.KeySet, joinery.NwkKey), ks.Held.First)
	if err != nil {
		return nil, err
	}
	return k.token.OpenRoot(ctx, blob)
}

// slot names the slot key of profile M of a device.
func (k *Keyring) slot(ctx context.Context, ks *joinery.KeySet) (s Slot, err error) {
	s = Slot{Master: ks.Master, Derivation: Derivation{Generation: ks.Generation, DevEUI: ks.DevEUI}, Serial: ks.Serial}
	if ks.Master != "" {
		return s, nil
	}
	if s.First, err = k.unbind(ctx, heldBinding(kindUse, ks.Held.KeySet, joinery.NwkKey), ks.Held.First); err != nil {
		return Slot{}, err
	}
	s.Second, err = k.unbind(ctx, heldBinding(kindUse, ks.Held.KeySet, joinery.AppKey), ks.Held.Second)
	return s, err
}

// rekeyingKey gives the rekeying key of profile S after steps.
func (k *Keyring) rekeyingKey(ctx context.Context, ks *joinery.KeySet, steps []lorawan.Rekey) (Key, error) {
	key, err := k.firstRekeyingKey(ctx, ks)
	if err != nil {
		return nil, err
	}
	for _, step := range steps {
		next, err := key.Derive(lwcrypto.RekeyNextKey(step), UseRekey)
		key.Destroy()
		if err != nil {
			return nil, err
		}
		key = next
	}
	return key, nil
}

// AuthMAC computes the authorising MAC of a device of rekeying profile M. It is
// the same for every rekeying of the device. Who has it and reaches the element
// can make it derive, and learns no key. ErrNoRekey, ErrNotServed.
func (k *Keyring) AuthMAC(ctx context.Context, ks joinery.KeySet) (mac [32]byte, err error) {
	err = k.run(ctx, func() error {
		if ks.Rekey != joinery.RekeyM || !ks.CanRekey() {
			return ErrNoRekey
		}
		slot, err := k.slot(ctx, &ks)
		if err != nil {
			return err
		}
		mac, err = k.token.SlotMAC(ctx, slot)
		return err
	})
	return mac, err
}

// HandoverIn is a key set whose root keys another Join Server is to have, and the
// row that they go into, complete but for the keys. A row of seal.RootRekeyKey gets
// the rekeying key of the device in that generation in their place: what the owner
// ordered, and who may let root keys leave approved.
type HandoverIn struct {
	KeySet joinery.KeySet
	Row    seal.SealedRow
}

// Handover seals root keys that follow from a rekeying to the transport key of
// the Join Server that they are for, as rows of a key list. Root keys of the
// origins that a device comes with never leave so: ErrRequest.
func (k *Keyring) Handover(ctx context.Context, to seal.PublicKey, in []HandoverIn) (h seal.Header, rows []seal.SealedRow, err error) {
	err = k.run(ctx, func() error {
		out, err := k.token.NewOutlet(ctx, to)
		if err != nil {
			return err
		}
		defer out.Close()
		h = out.Header()
		for _, i := range in {
			if err := k.handOver(ctx, out, &i); err != nil {
				return fmt.Errorf("key set %s: %w", i.KeySet.ID, err)
			}
			rows = append(rows, i.Row)
		}
		return nil
	})
	if err != nil {
		return seal.Header{}, nil, err
	}
	return h, rows, nil
}

func (k *Keyring) handOver(ctx context.Context, out Outlet, in *HandoverIn) (err error) {
	row := &in.Row
	if in.KeySet.Origin != joinery.OriginRekeyed || row.DevEUI != in.KeySet.DevEUI {
		return mismatch("only what a rekeying of this device leads to is handed over")
	}
	if row.Root10 == seal.RootRekeyKey {
		if err := k.handRekeyKey(ctx, out, &in.KeySet, row); err != nil {
			return err
		}
		row.MAC, err = out.MAC(row.Item())
		return err
	}
	wrap := func(which joinery.RootKey) ([]byte, error) {
		key, err := k.rekeyedRoot(ctx, &in.KeySet, which, UseHandover)
		if err != nil {
			return nil, err
		}
		defer key.Destroy()
		return out.Wrap(key)
	}
	row.NwkKey, row.AppKey = nil, nil
	if row.NwkKey, err = wrap(joinery.NwkKey); err != nil {
		return err
	}
	if row.MACVersion.HasTwoRootKeys() { // a 1.0.x device lives by NwkKey alone
		if row.AppKey, err = wrap(joinery.AppKey); err != nil {
			return err
		}
	}
	row.MAC, err = out.MAC(row.Item())
	return err
}

// handRekeyKey puts the rekeying key into a row: the one after the last step, which
// the element has once it obeyed (profile S), or the slot key (profile M), which no
// step changes.
func (k *Keyring) handRekeyKey(ctx context.Context, out Outlet, ks *joinery.KeySet, row *seal.SealedRow) error {
	if !ks.CanRekey() || len(ks.Steps) == 0 {
		return ErrNoRekey
	}
	row.NwkKey, row.AppKey = nil, nil
	switch ks.Rekey {
	case joinery.RekeyS:
		last := len(ks.Steps) - 1
		now, err := k.rekeyingKey(ctx, ks, ks.Steps[:last])
		if err != nil {
			return err
		}
		defer now.Destroy()
		next, err := now.Derive(lwcrypto.RekeyNextKey(ks.Steps[last]), UseHandover)
		if err != nil {
			return err
		}
		defer next.Destroy()
		row.NwkKey, err = out.Wrap(next)
		return err
	case joinery.RekeyM:
		slot, err := k.slot(ctx, ks)
		if err != nil {
			return err
		}
		row.NwkKey, row.AppKey, err = k.token.WrapSlot(ctx, slot, out)
		return err
	}
	return ErrNoRekey
}
