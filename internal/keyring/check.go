package keyring

import (
	"context"

	"joinery"
)

// CheckKeySet tells whether ks can be used: that every blob of it belongs to it
// and opens, that its master key is here, and that Root10 names a root that it
// has. Of custody blobs only the MAC can be checked here.
func (k *Keyring) CheckKeySet(ctx context.Context, ks joinery.KeySet) error {
	return k.run(ctx, func() error {
		r := roots{keyring: k, keySet: ks}
		defer r.destroy()
		if _, err := r.key(ctx, ks.Root10); err != nil {
			return err
		}
		if ks.Origin != joinery.OriginSealed {
			return nil
		}
		for which, sealed := range map[joinery.RootKey]joinery.SealedRoot{joinery.NwkKey: ks.Nwk, joinery.AppKey: ks.App} {
			if len(sealed.Use) == 0 && len(sealed.Custody) == 0 {
				continue
			}
			if _, err := r.key(ctx, which); err != nil {
				return err
			}
			if _, err := k.unbind(ctx, rootBinding(kindCustody, ks.ID, which), sealed.Custody); err != nil {
				return err
			}
		}
		return k.checkHeld(ctx, &ks.Held)
	})
}

// checkHeld tells whether a rekeying key that was handed over, if there is one,
// belongs to its row and opens.
func (k *Keyring) checkHeld(ctx context.Context, h *joinery.HeldKey) error {
	for place, sealed := range map[joinery.RootKey]joinery.Sealed{joinery.NwkKey: h.First, joinery.AppKey: h.Second} {
		if len(sealed) == 0 {
			continue
		}
		blob, err := k.unbind(ctx, heldBinding(kindUse, h.KeySet, place), sealed)
		if err != nil {
			return err
		}
		key, err := k.token.OpenRoot(ctx, blob)
		if err != nil {
			return err
		}
		key.Destroy()
	}
	return nil
}

// CheckKEK tells whether kek belongs to its row and opens.
func (k *Keyring) CheckKEK(ctx context.Context, kek joinery.KEK) error {
	return k.run(ctx, func() error {
		b, err := kekBinding(kek.Peer, kek.Role, kek.Version)
		if err != nil {
			return err
		}
		blob, err := k.unbind(ctx, b, kek.Sealed)
		if err != nil {
			return err
		}
		key, err := k.token.OpenKEK(ctx, blob)
		if err != nil {
			return err
		}
		key.Destroy()
		return nil
	})
}
