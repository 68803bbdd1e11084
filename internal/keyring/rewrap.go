package keyring

import (
	"context"
	"crypto/subtle"

	"joinery"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
)

// RewrapIn is the stored root keys of one key set, and the same keys as the holder
// of the custody key sealed them to the transport key.
type RewrapIn struct {
	Stored joinery.StoredRoots
	Row    seal.SealedRow
}

// Rewrap seals root keys that are stored under older generations anew, under the
// newest ones. The old blobs must belong to their key set, and the keys in the row
// must be those which they hold: so whoever opened the custody blobs can neither
// give one device another's keys nor put keys of his own in their place. Results
// and errors are those of SealRoots, and ErrIntegrity for a row whose old blobs do
// not belong to it, do not open or hold other keys.
func (k *Keyring) Rewrap(ctx context.Context, h seal.Header, in []RewrapIn) (out []RootsOut, err error) {
	return inBatch(ctx, k, h, in, k.rewrapRow)
}

func (k *Keyring) rewrapRow(ctx context.Context, batch Batch, in RewrapIn) RootsOut {
	id := in.Stored.KeySet
	if (in.Stored.Root10 == joinery.RekeyKey) != (in.Row.Root10 == seal.RootRekeyKey) {
		return RootsOut{Err: ErrIntegrity}
	}
	as := rowBinding(in.Row.Root10)
	out := k.sealRow(ctx, batch, RootsIn{KeySet: id, Row: in.Row})
	if out.Err != nil {
		return out
	}
	for _, r := range []struct {
		root     joinery.RootKey
		old, new joinery.SealedRoot
	}{{joinery.NwkKey, in.Stored.Nwk, out.Nwk}, {joinery.AppKey, in.Stored.App, out.App}} {
		if err := k.sameRoot(ctx, as, id, r.root, r.old, r.new); err != nil {
			return RootsOut{Err: err}
		}
	}
	return out
}

// sameRoot makes sure that both blobs of old belong to their key set, and that old
// and made hold the same key, or neither holds one.
func (k *Keyring) sameRoot(
	ctx context.Context, as func(kind string, id joinery.KeySetID, place joinery.RootKey) binding,
	id joinery.KeySetID, root joinery.RootKey, old, made joinery.SealedRoot,
) error {
	if len(old.Use) == 0 && len(old.Custody) == 0 && len(made.Use) == 0 {
		return nil
	}
	if _, err := k.unbind(ctx, as(kindCustody, id, root), old.Custody); err != nil {
		return err
	}
	before, err := k.fingerprint(ctx, as(kindUse, id, root), old.Use)
	if err != nil {
		return err
	}
	after, err := k.fingerprint(ctx, as(kindUse, id, root), made.Use)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(before[:], after[:]) != 1 {
		return ErrIntegrity
	}
	return nil
}

// fingerprintOf is what root keys are compared by: a message that is no frame, so
// that its MAC is of use to nobody; and it stays here.
var fingerprintOf = []byte("joinery: is this the same root key?")

func (k *Keyring) fingerprint(ctx context.Context, b binding, use joinery.Sealed) (mac [lwcrypto.BlockLen]byte, err error) {
	blob, err := k.unbind(ctx, b, use)
	if err != nil {
		return mac, err
	}
	key, err := k.token.OpenRoot(ctx, blob)
	if err != nil {
		return mac, err
	}
	defer key.Destroy()
	return key.CMAC(fingerprintOf)
}

// Generations tells under which generations of its storage keys the keyring seals
// and opens.
func (k *Keyring) Generations() Generations {
	k.gate.RLock()
	defer k.gate.RUnlock()
	return k.token.Generations()
}

// errOtherToken: what is to take a token's place does not hold the same keys.
var errOtherToken = mismatch("these are the keys of another server: its row MAC key is a different one")

// Renew puts t in the place of the token, which it closes, once the verbs that run
// are done; those that come wait for it. It is how new generations come in and
// retired ones go. A token whose row MAC key is another one is refused and left to
// the caller: nothing that is stored would open.
func (k *Keyring) Renew(ctx context.Context, t Token) error {
	k.gate.Lock()
	defer k.gate.Unlock()
	if k.closed {
		return ErrClosed
	}
	same, err := sameMAC(ctx, k.token, t)
	if err != nil {
		return err
	}
	if !same {
		return errOtherToken
	}
	k.keks.close() // handles of the old token
	old := k.token
	k.token = t
	return old.Close()
}

func sameMAC(ctx context.Context, a, b Token) (bool, error) {
	ask := []byte("joinery: the same keys?")
	one, err := a.MAC(ctx, RowMAC, ask)
	if err != nil {
		return false, err
	}
	other, err := b.MAC(ctx, RowMAC, ask)
	return subtle.ConstantTimeCompare(one[:], other[:]) == 1, err
}
