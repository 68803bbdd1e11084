package keyring

import (
	"context"
	"errors"
	"sync"

	"joinery/internal/seal"
	"joinery/internal/secret"
)

// Errors beside those of the verbs.
var (
	// ErrRequest: what a caller gave contradicts itself; a defect of ours.
	ErrRequest = errors.New("keyring: the request contradicts itself")
	// ErrClosed: the keyring was closed.
	ErrClosed = errors.New("keyring: closed")
)

// Keyring offers the verbs of custody over a token. Safe for concurrent use.
//
// Every verb runs inside secret.Do as a whole, destroys each handle that it
// opened before it returns, and keeps only peers' KEKs open.
type Keyring struct {
	token Token
	keks  kekCache

	// gate is held for reading by every verb, so that Close waits for them.
	gate   sync.RWMutex
	closed bool
}

// New gives a Keyring over t, which it closes when it is closed.
func New(t Token) *Keyring { return &Keyring{token: t} }

// enter begins a verb; leave ends it.
func (k *Keyring) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.gate.RLock()
	if k.closed {
		k.gate.RUnlock()
		return ErrClosed
	}
	return nil
}

func (k *Keyring) leave() { k.gate.RUnlock() }

// run is a verb: f between enter and leave, in secret.Do. Verbs of every join
// spell it out, since a closure here costs them an allocation.
func (k *Keyring) run(ctx context.Context, f func() error) error {
	if err := k.enter(ctx); err != nil {
		return err
	}
	defer k.leave()
	var err error
	secret.Do(func() { err = f() })
	return err
}

// TransportKey gives the key to which others seal what this keyring imports.
func (k *Keyring) TransportKey() seal.PublicKey {
	k.gate.RLock()
	defer k.gate.RUnlock()
	return k.token.TransportKey()
}

// Masters lists the master keys in order of their names.
func (k *Keyring) Masters() []Master {
	k.gate.RLock()
	defer k.gate.RUnlock()
	return k.token.Masters()
}

// Ready tells whether the keyring can work now.
func (k *Keyring) Ready(ctx context.Context) error {
	return k.run(ctx, func() error { return k.token.Check(ctx) })
}

// Close waits for the verbs that run, closes every KEK and the token. Later
// verbs fail with ErrClosed.
func (k *Keyring) Close() error {
	k.gate.Lock()
	defer k.gate.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	k.keks.close()
	return k.token.Close()
}
