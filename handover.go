package joinery

import (
	"time"

	"joinery/lorawan"
)

// PassageState is how far the hand-over of an order has come, as the old Join
// Server knows it.
type PassageState string

// States of passages.
const (
	PassageWaiting PassageState = "waiting" // to be offered, or offered anew
	PassageParked  PassageState = "parked"  // there, and nobody accepted it yet
	PassageTaken   PassageState = "taken"   // the other Join Server would answer its joins
	PassageRefused PassageState = "refused"
	PassageJoined  PassageState = "joined" // it joined there
	PassageFile    PassageState = "file"   // the owner carries it
)

// Open tells whether a device may be told to go: it would be answered there, or
// its owner sees to it.
func (s PassageState) Open() bool {
	return s == PassageTaken || s == PassageJoined || s == PassageFile
}

// Passage is the hand-over of an order to a Join Server that is reached.
type Passage struct {
	State PassageState
	// Said is what was last said of it, for people: the other Join Server's reason,
	// or why it could not be asked.
	Said string
	// Offered is the hash of the key sets that it was offered last; nil: none yet.
	Offered []byte
	// Tries is how often it was tried since it last went on.
	Tries     uint32
	NextAt    time.Time // zero: nothing is to be done
	ChangedAt time.Time
	// Lease is the NextAt by which somebody took the hand-over up: while it is the
	// stored one, nothing came between. Zero: nobody did.
	Lease time.Time
}

// PassageOffer is root keys of one order that are about to leave for its Join Server.
type PassageOffer struct {
	Order RekeyID
	Owner OrgID // by whose order, and who has to hold the device
	// Sum is the hash of the key sets; Entry is written where it is another one than
	// before.
	Sum   []byte
	Entry AuditEntry
}

// ArrivalState is how far a device has come that another Join Server handed over.
type ArrivalState string

// States of arrivals.
const (
	ArrivalParked  ArrivalState = "parked" // nobody accepted it yet
	ArrivalTaken   ArrivalState = "taken"  // it is a device here
	ArrivalRefused ArrivalState = "refused"
	ArrivalJoined  ArrivalState = "joined"
)

// Arrival is a device that another Join Server handed over. It is known by that
// one's name for its order, for ever: what is offered again is the same arrival.
type Arrival struct {
	ID     ArrivalID
	From   JoinServerID
	Server string // the name of From, for people
	Ref    string // the order, as From calls it
	Org    OrgID  // who holds the JoinEUI, and may accept
	// JoinEUI is the one under which the device is to join here.
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	Cookie  lorawan.Cookie
	State   ArrivalState
	Reason  string // of a refusal: a word of the protocol
	Device  DeviceID
	// Content is the sealed keys as they came, while they are parked.
	Content []byte
	// OfferedAt is when From says that it made the offer.
	OfferedAt time.Time
	At        time.Time
	ChangedAt time.Time
	// Labels are the key sets that came with it, by what From calls them.
	Labels map[string]KeySetID
}

// ArrivedKeys is a key set of an arrival, taken in.
type ArrivedKeys struct {
	Label  string
	KeySet KeySet
	// Held has the rekeying key of the device in that generation, in the places of
	// root keys; its id is zero where none came.
	Held KeySet
}

// ArrivedDevice is an arrival on its way to be a device, or more key sets of one
// that is.
type ArrivedDevice struct {
	Arrival ArrivalID
	// Device and Keys: the first key set is the one that it is thought to have.
	Device  Device
	Keys    []ArrivedKeys
	Binding *Binding
	Serial  string // of its chip, hexadecimal; for rekeying profile M
	// Told is what its former Join Server said of disclosures.
	Told *Told
	// News is the entry of a receipt that says so.
	News []byte
}

// Expectation is what an organisation accepts of another Join Server: devices of
// a DevEUI range, under JoinEUIs that the organisation holds.
type Expectation struct {
	ID     ExpectationID
	Org    OrgID
	From   JoinServerID
	Server string // the name of From, for people
	// Devices are the DevEUIs.
	Devices   EUIRange
	Binding   *Binding
	By        string
	At        time.Time
	ExpiresAt time.Time
}

// PassageChange is what a receipt changes.
type PassageChange struct {
	Order   RekeyID
	Passage Passage
	Entry   AuditEntry // of the passage
	// State ends the order, where it is set; Ended is its entry.
	State RekeyState
	Ended AuditEntry
}

// ArrivalNews is a numbered entry of the receipts for a Join Server.
type ArrivalNews struct {
	N    uint64
	Line []byte
}
