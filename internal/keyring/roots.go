package keyring

import (
	"context"
	"fmt"

	"joinery"
)

// roots opens the root keys of one key set, each when it is first needed.
type roots struct {
	keyring  *Keyring
	keySet   joinery.KeySet
	nwk, app Key
}

// destroy makes an end of what was opened.
func (r *roots) destroy() {
	for _, k := range []Key{r.nwk, r.app} {
		if k != nil {
			k.Destroy()
		}
	}
}

// key gives a root key. ErrNoRoot where the key set has none such.
func (r *roots) key(ctx context.Context, which joinery.RootKey) (Key, error) {
	var slot *Key
	switch which {
	case joinery.NwkKey:
		slot = &r.nwk
	case joinery.AppKey:
		slot = &r.app
	default:
		return nil, fmt.Errorf("%w: no root key is named", ErrRequest)
	}
	if *slot == nil {
		opened, err := r.open(ctx, which)
		if err != nil {
			return nil, err
		}
		*slot = opened
	}
	return *slot, nil
}

func (r *roots) open(ctx context.Context, which joinery.RootKey) (Key, error) {
	ks := &r.keySet
	switch ks.Origin {
	case joinery.OriginDerived:
		return r.keyring.token.DeriveRoot(ctx, ks.Master, Derivation{Root: which, Generation: ks.Generation, DevEUI: ks.DevEUI})
	case joinery.OriginSealed:
		sealed := ks.Nwk.Use
		if which == joinery.AppKey {
			sealed = ks.App.Use
		}
		if len(sealed) == 0 {
			return nil, ErrNoRoot
		}
		blob, err := r.keyring.unbind(ctx, rootBinding(kindUse, ks.ID, which), sealed)
		if err != nil {
			return nil, err
		}
		return r.keyring.token.OpenRoot(ctx, blob)
	case joinery.OriginRekeyed:
		return r.keyring.rekeyedRoot(ctx, ks, which, UseRoot)
	default:
		return nil, fmt.Errorf("%w: its origin is unknown", ErrNoRoot)
	}
}
