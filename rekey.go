package joinery

import (
	"errors"
	"time"

	"joinery/lorawan"
)

// RekeyProfile says how a device derives its next root keys. Zero: it cannot, or
// nobody said that it can.
type RekeyProfile uint8

// Rekeying profiles.
const (
	// RekeyS: one AES-ECB encryption for each new key, under a rekeying key of the
	// device that every rekeying replaces.
	RekeyS RekeyProfile = iota + 1
	// RekeyM: the chip family's DeriveKey, from a slot key that stays. It wants an
	// authorising MAC, which has to be in the device before.
	RekeyM
)

var rekeyProfileText = map[RekeyProfile]string{0: "none", RekeyS: "S", RekeyM: "M"}

func (p RekeyProfile) String() string { return rekeyProfileText[p] }

// MarshalText implements encoding.TextMarshaler.
func (p RekeyProfile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: none, S or M.
func (p *RekeyProfile) UnmarshalText(text []byte) error {
	for known, name := range rekeyProfileText {
		if name == string(text) {
			*p = known
			return nil
		}
	}
	return errors.New("rekeying profile: want none, S or M")
}

// RekeyWord is by whose word a device rekeys as its profile says, the weakest first.
type RekeyWord uint8

// Words.
const (
	// RekeyByOwner: whoever holds the device says so, and nobody who made it. It is
	// tried RekeyTries times.
	RekeyByOwner RekeyWord = iota
	// RekeyByImporter: who brought the device in said so of all that its file has.
	RekeyByImporter
	// RekeyByManifest: the signed manifest of the element says so.
	RekeyByManifest
	// RekeyByDevice: it rekeyed here, and signed with what came of it.
	RekeyByDevice
)

var rekeyWordText = [...]string{RekeyByOwner: "owner", RekeyByImporter: "importer", RekeyByManifest: "manifest", RekeyByDevice: "device"}

// String gives the word for people.
func (w RekeyWord) String() string {
	if int(w) < len(rekeyWordText) {
		return rekeyWordText[w]
	}
	return "unknown"
}

// RekeyTries is how many join-accepts carry the instruction of one order to a
// device that rekeys by its owner's word alone: one that cannot loses the
// network's list of channels in each of them.
const RekeyTries = 3

// RekeyState is how far the rekeying of a device has come.
type RekeyState string

// States. The first three have not ended: a device has one such order at most.
const (
	RekeyRequested RekeyState = "requested" // waits for another person
	RekeyArmed     RekeyState = "armed"     // its next join-accept carries the instruction
	RekeySent      RekeyState = "sent"      // at least one accept carried it; the next ones do, too
	RekeyConfirmed RekeyState = "confirmed" // the device joined at the new Join Server
	RekeyCancelled RekeyState = "cancelled" // by its owner; nothing is sent any more
	RekeyRejected  RekeyState = "rejected"  // by the other person; nothing was sent
	RekeyExpired   RekeyState = "expired"   // as cancelled, by time
)

// Open tells whether an order in that state may still be sent.
func (s RekeyState) Open() bool { return s == RekeyArmed || s == RekeySent }

// RekeyOrder is an owner's order to have a device derive new root keys and join
// at another Join Server. An order that was sent may be obeyed at any later time,
// whatever its state: the device may have heard what nobody else knows of.
type RekeyOrder struct {
	ID     RekeyID
	Device DeviceID
	State  RekeyState
	// Rekey is the instruction: drawn anew for each order, never changed after.
	Rekey lorawan.Rekey
	// Server is the pinned Join Server to which the new root keys go, or Recipient
	// one of the owner's, and then they are disclosed. To is how that is called, for
	// people. Thumbprint names its key: KID of a Join Server's transport key, that of
	// RFC 7638 of a recipient's; "" in orders from before it was kept.
	Server     JoinServerID
	To         string
	Recipient  RecipientID
	Thumbprint string
	// RekeyKey: the next rekeying key goes there, too.
	RekeyKey bool
	// Passage is how far the hand-over has come where that Join Server is reached;
	// else nil.
	Passage *Passage
	// Owner is who gave the order, By the caller, Person who that is, or who made the
	// API key; zero: nobody.
	Owner  OrgID
	By     string
	Person PersonID

	At time.Time
	// ArmedAt is when it was armed: zero while it waits for another person, and ever
	// after where that one did not approve. DecidedBy approved or rejected it; "":
	// nobody had to.
	ArmedAt   time.Time
	DecidedBy string
	ExpiresAt time.Time
	// Sent is how many accepts carried it; FirstSentAt and LastSentAt are zero
	// before the first.
	Sent        uint32
	FirstSentAt time.Time
	LastSentAt  time.Time
	EndedAt     time.Time // zero while it is open
}

// RekeyWait is for how long an order waits for another person.
const RekeyWait = 7 * 24 * time.Hour

// StateAt gives the state at a time: an order that has not ended expires by itself.
func (o RekeyOrder) StateAt(now time.Time) RekeyState {
	switch {
	case o.State == RekeyRequested && !now.Before(o.At.Add(RekeyWait)):
		return RekeyExpired
	case (o.State.Open() || o.State == RekeyRequested) && !now.Before(o.ExpiresAt):
		return RekeyExpired
	}
	return o.State
}

// Held tells whether the device is not to be told yet: the Join Server to which it
// is to go would not answer it.
func (o RekeyOrder) Held() bool { return o.Passage != nil && !o.Passage.State.Open() }

// Rekeying is what a join has to know of a device that is being rekeyed, or was.
type Rekeying struct {
	// Order is the newest one that was ever armed, nil without one.
	Order *RekeyOrder
	// Candidates are key sets that the device may have by now instead of the one
	// that it is known to have: of each instruction that was ever sent. Newest
	// first; without nonces.
	Candidates []KeySet
}

// MaxRekeyCandidates bounds Rekeying.Candidates: each costs a MIC where a
// join-request is of none of them.
const MaxRekeyCandidates = 16

// JoinServer is another Join Server to which new root keys may go: pinned by the
// operator. Keys are DER, SubjectPublicKeyInfo. Who signs with ReceiptKey is the same
// Join Server, with the same ID, whatever its name, place, certificate and transport
// key are; one that gives no receipts is known by nothing but its ID.
type JoinServer struct {
	ID   JoinServerID
	Name string
	// TransportKey is what keys are sealed to that go there.
	TransportKey []byte
	// ReceiptKey verifies its receipts (ECDSA, P-256); nil: it gives none.
	ReceiptKey []byte
	// URL is where it is reached (https), "" where only files go there. Identity is
	// how it proves who it is, as who is called and as who calls.
	URL      string
	Identity Credential
	// Theirs are the JoinEUIs that are its own; none: any. Ours are those of this
	// server's into which it may hand devices over; none: none.
	Theirs []EUIRange
	Ours   []EUIRange
	// Cursor is the last of its receipts that was read.
	Cursor    ReceiptPlace
	CreatedAt time.Time
}

// ReceiptPlace is a place among the receipts of a Join Server: behind entry N. A Join
// Server that came back from a backup may give numbers again that it lost, so it draws
// another epoch; numbers of different epochs have nothing to do with each other. 0 is
// the epoch of a Join Server that never did.
type ReceiptPlace struct{ Epoch, N uint64 }

// MaxReceiptEpoch bounds epochs: they are numbers in JSON.
const MaxReceiptEpoch = 1<<53 - 1

// Audit events of rekeying.
const (
	AuditRekeyProfile      AuditEvent = "rekey.profile"     // the owner says how the device rekeys
	AuditRekeyRequested    AuditEvent = "rekey.requested"   // an order was given, and waits for another person
	AuditRekeyApproved     AuditEvent = "rekey.approved"    // the other person approved it; it is armed
	AuditRekeyRejected     AuditEvent = "rekey.rejected"    // the other person did not
	AuditRekeyArmed        AuditEvent = "rekey.armed"       // an order was given that needs nobody else
	AuditRekeySent         AuditEvent = "rekey.sent"        // the first accept carries it
	AuditRekeyObeyed       AuditEvent = "rekey.obeyed"      // the device signed with new root keys, here
	AuditRekeyCancelled    AuditEvent = "rekey.cancelled"   // nothing is sent any more
	AuditRekeyConfirmed    AuditEvent = "rekey.confirmed"   // the device joined at the other Join Server
	AuditRekeyHandedOver   AuditEvent = "rekey.handed_over" // new root keys were sealed to another Join Server
	AuditRekeyTicket       AuditEvent = "rekey.ticket"      // the order was written into a ticket for the bench
	AuditJoinServerAdded   AuditEvent = "join_server.added"
	AuditJoinServerRemoved AuditEvent = "join_server.removed"
	AuditJoinServerChanged AuditEvent = "join_server.changed"
	AuditRekeyPassage      AuditEvent = "rekey.passage"       // what the other Join Server said of a hand-over
	AuditRekeyArrived      AuditEvent = "rekey.arrived"       // another Join Server handed a device over
	AuditRekeyTaken        AuditEvent = "rekey.taken"         // and it was taken in
	AuditRekeyRefused      AuditEvent = "rekey.refused"       // or was refused
	AuditRekeyReceived     AuditEvent = "rekey.received"      // it joined here
	AuditExpectation       AuditEvent = "expectation.added"   // devices of another Join Server are expected
	AuditExpectationEnded  AuditEvent = "expectation.removed" // and not any more
)
