package keyring

import (
	"context"
	"crypto/sha256"

	"joinery"
)

// AcceptHash gives SHA-256 of the join-accept that answered the join of a, as it
// went over the air: the PHYPayload, encrypted. Together with what the request
// held it says that this join was answered with these root keys; it tells nothing
// about them. ErrRequest for what is no join of ks.
func (k *Keyring) AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) (hash [32]byte, err error) {
	err = k.run(ctx, func() error {
		o := acceptance{roots: roots{keyring: k, keySet: ks}, act: a, out: make([]byte, 0, answerLen)}
		o.req = request{typ: joinery.JoinTypeJoin, joinEUI: a.JoinEUI, devEUI: ks.DevEUI, count: a.Count}
		defer o.roots.destroy()
		if err := o.check(); err != nil {
			return err
		}
		phy, err := o.acceptAlone(ctx)
		hash = sha256.Sum256(phy)
		return err
	})
	return hash, err
}

// acceptAlone makes the accept again, without session keys.
func (o *acceptance) acceptAlone(ctx context.Context) ([]byte, error) {
	if o.act.OptNeg {
		nwk, err := o.roots.key(ctx, joinery.NwkKey)
		if err != nil {
			return nil, err
		}
		return o.sign11(nwk)
	}
	root, err := o.roots.key(ctx, o.act.Root)
	if err != nil {
		return nil, err
	}
	plain := o.plaintext()
	mac, err := root.CMAC(plain)
	if err != nil {
		return nil, err
	}
	return o.encrypt(root, plain, mac)
}
