package keyring

import (
	"context"

	"joinery"
	"joinery/internal/seal"
)

// RootsIn is the root keys of one key set on their way in: each under AES key
// wrap with the file key of a seal.Header, or nil where there is none.
type RootsIn struct {
	KeySet   joinery.KeySetID
	Nwk, App []byte
}

// RootsOut is the same keys sealed for storage and bound to their key set, or
// the reason why this one row failed: ErrTransport where a key does not open or
// is not one of 16 bytes, ErrNoRoot where the row has none.
type RootsOut struct {
	Nwk, App joinery.SealedRoot
	Err      error
}

// SealRoots opens root keys that were sealed to the transport key, and seals each
// to its key set. One RSA operation serves the batch. An error is about the whole
// batch: ErrTransport where h is not for this keyring.
func (k *Keyring) SealRoots(ctx context.Context, h seal.Header, in []RootsIn) (out []RootsOut, err error) {
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
			out[i] = k.sealRow(ctx, batch, row)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (k *Keyring) sealRow(ctx context.Context, batch Batch, row RootsIn) (out RootsOut) {
	if len(row.Nwk) == 0 && len(row.App) == 0 {
		return RootsOut{Err: ErrNoRoot}
	}
	var err error
	if out.Nwk, err = k.sealRoot(ctx, batch, row.Nwk, row.KeySet, joinery.NwkKey); err != nil {
		return RootsOut{Err: err}
	}
	if out.App, err = k.sealRoot(ctx, batch, row.App, row.KeySet, joinery.AppKey); err != nil {
		return RootsOut{Err: err}
	}
	return out
}

func (k *Keyring) sealRoot(ctx context.Context, batch Batch, wrapped []byte, id joinery.KeySetID, root joinery.RootKey) (s joinery.SealedRoot, err error) {
	if len(wrapped) == 0 {
		return s, nil
	}
	use, custody, err := batch.Root(wrapped)
	if err != nil {
		return s, err
	}
	if s.Use, err = k.bind(ctx, rootBinding(kindUse, id, root), use); err != nil {
		return joinery.SealedRoot{}, err
	}
	if s.Custody, err = k.bind(ctx, rootBinding(kindCustody, id, root), custody); err != nil {
		return joinery.SealedRoot{}, err
	}
	return s, nil
}

// SealKEK opens a peer's KEK of 16, 24 or 32 bytes that was sealed to the
// transport key, and seals it to its peer, role and version. ErrTransport where it
// does not open.
func (k *Keyring) SealKEK(ctx context.Context, h seal.Header, wrapped []byte, peer joinery.PeerID, role joinery.KEKRole, version uint32) (sealed joinery.Sealed, err error) {
	b, err := kekBinding(peer, role, version)
	if err != nil {
		return nil, err
	}
	err = k.run(ctx, func() error {
		batch, err := k.token.OpenBatch(ctx, h)
		if err != nil {
			return err
		}
		defer batch.Close()
		blob, err := batch.KEK(wrapped)
		if err != nil {
			return err
		}
		sealed, err = k.bind(ctx, b, blob)
		return err
	})
	return sealed, err
}
