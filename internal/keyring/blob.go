package keyring

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"joinery"
	"joinery/internal/seal"
)

// A sealed blob is what the token made (format byte ‖ ciphertext) and a MAC.
// Neither key wrap nor OAEP binds a ciphertext to its owner, so without the MAC
// whoever can write to the database could give one device another's keys. The
// MAC is HMAC-SHA-256 under the row-MAC key over, all of fixed length but the
// last:
//
//	kind 8 ‖ id of the owning object 8 ‖ role 1 ‖ version 4 ‖ format ‖ ciphertext
const macLen = sha256.Size

// Kinds of blobs.
const (
	kindUse     = "root-use"
	kindCustody = "root-cus"
	kindKEK     = "peer-kek"
)

// Roles of blobs.
const (
	roleNwkKey byte = iota + 1
	roleAppKey
	roleNS
	roleAS
	roleRekeyFirst
	roleRekeySecond
)

// rootVersion is the version of every root's blob: a new generation of imported
// roots is a new key set, with an id of its own.
const rootVersion = 1

// binding is what a blob belongs to.
type binding struct {
	kind    string // 8 characters
	id      int64
	role    byte
	version uint32
}

// rootBinding is what a root of a key set is bound to, in one of its two forms.
func rootBinding(kind string, id joinery.KeySetID, root joinery.RootKey) binding {
	role := roleNwkKey
	if root == joinery.AppKey {
		role = roleAppKey
	}
	return binding{kind, int64(id), role, rootVersion}
}

// heldBinding is what a key is bound to that stands in the place of a root key and
// is none; see joinery.RekeyKey.
func heldBinding(kind string, id joinery.KeySetID, place joinery.RootKey) binding {
	role := roleRekeyFirst
	if place == joinery.AppKey {
		role = roleRekeySecond
	}
	return binding{kind, int64(id), role, rootVersion}
}

// rowBinding gives how the keys of a row are bound: by what it says that they are.
func rowBinding(root10 string) func(kind string, id joinery.KeySetID, place joinery.RootKey) binding {
	if root10 == seal.RootRekeyKey {
		return heldBinding
	}
	return rootBinding
}

// kekBinding is what a KEK is bound to: its peer, and which of its KEKs it is.
// (peer, role, version) is unique, so no row can take the place of another one.
func kekBinding(peer joinery.PeerID, role joinery.KEKRole, version uint32) (binding, error) {
	b := binding{kind: kindKEK, id: int64(peer), version: version}
	switch role {
	case joinery.KEKForNS:
		b.role = roleNS
	case joinery.KEKForAS:
		b.role = roleAS
	default:
		return binding{}, fmt.Errorf("%w: a KEK is for an NS or an AS", ErrRequest)
	}
	return b, nil
}

// macInput is what the MAC of blob as owned by b is made of.
func (b binding) macInput(blob []byte) []byte {
	msg := make([]byte, 0, len(b.kind)+8+1+4+len(blob))
	msg = append(msg, b.kind...)
	msg = binary.BigEndian.AppendUint64(msg, uint64(b.id))
	msg = append(msg, b.role)
	msg = binary.BigEndian.AppendUint32(msg, b.version)
	return append(msg, blob...)
}

// mac computes the MAC of blob as owned by b.
func (k *Keyring) mac(ctx context.Context, b binding, blob []byte) ([macLen]byte, error) {
	return k.token.MAC(ctx, RowMAC, b.macInput(blob))
}

// bind appends the MAC to a blob that the token made.
func (k *Keyring) bind(ctx context.Context, b binding, blob []byte) (joinery.Sealed, error) {
	mac, err := k.mac(ctx, b, blob)
	if err != nil {
		return nil, err
	}
	return append(blob[:len(blob):len(blob)], mac[:]...), nil
}

// unbind checks in constant time that sealed belongs to b, and gives the token's
// blob in it. ErrIntegrity where it does not.
func (k *Keyring) unbind(ctx context.Context, b binding, sealed joinery.Sealed) ([]byte, error) {
	if len(sealed) <= macLen {
		return nil, ErrIntegrity
	}
	blob := sealed[:len(sealed)-macLen]
	want, err := k.mac(ctx, b, blob)
	if err != nil {
		return nil, err
	}
	return blob, sameMACs(sealed, want)
}

// unbindBy is unbind for who has no Keyring, but what makes its MACs.
func unbindBy(b binding, sealed joinery.Sealed, mac func(msg []byte) ([macLen]byte, error)) ([]byte, error) {
	if len(sealed) <= macLen {
		return nil, ErrIntegrity
	}
	blob := sealed[:len(sealed)-macLen]
	want, err := mac(b.macInput(blob))
	if err != nil {
		return nil, err
	}
	return blob, sameMACs(sealed, want)
}

// sameMACs compares the MAC at the end of sealed in constant time.
func sameMACs(sealed joinery.Sealed, want [macLen]byte) error {
	if subtle.ConstantTimeCompare(sealed[len(sealed)-macLen:], want[:]) != 1 {
		return ErrIntegrity
	}
	return nil
}
