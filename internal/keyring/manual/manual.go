// Package manual is a keyring that waits for somebody to open it: a server starts
// without what opens its key file, and an operator brings that.
package manual

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// ErrSealed says that nobody has opened the keys yet.
var ErrSealed = fmt.Errorf("%w: the keys are sealed until an operator opens them", keyring.ErrToken)

// Keys is the verbs of a keyring, which fail with ErrSealed until Unseal. It is
// safe for concurrent use.
type Keys struct {
	open  func(ctx context.Context, text []byte) (keyring.Token, error)
	inner atomic.Pointer[keyring.Keyring]

	mu     sync.Mutex // held by who unseals, admits or closes
	admit  func(context.Context, []keyring.Master) error
	closed bool
}

// New gives sealed keys. open opens them with what unseals them, a passphrase or
// age identities, and keeps none of it.
func New(open func(ctx context.Context, text []byte) (keyring.Token, error)) *Keys {
	return &Keys{open: open}
}

// Unseal opens the keys. Where they are open it opens them anew: so come new
// generations in, and retired ones go; see keyring.Keyring.Renew. text is the caller's
// to clear. Where it opens nothing, or what Admit set refuses the keys, they stay as
// they were, sealed or open.
func (k *Keys) Unseal(ctx context.Context, text []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return keyring.ErrClosed
	}
	token, err := k.open(ctx, text)
	if err != nil {
		return err
	}
	if k.admit != nil {
		err = k.admit(ctx, token.Masters())
	}
	if err == nil {
		err = k.take(ctx, token)
	}
	if err != nil {
		return errors.Join(err, token.Close())
	}
	return nil
}

// take lets a token serve, in the place of the one that does.
func (k *Keys) take(ctx context.Context, token keyring.Token) error {
	if inner := k.inner.Load(); inner != nil {
		return inner.Renew(ctx, token)
	}
	k.inner.Store(keyring.New(token))
	return nil
}

// Sealed tells whether nobody has opened the keys yet.
func (k *Keys) Sealed() bool { return k.inner.Load() == nil }

// Admit has f judge the master keys: now, where the keys are open, else as they are
// opened.
func (k *Keys) Admit(ctx context.Context, f func(context.Context, []keyring.Master) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.admit = f
	if k.inner.Load() == nil {
		return nil
	}
	return f(ctx, k.Masters())
}

// get gives the open keyring.
func (k *Keys) get() (keyring.Verbs, error) {
	if inner := k.inner.Load(); inner != nil {
		return inner, nil
	}
	return nil, ErrSealed
}

// Close closes the keys, open or sealed. Later verbs fail.
func (k *Keys) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if inner := k.inner.Load(); inner != nil {
		return inner.Close()
	}
	return nil
}

// VerifyJoin is keyring.Verbs'.
func (k *Keys) VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error {
	inner, err := k.get()
	if err != nil {
		return err
	}
	return inner.VerifyJoin(ctx, ks, frame)
}

// VerifyRejoin is keyring.Verbs'.
func (k *Keys) VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (int, error) {
	inner, err := k.get()
	if err != nil {
		return 0, err
	}
	return inner.VerifyRejoin(ctx, ks, frame, sessions)
}

// Accept is keyring.Verbs'.
func (k *Keys) Accept(ctx context.Context, r keyring.AcceptRequest) (keyring.Answer, error) {
	inner, err := k.get()
	if err != nil {
		return keyring.Answer{}, err
	}
	return inner.Accept(ctx, r)
}

// AppSKey is keyring.Verbs'.
func (k *Keys) AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (keyring.Envelope, error) {
	inner, err := k.get()
	if err != nil {
		return keyring.Envelope{}, err
	}
	return inner.AppSKey(ctx, ks, a, as)
}

// OwnerToken is keyring.Verbs'.
func (k *Keys) OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (string, error) {
	inner, err := k.get()
	if err != nil {
		return "", err
	}
	return inner.OwnerToken(ctx, d, generation)
}

// CheckOwnerToken is keyring.Verbs'.
func (k *Keys) CheckOwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32, presented string) (bool, error) {
	inner, err := k.get()
	if err != nil {
		return false, err
	}
	return inner.CheckOwnerToken(ctx, d, generation, presented)
}

// LogKey is keyring.Verbs'.
func (k *Keys) LogKey(ctx context.Context, generation uint32) ([]byte, error) {
	inner, err := k.get()
	if err != nil {
		return nil, err
	}
	return inner.LogKey(ctx, generation)
}

// SignCheckpoint is keyring.Verbs'.
func (k *Keys) SignCheckpoint(ctx context.Context, generation uint32, text []byte) ([]byte, error) {
	inner, err := k.get()
	if err != nil {
		return nil, err
	}
	return inner.SignCheckpoint(ctx, generation, text)
}

// WebhookSecret is keyring.Verbs'.
func (k *Keys) WebhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) (string, error) {
	inner, err := k.get()
	if err != nil {
		return "", err
	}
	return inner.WebhookSecret(ctx, id, generation)
}

// SignWebhook is keyring.Verbs'.
func (k *Keys) SignWebhook(ctx context.Context, id joinery.WebhookID, generation uint32, content []byte) (string, error) {
	inner, err := k.get()
	if err != nil {
		return "", err
	}
	return inner.SignWebhook(ctx, id, generation, content)
}

// SealRoots is keyring.Verbs'.
func (k *Keys) SealRoots(ctx context.Context, h seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error) {
	inner, err := k.get()
	if err != nil {
		return nil, err
	}
	return inner.SealRoots(ctx, h, in)
}

// Rewrap is keyring.Verbs'.
func (k *Keys) Rewrap(ctx context.Context, h seal.Header, in []keyring.RewrapIn) ([]keyring.RootsOut, error) {
	inner, err := k.get()
	if err != nil {
		return nil, err
	}
	return inner.Rewrap(ctx, h, in)
}

// Handover is keyring.Verbs'.
func (k *Keys) Handover(ctx context.Context, to seal.PublicKey, in []keyring.HandoverIn) (seal.Header, []seal.SealedRow, error) {
	inner, err := k.get()
	if err != nil {
		return seal.Header{}, nil, err
	}
	return inner.Handover(ctx, to, in)
}

// SignStatement is keyring.Verbs'.
func (k *Keys) SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error) {
	inner, err := k.get()
	if err != nil {
		return nil, nil, err
	}
	return inner.SignStatement(ctx, content)
}

// AuthMAC is keyring.Verbs'.
func (k *Keys) AuthMAC(ctx context.Context, ks joinery.KeySet) ([32]byte, error) {
	inner, err := k.get()
	if err != nil {
		return [32]byte{}, err
	}
	return inner.AuthMAC(ctx, ks)
}

// AcceptHash is keyring.Verbs'.
func (k *Keys) AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) ([32]byte, error) {
	inner, err := k.get()
	if err != nil {
		return [32]byte{}, err
	}
	return inner.AcceptHash(ctx, ks, a)
}

// SealKEK is keyring.Verbs'.
func (k *Keys) SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (joinery.Sealed, error) {
	inner, err := k.get()
	if err != nil {
		return nil, err
	}
	return inner.SealKEK(ctx, h, in, peer, version)
}

// IsKEK is keyring.Verbs'.
func (k *Keys) IsKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, kek joinery.KEK) (bool, error) {
	inner, err := k.get()
	if err != nil {
		return false, err
	}
	return inner.IsKEK(ctx, h, in, kek)
}

// CheckKeySet is keyring.Verbs'.
func (k *Keys) CheckKeySet(ctx context.Context, ks joinery.KeySet) error {
	inner, err := k.get()
	if err != nil {
		return err
	}
	return inner.CheckKeySet(ctx, ks)
}

// CheckKEK is keyring.Verbs'.
func (k *Keys) CheckKEK(ctx context.Context, kek joinery.KEK) error {
	inner, err := k.get()
	if err != nil {
		return err
	}
	return inner.CheckKEK(ctx, kek)
}

// TransportKey is keyring.Verbs'; the zero key while the keys are sealed.
func (k *Keys) TransportKey() (p seal.PublicKey) {
	if inner, err := k.get(); err == nil {
		p = inner.TransportKey()
	}
	return p
}

// Masters is keyring.Verbs'; none while the keys are sealed.
func (k *Keys) Masters() []keyring.Master {
	inner, err := k.get()
	if err != nil {
		return nil
	}
	return inner.Masters()
}

// Generations is keyring.Verbs'; none while the keys are sealed.
func (k *Keys) Generations() (g keyring.Generations) {
	if inner, err := k.get(); err == nil {
		g = inner.Generations()
	}
	return g
}

// Custody is keyring.Verbs'; nothing while the keys are sealed.
func (k *Keys) Custody() []keyring.Custody {
	inner, err := k.get()
	if err != nil {
		return nil
	}
	return inner.Custody()
}

// Ready is keyring.Verbs'.
func (k *Keys) Ready(ctx context.Context) error {
	inner, err := k.get()
	if err != nil {
		return err
	}
	return inner.Ready(ctx)
}

var _ keyring.Verbs = (*Keys)(nil)
