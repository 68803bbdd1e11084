package keyring

import (
	"context"

	"joinery"
	"joinery/internal/keyring/lwcrypto"
)

// wrap is how one kind of session key leaves the keyring: under an opened KEK,
// in the clear, or (the zero value) not at all.
type wrap struct {
	kek   *openKEK
	label string
	clear bool
}

// wraps is how the session keys of one answer leave the keyring.
type wraps struct{ ns, as wrap }

func (w wraps) release() {
	w.ns.kek.release()
	w.as.kek.release()
}

// openWraps is step 3 of Accept. A missing KEK is a refusal, never a key in the
// clear: that takes both consents, which the request carries.
func (o *acceptance) openWraps(ctx context.Context, r *AcceptRequest) (w wraps, err error) {
	k := o.roots.keyring
	if w.ns, err = k.openWrap(ctx, r.NSKEK, joinery.KEKForNS, r.ClearNwk); err != nil {
		return wraps{}, err
	}
	if o.act.Policy == joinery.AppSKeyByID {
		return w, nil
	}
	clearApp := r.ClearApp && o.act.Policy == joinery.AppSKeyClear
	if w.as, err = k.openWrap(ctx, r.ASKEK, joinery.KEKForAS, clearApp); err != nil {
		w.release()
		return wraps{}, err
	}
	return w, nil
}

// openWrap opens kek, which must be of that role: an NS KEK never wraps an
// AppSKey, an AS KEK never a network session key.
func (k *Keyring) openWrap(ctx context.Context, kek joinery.KEK, role joinery.KEKRole, inClear bool) (wrap, error) {
	switch {
	case !kek.IsZero() && kek.Role != role:
		return wrap{}, ErrIntegrity
	case !kek.IsZero() && kek.Label == "":
		// The peer would take the wrapped key for one in the clear (TS002-1.1
		// §22).
		return wrap{}, mismatch("a KEK has no label")
	case !kek.IsZero():
		opened, err := k.openKEK(ctx, kek)
		return wrap{kek: opened, label: kek.Label}, err
	case inClear:
		return wrap{clear: true}, nil
	default:
		return wrap{}, ErrNoKEK
	}
}

// envelope derives a session key from root and lets it out as w says.
func (o *acceptance) envelope(root Key, block lwcrypto.Block, w wrap) (Envelope, error) {
	return w.envelope(o.take(lwcrypto.WrappedKeyLen), root, block)
}

// envelope derives a session key from root and appends it to dst, which has room
// for it, wrapped or in the clear.
func (w wrap) envelope(dst []byte, root Key, block lwcrypto.Block) (Envelope, error) {
	switch {
	case w.clear:
		key, err := root.Reveal(block)
		if err != nil {
			return Envelope{}, err
		}
		defer clear(key[:])
		return Envelope{AESKey: append(dst, key[:]...)}, nil
	case w.kek == nil:
		return Envelope{}, nil
	}
	key, err := root.Derive(block, UseSession)
	if err != nil {
		return Envelope{}, err
	}
	defer key.Destroy()
	wrapped, err := w.kek.key.Wrap(dst, key)
	if err != nil {
		return Envelope{}, err
	}
	return Envelope{KEKLabel: w.label, AESKey: wrapped}, nil
}

// AppSKey gives the AppSKey of an earlier activation, wrapped under as: never in
// the clear. Errors: ErrNoKEK where as is zero, and those of Accept but ErrMIC.
func (k *Keyring) AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (e Envelope, err error) {
	err = k.run(ctx, func() error {
		if a.KeySet != ks.ID {
			return mismatch("the activation is of another key set")
		}
		w, err := k.openWrap(ctx, as, joinery.KEKForAS, false)
		if err != nil {
			return err
		}
		defer w.kek.release()
		r := roots{keyring: k, keySet: ks}
		defer r.destroy()
		which, block := a.Root, session10(&a).AppSKey()
		if a.OptNeg {
			which, block = joinery.AppKey, session11(&a).AppSKey()
		}
		root, err := r.key(ctx, which)
		if err != nil {
			return err
		}
		e, err = w.envelope(make([]byte, 0, lwcrypto.WrappedKeyLen), root, block)
		return err
	})
	return e, err
}
