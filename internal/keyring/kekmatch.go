package keyring

import (
	"context"
	"crypto/subtle"

	"joinery"
	"joinery/internal/seal"
)

// IsKEK tells whether in, sealed as for SealKEK, holds the key of a stored KEK of
// the same role: a peer that names a KEK again must mean the same key. Neither
// key leaves the token: key wrap adds nothing random (RFC 3394 §2.2.1), so one key
// stored twice is one blob. ErrTransport where in does not open.
func (k *Keyring) IsKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, kek joinery.KEK) (bool, error) {
	if in.Role != string(kek.Role) {
		return false, nil
	}
	sealed, err := k.SealKEK(ctx, h, in, kek.Peer, kek.Version)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sealed, kek.Sealed) == 1, nil
}
