package worker

import (
	"context"
	"slices"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/remote"
	"joinery/internal/seal"
)

// VerifyJoin is the verb of that name; see keyring.Keyring, as for all below. Each
// also fails with an error that wraps keyring.ErrToken where no worker serves.
func (k *Keys) VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error {
	return k.do(ctx, remote.VerifyJoin, func(c *remote.Client) error { return c.VerifyJoin(ctx, ks, frame) })
}

// VerifyRejoin is the verb of that name.
func (k *Keys) VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (session int, err error) {
	err = k.do(ctx, remote.VerifyRejoin, func(c *remote.Client) (err error) {
		session, err = c.VerifyRejoin(ctx, ks, frame, sessions)
		return err
	})
	return session, err
}

// Accept is the verb of that name.
func (k *Keys) Accept(ctx context.Context, r keyring.AcceptRequest) (answer keyring.Answer, err error) {
	err = k.do(ctx, remote.Accept, func(c *remote.Client) (err error) {
		answer, err = c.Accept(ctx, r)
		return err
	})
	return answer, err
}

// AppSKey is the verb of that name.
func (k *Keys) AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (key keyring.Envelope, err error) {
	err = k.do(ctx, remote.AppSKey, func(c *remote.Client) (err error) {
		key, err = c.AppSKey(ctx, ks, a, as)
		return err
	})
	return key, err
}

// AcceptHash is the verb of that name.
func (k *Keys) AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) (hash [32]byte, err error) {
	err = k.do(ctx, remote.AcceptHash, func(c *remote.Client) (err error) {
		hash, err = c.AcceptHash(ctx, ks, a)
		return err
	})
	return hash, err
}

// OwnerToken is the verb of that name.
func (k *Keys) OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (token string, err error) {
	err = k.do(ctx, remote.OwnerToken, func(c *remote.Client) (err error) {
		token, err = c.OwnerToken(ctx, d, generation)
		return err
	})
	return token, err
}

// CheckOwnerToken is the verb of that name.
func (k *Keys) CheckOwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32, presented string) (ok bool, err error) {
	err = k.do(ctx, remote.CheckOwnerToken, func(c *remote.Client) (err error) {
		ok, err = c.CheckOwnerToken(ctx, d, generation, presented)
		return err
	})
	return ok, err
}

// WebhookSecret is the verb of that name.
func (k *Keys) WebhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) (secret string, err error) {
	err = k.do(ctx, remote.WebhookSecret, func(c *remote.Client) (err error) {
		secret, err = c.WebhookSecret(ctx, id, generation)
		return err
	})
	return secret, err
}

// SignWebhook is the verb of that name.
func (k *Keys) SignWebhook(ctx context.Context, id joinery.WebhookID, generation uint32, content []byte) (signature string, err error) {
	err = k.do(ctx, remote.SignWebhook, func(c *remote.Client) (err error) {
		signature, err = c.SignWebhook(ctx, id, generation, content)
		return err
	})
	return signature, err
}

// LogKey is the verb of that name.
func (k *Keys) LogKey(ctx context.Context, generation uint32) (public []byte, err error) {
	err = k.do(ctx, remote.LogKey, func(c *remote.Client) (err error) {
		public, err = c.LogKey(ctx, generation)
		return err
	})
	return public, err
}

// SignCheckpoint is the verb of that name.
func (k *Keys) SignCheckpoint(ctx context.Context, generation uint32, text []byte) (signature []byte, err error) {
	err = k.do(ctx, remote.SignCheckpoint, func(c *remote.Client) (err error) {
		signature, err = c.SignCheckpoint(ctx, generation, text)
		return err
	})
	return signature, err
}

// SealRoots is the verb of that name.
func (k *Keys) SealRoots(ctx context.Context, h seal.Header, in []keyring.RootsIn) (out []keyring.RootsOut, err error) {
	err = k.do(ctx, remote.SealRoots, func(c *remote.Client) (err error) {
		out, err = c.SealRoots(ctx, h, in)
		return err
	})
	return out, err
}

// Rewrap is the verb of that name.
func (k *Keys) Rewrap(ctx context.Context, h seal.Header, in []keyring.RewrapIn) (out []keyring.RootsOut, err error) {
	err = k.do(ctx, remote.Rewrap, func(c *remote.Client) (err error) {
		out, err = c.Rewrap(ctx, h, in)
		return err
	})
	return out, err
}

// Handover is the verb of that name.
func (k *Keys) Handover(ctx context.Context, to seal.PublicKey, in []keyring.HandoverIn) (h seal.Header, rows []seal.SealedRow, err error) {
	err = k.do(ctx, remote.Handover, func(c *remote.Client) (err error) {
		h, rows, err = c.Handover(ctx, to, in)
		return err
	})
	return h, rows, err
}

// SignStatement is the verb of that name.
func (k *Keys) SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error) {
	err = k.do(ctx, remote.SignStatement, func(c *remote.Client) (err error) {
		signature, public, err = c.SignStatement(ctx, content)
		return err
	})
	return signature, public, err
}

// AuthMAC is the verb of that name.
func (k *Keys) AuthMAC(ctx context.Context, ks joinery.KeySet) (mac [32]byte, err error) {
	err = k.do(ctx, remote.AuthMAC, func(c *remote.Client) (err error) {
		mac, err = c.AuthMAC(ctx, ks)
		return err
	})
	return mac, err
}

// SealKEK is the verb of that name.
func (k *Keys) SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (sealed joinery.Sealed, err error) {
	err = k.do(ctx, remote.SealKEK, func(c *remote.Client) (err error) {
		sealed, err = c.SealKEK(ctx, h, in, peer, version)
		return err
	})
	return sealed, err
}

// IsKEK is the verb of that name.
func (k *Keys) IsKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, kek joinery.KEK) (ok bool, err error) {
	err = k.do(ctx, remote.IsKEK, func(c *remote.Client) (err error) {
		ok, err = c.IsKEK(ctx, h, in, kek)
		return err
	})
	return ok, err
}

// CheckKeySet is the verb of that name.
func (k *Keys) CheckKeySet(ctx context.Context, ks joinery.KeySet) error {
	return k.do(ctx, remote.CheckKeySet, func(c *remote.Client) error { return c.CheckKeySet(ctx, ks) })
}

// CheckKEK is the verb of that name.
func (k *Keys) CheckKEK(ctx context.Context, kek joinery.KEK) error {
	return k.do(ctx, remote.CheckKEK, func(c *remote.Client) error { return c.CheckKEK(ctx, kek) })
}

// Ready is the verb of that name.
func (k *Keys) Ready(ctx context.Context) error {
	return k.do(ctx, remote.Ready, func(c *remote.Client) error { return c.Ready(ctx) })
}

// TransportKey is that of the worker that served last; zero before the first.
func (k *Keys) TransportKey() seal.PublicKey { return k.lastInfo().Transport }

// Masters are those of the worker that served last.
func (k *Keys) Masters() []keyring.Master { return slices.Clone(k.lastInfo().Masters) }

// Custody is that of the worker that served last.
func (k *Keys) Custody() []keyring.Custody { return slices.Clone(k.lastInfo().Custody) }

// Generations are those of the worker that served last.
func (k *Keys) Generations() keyring.Generations { return k.lastInfo().Generations }

func (k *Keys) lastInfo() remote.Info {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.info
}
