package joinery

import (
	"crypto/sha256"
	"time"

	"joinery/lorawan"
)

// RekeyBatchState is where an order to rekey many devices stands. The set is closed.
type RekeyBatchState string

// States of a batch, in the order of its life.
const (
	BatchCollecting RekeyBatchState = "collecting" // devices are being added
	BatchRequested  RekeyBatchState = "requested"  // waits for another person
	BatchApproved   RekeyBatchState = "approved"   // the server arms one device after another
	BatchDone       RekeyBatchState = "done"       // each device has its order, or why not
	BatchRejected   RekeyBatchState = "rejected"   // by the other person
	BatchWithdrawn  RekeyBatchState = "withdrawn"  // by its organisation; what was armed stays so
	BatchExpired    RekeyBatchState = "expired"    // nobody went on with it in time
)

// RekeyBatchStates lists every state.
func RekeyBatchStates() []RekeyBatchState {
	return []RekeyBatchState{BatchCollecting, BatchRequested, BatchApproved, BatchDone, BatchRejected, BatchWithdrawn, BatchExpired}
}

// Bounds of batches.
const (
	// MaxRekeyDevices is the most devices of one batch.
	MaxRekeyDevices = 100_000
	// MaxRekeyRows is the most devices that one transaction adds or arms, so that
	// joins are never kept waiting behind a batch.
	MaxRekeyRows = 100
)

// RekeyBatch is an order to rekey many devices: each gets a RekeyOrder of its own.
// It stays for ever.
type RekeyBatch struct {
	ID    RekeyBatchID
	Org   OrgID
	State RekeyBatchState
	// JoinEUI is the one at which they are to join. Server or Recipient is where
	// their new root keys go, To its name, Thumbprint the name of its key; see
	// RekeyOrder.
	JoinEUI    lorawan.EUI64
	Server     JoinServerID
	Recipient  RecipientID
	To         string
	Thumbprint string
	RekeyKey   bool
	Life       time.Duration // of each order, from when it is armed

	Devices int64             // in the set
	Armed   int64             // of them, those that have their order
	Failed  int64             // of them, those that do not, each with its reason
	Digest  [sha256.Size]byte // of the set, see ExportDigest; zeros while devices are added
	Root    [sha256.Size]byte // of the tree over the set; see DeviceSet

	// NeedsApproval is decided when the set is complete.
	NeedsApproval bool
	RequestedBy   string // Caller.Name
	// RequestedPerson is who asked, or made the API key that did; zero: nobody.
	RequestedPerson PersonID
	RequestedAt     time.Time
	DecidedBy       string // who approved or rejected it
	DecidedAt       time.Time
	Note            string // why it was rejected
	EndedAt         time.Time
	// ExpiresAt is when it ends by itself while it is being collected, or waits for
	// another person.
	ExpiresAt time.Time
}

// StateAt gives the state at a time: a batch with which nobody went on expires by
// itself. One that was approved is worked off, however long that takes.
func (b RekeyBatch) StateAt(now time.Time) RekeyBatchState {
	if (b.State == BatchCollecting || b.State == BatchRequested) && !now.Before(b.ExpiresAt) {
		return BatchExpired
	}
	return b.State
}

// RekeyItemState is where one device of a batch stands.
type RekeyItemState uint8

// States of an item.
const (
	RekeyItemWaiting RekeyItemState = iota
	RekeyItemArmed
	RekeyItemFailed
)

var rekeyItemText = [...]string{RekeyItemWaiting: "waiting", RekeyItemArmed: "armed", RekeyItemFailed: "failed"}

// String gives the word for people.
func (s RekeyItemState) String() string {
	if int(s) < len(rekeyItemText) {
		return rekeyItemText[s]
	}
	return "unknown"
}

// RekeyBatchItem is one device of a batch, and what became of it.
type RekeyBatchItem struct {
	Index   uint64 // from 0, in the order of the set
	Device  DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	// Epoch is that of its ownership when it was added.
	Epoch uint32
	State RekeyItemState
	// Order is the one that it got, or had already to the same effect.
	Order RekeyID
	// Code and Reason say why one that failed has none.
	Code   Code
	Reason string
}

// RekeyBatchArm is what is to become of one waiting device of a batch: an order that
// is armed with Entry, or, without one, a refusal.
type RekeyBatchArm struct {
	Index  uint64
	Order  RekeyOrder
	Entry  AuditEntry
	Had    RekeyID // the order that it has already to the same effect
	Code   Code
	Reason string
}

// RekeyBatchQuery selects batches for a listing, newest first.
type RekeyBatchQuery struct {
	Org    OrgID // zero: all (the server itself)
	States []RekeyBatchState
	Before RekeyBatchID // zero: from the newest
	Limit  int
}

// Reasons why a device of a batch got no order, where no rule of rekeying says it.
const (
	RekeyFailedGone  = "the device was deleted"
	RekeyFailedOwner = "the device changed hands since the batch was requested"
)

// Audit events of batches. Each device that is armed has a rekey.armed of its own.
const (
	AuditRekeyBatchRequested AuditEvent = "rekey.batch_requested"
	AuditRekeyBatchApproved  AuditEvent = "rekey.batch_approved"
	AuditRekeyBatchRejected  AuditEvent = "rekey.batch_rejected"
	AuditRekeyBatchWithdrawn AuditEvent = "rekey.batch_withdrawn"
	AuditRekeyBatchDone      AuditEvent = "rekey.batch_done"
)
