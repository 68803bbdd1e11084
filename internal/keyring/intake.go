package keyring

import (
	"context"
	"errors"

	"joinery"
	"joinery/internal/seal"
)

// RootsIn is the root keys of one key set on their way in: a row of a key list, as
// it was sealed under the file key of a seal.Header. A row of a rekeying key is
// bound as such, and opens as nothing else.
type RootsIn struct {
	KeySet joinery.KeySetID
	Row    seal.SealedRow
}

// RootsOut is the same keys sealed for storage and bound to their key set, or
// the reason why this one row failed: ErrTransport where it is not as it was
// sealed, a key does not open or is not one of 16 bytes, ErrNoRoot where the row
// has none.
type RootsOut struct {
	Nwk, App joinery.SealedRoot
	Err      error
}

// SealRoots opens root keys that were sealed to the transport key, and seals each
// to its key set. One RSA operation serves the batch. An error is about the whole
// batch: ErrTransport where h is not for this keyring, ErrNotServed where the token
// keeps no imported root keys, ErrToken where it went away: no row is at fault then.
func (k *Keyring) SealRoots(ctx context.Context, h seal.Header, in []RootsIn) (out []RootsOut, err error) {
	return inBatch(ctx, k, h, in, k.sealRow)
}

// inBatch does each row of a batch. What goes wrong with the token is no row's
// fault, and ends the batch.
func inBatch[In any](ctx context.Context, k *Keyring, h seal.Header, in []In, do func(context.Context, Batch, In) RootsOut) (out []RootsOut, err error) {
	err = k.run(ctx, func() error {
		batch, err := k.token.OpenBatch(ctx, h)
		if err != nil {
			return err
		}
		defer batch.Close()
		out = make([]RootsOut, len(in))
		for i, row := range in {
			if err := ctx.Err(); err != nil {
				return err
			}
			out[i] = do(ctx, batch, row)
			if err := out[i].Err; errors.Is(err, ErrToken) || errors.Is(err, ErrNotServed) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (k *Keyring) sealRow(ctx context.Context, batch Batch, in RootsIn) (out RootsOut) {
	if len(in.Row.NwkKey) == 0 && len(in.Row.AppKey) == 0 {
		return RootsOut{Err: ErrNoRoot}
	}
	nwk, app, err := batch.Roots(in.Row)
	if err != nil {
		return RootsOut{Err: err}
	}
	as := rowBinding(in.Row.Root10)
	if out.Nwk, err = k.bindRoot(ctx, nwk, in.KeySet, joinery.NwkKey, as); err != nil {
		return RootsOut{Err: err}
	}
	if out.App, err = k.bindRoot(ctx, app, in.KeySet, joinery.AppKey, as); err != nil {
		return RootsOut{Err: err}
	}
	return out
}

// bindRoot binds the two forms of a root key, if there is one, to its key set.
func (k *Keyring) bindRoot(
	ctx context.Context, r joinery.SealedRoot, id joinery.KeySetID, root joinery.RootKey,
	as func(kind string, id joinery.KeySetID, place joinery.RootKey) binding,
) (s joinery.SealedRoot, err error) {
	if len(r.Use) == 0 {
		return s, nil
	}
	if s.Use, err = k.bind(ctx, as(kindUse, id, root), r.Use); err != nil {
		return joinery.SealedRoot{}, err
	}
	if s.Custody, err = k.bind(ctx, as(kindCustody, id, root), r.Custody); err != nil {
		return joinery.SealedRoot{}, err
	}
	return s, nil
}

// SealKEK opens a peer's KEK of 16, 24 or 32 bytes that was sealed to the
// transport key for its role and label, and seals it to its peer, role and
// version. ErrTransport where it does not open, or was sealed for others.
func (k *Keyring) SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (sealed joinery.Sealed, err error) {
	b, err := kekBinding(peer, joinery.KEKRole(in.Role), version)
	if err != nil {
		return nil, err
	}
	err = k.run(ctx, func() error {
		batch, err := k.token.OpenBatch(ctx, h)
		if err != nil {
			return err
		}
		defer batch.Close()
		blob, err := batch.KEK(in)
		if err != nil {
			return err
		}
		sealed, err = k.bind(ctx, b, blob)
		return err
	})
	return sealed, err
}
