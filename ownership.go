package joinery

import (
	"time"

	"joinery/lorawan"
)

// How says how a device came to its owner. The numbers are part of the hashed
// chain of owners.
type How uint8

// Ways to an owner.
const (
	HowClaim    How = 1 // showed the owner token
	HowRelease  How = 2 // was let go: nobody holds it
	HowTransfer How = 3 // accepted the owner's offer
	HowAward    How = 4 // the operator decided a dispute
)

// OwnerLink is one link in the chain of a device's owners.
type OwnerLink struct {
	Epoch           uint32 // 0 is the maker
	Org             OrgID
	How             How // 0 for the maker
	TokenGeneration uint32
	Since           time.Time
}

// OwnerAct is what an OwnerChange does.
type OwnerAct uint8

// Acts.
const (
	// ActClaim makes To the owner. A network's unlocked binding stays, unless
	// another is given.
	ActClaim OwnerAct = iota + 1
	// ActRelease takes the device from its owner, with a new token generation.
	ActRelease
	// ActOffer offers the device to To until ExpiresAt.
	ActOffer
	// ActCancel takes an offer back, or declines it.
	ActCancel
	// ActAccept makes To, to which the device was offered, its owner, with a new
	// token generation.
	ActAccept
	// ActRegenerateToken advances the token generation.
	ActRegenerateToken
	// ActBind replaces the binding, or removes it where Binding is nil.
	ActBind
)

// OwnerChange is one change of who holds a device, or of which network may join
// it.
type OwnerChange struct {
	Act    OwnerAct
	Device DeviceID
	// Seen is the ownership for which the change was judged. Where it is another
	// by now, nothing is changed: CodeConflict.
	Seen Ownership
	// To is the new owner, or the recipient of an offer.
	To OrgID
	// Binding is that of ActClaim, ActAccept and ActBind; nil is none.
	Binding *Binding
	// BindingEpoch is that of the binding that ActBind replaces; 0 for none.
	BindingEpoch uint32
	ExpiresAt    time.Time // of ActOffer
	// Audit is written in the transaction of the change. The time of its first
	// entry is that of the change.
	Audit []AuditEntry
}

// Transfer is an offer of a device to another organisation. There is at most one
// of a device.
type Transfer struct {
	Device    DeviceID
	JoinEUI   lorawan.EUI64
	DevEUI    lorawan.EUI64
	From      OrgID
	To        OrgID
	OfferedAt time.Time
	ExpiresAt time.Time
}

// Open tells whether the offer can be accepted at a time.
func (t Transfer) Open(at time.Time) bool { return at.Before(t.ExpiresAt) }

// TransferQuery selects offers for a listing, in order of their devices.
type TransferQuery struct {
	Org   OrgID    // offered by it or to it; zero: all (the operator)
	After DeviceID // zero: from the beginning
	Limit int
}

// DisputeState is where a dispute stands.
type DisputeState string

// States of a dispute.
const (
	DisputeOpen      DisputeState = "open"
	DisputeGranted   DisputeState = "granted"
	DisputeRejected  DisputeState = "rejected"
	DisputeWithdrawn DisputeState = "withdrawn"
)

// Evidence is what stands behind a dispute.
type Evidence string

// Kinds of evidence, from weak to strong.
const (
	EvidenceNone       Evidence = "none"
	EvidenceOwnerToken Evidence = "owner-token" // knows what stands on the label
	EvidenceDeviceKey  Evidence = "device-key"  // has the element at hand
)

// Dispute asks the operator to decide about a device that another holds, or
// about the binding of one's own that its network locked.
type Dispute struct {
	ID       DisputeID
	Device   DeviceID
	JoinEUI  lorawan.EUI64
	DevEUI   lorawan.EUI64
	Claimant OrgID
	// Holder is who holds the device now. It is the claimant where the dispute is
	// about the lock of a binding.
	Holder    OrgID
	AboutLock bool
	Evidence  Evidence
	Statement string // of the claimant
	State     DisputeState
	OpenedAt  time.Time
	DecidedAt time.Time // zero while it is open
	Note      string    // of whoever decided
}

// DisputeQuery selects disputes for a listing, in order of their ids.
type DisputeQuery struct {
	Org      OrgID // its claimant or the holder of its device; zero: all (the operator)
	OnlyOpen bool
	After    DisputeID
	Limit    int
}

// Challenge is what an element signs to show that a claimant has it at hand. It
// is good for one try.
type Challenge struct {
	Random    [32]byte
	Org       OrgID // who asked for it
	JoinEUI   lorawan.EUI64
	DevEUI    lorawan.EUI64
	ExpiresAt time.Time
}

// ClaimFailure counts the wrong owner tokens that one caller showed for a DevEUI
// within a millisecond.
type ClaimFailure struct {
	DevEUI lorawan.EUI64
	Caller string
	At     time.Time
	Count  int
}
