package fleet

import (
	"context"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Store is the state behind this package. Each call that changes something
// writes its audit entries in the same transaction and returns nil only after
// it is durable. Absent things are CodeNotFound, names taken CodeConflict.
type Store interface {
	PeerStore
	KEKStore
	RangeStore
	SignerStore
	OrgStore
	DeviceStore
	DeviceChanger
	AuditStore
	Follower
}

// Follower knows of other servers on the same state. changed is called when one
// of them may have changed peers, KEKs or ranges, current with a time at which
// none had since changed was called last, lost while nobody can know; Follow
// itself returns at once. LockFleet keeps other servers from changing
// those, and signers, until release is called.
type Follower interface {
	Follow(changed func(), current func(asOf time.Time), lost func(error))
	LockFleet(ctx context.Context) (release func(), err error)
}

// PeerStore holds peers. AddPeer stores a peer together with its first KEKs.
// Peers leaves out removed ones; SuspendPeer changes nothing else; RemovePeer
// retires the peer's KEKs, whose rows stay.
type PeerStore interface {
	Peers(ctx context.Context) ([]joinery.Peer, error)
	AddPeer(ctx context.Context, p joinery.Peer, keks []joinery.KEK, entries ...joinery.AuditEntry) error
	ChangePeer(ctx context.Context, p joinery.Peer, entries ...joinery.AuditEntry) error
	SuspendPeer(ctx context.Context, id joinery.PeerID, suspended bool, entry joinery.AuditEntry) error
	RemovePeer(ctx context.Context, id joinery.PeerID, entry joinery.AuditEntry) error
}

// KEKStore holds sealed KEKs; KEKs gives retired ones, too.
type KEKStore interface {
	KEKs(ctx context.Context) ([]joinery.KEK, error)
	AddKEK(ctx context.Context, k joinery.KEK, entry joinery.AuditEntry) error
	RetireKEK(ctx context.Context, id joinery.KEKID, entry joinery.AuditEntry) error
}

// RangeStore holds JoinEUI ranges. ReleaseRange refuses while devices lie in
// the range.
type RangeStore interface {
	Ranges(ctx context.Context) ([]joinery.JoinEUIRange, error)
	AssignRange(ctx context.Context, r joinery.JoinEUIRange, entry joinery.AuditEntry) error
	ReleaseRange(ctx context.Context, r joinery.JoinEUIRange, entry joinery.AuditEntry) error
}

// SignerStore holds pinned signers of manifests.
type SignerStore interface {
	Signers(ctx context.Context) ([]joinery.Signer, error)
	AddSigner(ctx context.Context, s joinery.Signer, entry joinery.AuditEntry) error
	RemoveSigner(ctx context.Context, id joinery.SignerID, entry joinery.AuditEntry) error
}

// OrgStore holds organisations and their roaming rules.
type OrgStore interface {
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	AddOrg(ctx context.Context, o joinery.Organisation, entry joinery.AuditEntry) error
	Roaming(ctx context.Context, org joinery.OrgID) ([]joinery.RoamingRule, error)
	SetRoaming(ctx context.Context, r joinery.RoamingRule, entry joinery.AuditEntry) error
}

// DeviceStore reads devices. Pages of Devices are in the order of the query;
// ActivationsBefore is newest first.
type DeviceStore interface {
	Devices(ctx context.Context, q joinery.DeviceQuery) (joinery.DevicePage, error)
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	// ManifestEntry gives the entry and serial number with which a device was
	// imported, nil and "" where there were none; CodeNotFound.
	ManifestEntry(ctx context.Context, id joinery.DeviceID) (entry []byte, serial string, err error)
	FindDevices(ctx context.Context, devEUI lorawan.EUI64) ([]joinery.ActivationState, error)
	ActivationsBefore(ctx context.Context, id joinery.DeviceID, before joinery.ActivationID, limit int) ([]joinery.Activation, error)
}

// DeviceChanger changes devices. Each change makes a join in flight think
// again, and is CodeConflict where owner does not hold the device any more.
type DeviceChanger interface {
	SetSuspended(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, suspended bool, entry joinery.AuditEntry) error
	DeleteDevice(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, entry joinery.AuditEntry) error
	// OpenReset lets the next join set a new floor for DevNonces; JoinNonce
	// rises to joinNonceAtLeast, and never falls.
	OpenReset(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, at time.Time, joinNonceAtLeast lorawan.JoinNonce, entry joinery.AuditEntry) error
}

// AuditStore reads audit entries in the order of their ids, from above after.
type AuditStore interface {
	AuditEntries(ctx context.Context, after int64, limit int) ([]joinery.AuditEntry, error)
}

// Keys is custody of KEKs, and the names of the master keys.
type Keys interface {
	// SealKEK takes a KEK of 16, 24 or 32 bytes, sealed under the key of h for its
	// role and label, and seals it to its peer, role and version.
	// keyring.ErrTransport: it is not sealed to this server, for another role or
	// label, or damaged.
	SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (joinery.Sealed, error)
	Masters() []keyring.Master
}
