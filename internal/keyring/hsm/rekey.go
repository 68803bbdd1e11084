package hsm

import (
	"context"

	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// DeriveSlotRoot implements keyring.Vault: no token hashes a key of its own in the
// way of that chip family.
func (t *Token) DeriveSlotRoot(context.Context, string, keyring.Derivation, [lwcrypto.SerialLen]byte, lorawan.Rekey) (keyring.Key, error) {
	return nil, keyring.ErrNotServed
}

// SlotMAC implements keyring.Vault.
func (t *Token) SlotMAC(context.Context, string, keyring.Derivation, [lwcrypto.SerialLen]byte) ([32]byte, error) {
	return [32]byte{}, keyring.ErrNotServed
}

// NewOutlet implements keyring.Token: a token lets no root key go yet.
func (t *Token) NewOutlet(context.Context, seal.PublicKey) (keyring.Outlet, error) {
	return nil, keyring.ErrNotServed
}
