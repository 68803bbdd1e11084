package keyring

import (
	"context"

	"joinery"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Token is what holds the keys: a backend. It gives out handles, never keys, so
// that a hardware token can stand behind it whose root and session keys are
// never bytes in this process. It is safe for concurrent use. Close destroys
// what handles are left; nothing is called after it.
type Token interface {
	Vault
	Intake
	// NewOutlet draws a file key under which keys leave for another keyring.
	// ErrNotServed where the token lets none go.
	NewOutlet(ctx context.Context, to seal.PublicKey) (Outlet, error)
	// Masters lists the master keys in order of their names.
	Masters() []Master
	// Custody tells at which level keys of each origin and profile are kept.
	Custody() []Custody
	// Generations tells which generations of its storage keys there are.
	Generations() Generations
	// Check tells whether the token can work now.
	Check(ctx context.Context) error
	Close() error
}

// Vault makes handles of AES keys that it holds, or can make or open.
type Vault interface {
	// DeriveRoot derives a root key of a device by the profile of the master key
	// of that name. ErrUnknownMaster where there is none.
	DeriveRoot(ctx context.Context, master string, d Derivation) (Key, error)
	// DeriveSlotRoot derives a root key of rekeying profile M: that part of what the
	// chip's DeriveKey makes by step.
	// ErrNotServed where the token cannot without showing the slot key.
	DeriveSlotRoot(ctx context.Context, slot Slot, root joinery.RootKey, step lorawan.Rekey) (Key, error)
	// SlotMAC computes the authorising MAC of such a chip. ErrNotServed as above.
	SlotMAC(ctx context.Context, slot Slot) ([32]byte, error)
	// WrapSlot wraps the halves of such a slot key into out, an Outlet of the same
	// token. ErrNotServed as above.
	WrapSlot(ctx context.Context, slot Slot, out Outlet) (first, second []byte, err error)
	// OpenRoot opens the use form of an imported root key (see Batch).
	// ErrIntegrity where it does not open.
	OpenRoot(ctx context.Context, blob []byte) (Key, error)
	// OpenKEK opens a peer's KEK. ErrIntegrity where it does not open.
	OpenKEK(ctx context.Context, blob []byte) (WrappingKey, error)
	// MAC computes HMAC-SHA-256 of msg under one of the token's MAC keys.
	MAC(ctx context.Context, key MACKey, msg []byte) ([32]byte, error)
}

// Key is a handle of an AES-128 key that can be used for one verb and is then
// destroyed. It is used by one goroutine.
type Key interface {
	// DecryptECB decrypts whole blocks in place: what encrypts a join-accept.
	lwcrypto.BlockDecrypter
	// CMAC computes AES-CMAC of msg, all 16 bytes of it.
	CMAC(msg []byte) ([lwcrypto.BlockLen]byte, error)
	// Derive makes the key AES-ECB(this key, block) inside the token.
	Derive(block lwcrypto.Block, use Use) (Key, error)
	// Reveal gives the key that Derive would make as bytes. It is called only
	// for a session key that owner and operator both let travel in the clear.
	Reveal(block lwcrypto.Block) ([lwcrypto.BlockLen]byte, error)
	// Destroy makes an end of the key. It is called once.
	Destroy()
}

// WrappingKey is a handle of an opened KEK. It stays open for a long time and is
// safe for concurrent use.
type WrappingKey interface {
	// Wrap appends k, wrapped by RFC 3394, to dst: 24 bytes. k is a Key of the
	// same token that was derived with UseSession.
	Wrap(dst []byte, k Key) ([]byte, error)
	// Destroy makes an end of the handle. It is called once.
	Destroy()
}

// Intake takes keys in that were sealed to the token's transport key.
type Intake interface {
	TransportKey() seal.PublicKey
	// OpenBatch opens the file key of h, once for many keys, and derives from it
	// the key of their MACs (see package seal): in a hardware token one
	// CKM_AES_ECB_ENCRYPT_DATA. ErrTransport where it does not open.
	OpenBatch(ctx context.Context, h seal.Header) (Batch, error)
}

// Batch is the opened file key of one import. Blobs begin with a byte that names
// their format (see FormatKeyWrap); a MAC over owner and content is added by the
// keyring. It is used by one goroutine.
type Batch interface {
	// Roots checks the MAC of a row, and only then opens its root keys of 16 bytes
	// and wraps them again: Use under the join KEK, Custody to the custody key.
	// What the row has not stays zero. ErrTransport where the row is not as it was
	// sealed, or a key does not open.
	Roots(row seal.SealedRow) (nwk, app joinery.SealedRoot, err error)
	// KEK checks the MAC of a peer's KEK of 16, 24 or 32 bytes, and only then opens
	// it and wraps it under the storage key: the same key always gives the same
	// blob. ErrTransport as in Roots.
	KEK(in seal.SealedKEK) (blob []byte, err error)
	// Close forgets the file key.
	Close()
}

// Outlet is a file of keys on their way to another keyring, as package seal has
// it. It is used by one goroutine.
type Outlet interface {
	Header() seal.Header
	// Wrap wraps a Key of the same token that was derived with UseHandover.
	Wrap(k Key) ([]byte, error)
	// MAC makes the MAC of an item whose keys were wrapped here.
	MAC(i seal.Item) ([]byte, error)
	// Close forgets the file key.
	Close()
}

// Formats of blobs, their first byte.
const (
	// FormatKeyWrap: AES key wrap (RFC 3394) under a key of the token.
	FormatKeyWrap byte = 1
	// FormatOAEP256: RSA-OAEP with SHA-256 and an empty label (RFC 8017 §7.1).
	FormatOAEP256 byte = 2
	// FormatOAEP1: the same with SHA-1, from tokens that know no other.
	FormatOAEP1 byte = 3
	// FormatGeneration: the head of a generation above 1 comes first; see
	// WithGeneration.
	FormatGeneration byte = 4
)

// MACKey names a MAC key of a token.
type MACKey uint8

// MAC keys.
const (
	// RowMAC binds sealed blobs to what they belong to.
	RowMAC MACKey = iota + 1
	// OwnerTokens derives owner tokens.
	OwnerTokens
)

// Use says what a derived key is for, so that a token can give it no more rights
// than that needs.
type Use uint8

// Uses of derived keys.
const (
	// UseSession: a session key, to be wrapped for a peer and for nothing else.
	UseSession Use = iota + 1
	// UseMIC: a key that computes CMACs: JSIntKey, SNwkSIntKey.
	UseMIC
	// UseAccept: a key that encrypts join-accepts: JSEncKey.
	UseAccept
	// UseRekey: a rekeying key, from which root keys and the next rekeying key are
	// derived, and nothing else.
	UseRekey
	// UseRoot: a root key that was derived from a rekeying key.
	UseRoot
	// UseHandover: the same, to be wrapped for another keyring and for nothing else.
	UseHandover
)

// Derivation is what a root key is derived from, beside a master key.
type Derivation struct {
	Root       joinery.RootKey
	Generation uint32
	DevEUI     lorawan.EUI64
	// Rekey asks for the rekeying key of profile S in the place of a root key.
	Rekey bool
}

// Block gives the block whose encryption under a master key of profile ecb-v1 is
// the root key. ErrRequest where no root key is named.
func (d Derivation) Block() (lwcrypto.Block, error) {
	if d.Rekey {
		return lwcrypto.RootKey(lwcrypto.PurposeRekey, d.Generation, d.DevEUI), nil
	}
	switch d.Root {
	case joinery.NwkKey:
		return lwcrypto.RootKey(lwcrypto.PurposeNwkKey, d.Generation, d.DevEUI), nil
	case joinery.AppKey:
		return lwcrypto.RootKey(lwcrypto.PurposeAppKey, d.Generation, d.DevEUI), nil
	}
	return lwcrypto.Block{}, mismatch("no root key is named")
}

// Slot names the slot key of a chip of rekeying profile M: what derives from a
// master key, or, where Master is empty, two halves that were handed over, as
// blobs for use (see Batch).
type Slot struct {
	Master        string
	Derivation    Derivation // of it Generation, and DevEUI in any case
	First, Second []byte
	Serial        [lwcrypto.SerialLen]byte
}

// SlotBlocks gives the two blocks whose encryptions under a master key of profile
// ecb-v1 are the halves of the slot key of rekeying profile M.
func (d Derivation) SlotBlocks() (first, second lwcrypto.Block) {
	return lwcrypto.RootKey(lwcrypto.PurposeSlotFirst, d.Generation, d.DevEUI),
		lwcrypto.RootKey(lwcrypto.PurposeSlotSecond, d.Generation, d.DevEUI)
}

// ProfileECBv1 is the derivation profile whose block lwcrypto.RootKey lays out.
const ProfileECBv1 = "ecb-v1"

// Master describes a master key.
type Master struct {
	Name    string
	Profile string // "ecb-v1"
	// KCV is the key check value: the first three bytes of AES-CMAC(key, 16
	// zero bytes), in upper-case hexadecimal digits. It tells keys apart and
	// nothing about them.
	KCV string
}
