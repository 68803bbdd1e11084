package auditlog

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// BundleFormat is the format of the bundles that this package reads.
const BundleFormat = "joinery-custody/1"

// Bundle is what a Join Server tells of one device, with proofs: everything that
// was done with its keys, or who held it. All of it can be checked without asking
// anybody; see Verify.
type Bundle struct {
	Format  string `json:"format"`
	Device  string `json:"device"`
	JoinEUI string `json:"joinEUI"`
	DevEUI  string `json:"devEUI"`
	// Kind is "custody" or "provenance": of the second only the links of the chain
	// of owners are there, and what is known of disclosures of root keys.
	Kind string `json:"kind"`
	// Checkpoint is the signed state of the log (c2sp.org/tlog-checkpoint).
	Checkpoint string `json:"checkpoint"`
	// Key is the log's, as the server said it when the bundle was fetched; "" where it
	// was not kept. Verify never looks at it: of a bundle that is to be checked it says
	// nothing. Of one that somebody kept it is what he believed then.
	Key string `json:"key,omitempty"`
	// Consistency proves that the log continues earlier states.
	Consistency []Consistency `json:"consistency,omitempty"`
	// Entries are the events about the device, and those about more than it, in the
	// order in which they were written, then its joins, newest first, then what the
	// server says of the log.
	Entries []Entry `json:"entries"`
	// Manifest is the signed entry with which the device was imported; empty where
	// it came another way, or was deleted since.
	Manifest []byte `json:"manifest,omitempty"`
	// Import shows where the history begins; nil where the device came before the
	// log told.
	Import *Import `json:"import,omitempty"`
	// Sets show that the device is one of those of an order for many.
	Sets []Set `json:"sets,omitempty"`
	// Parties open commitments of links, as far as their owners allow.
	Parties []Party `json:"parties,omitempty"`
}

// Kinds of bundles.
const (
	BundleCustody    = "custody"
	BundleProvenance = "provenance"
)

// Consistency proves that a tree continues its first From leaves (RFC 6962
// §2.1.2).
type Consistency struct {
	From  int64    `json:"from"`
	Proof [][]byte `json:"proof"`
}

// Kinds of entries.
const (
	KindEvent = "event" // about the device
	KindJoin  = "join"
	KindLog   = "log" // about the log itself, or the erasure of another entry
	// KindImport commits to the devices of a run of rows; see Import.
	KindImport = "import"
	// KindRelated is about an order for many devices, of which this is one, about its
	// arrival, when it was none yet, or about who imported it and others.
	KindRelated = "related"
)

// Entry is one entry of the log.
type Entry struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Leaf is its number in the tree; -1: it is waiting to come there.
	Leaf int64 `json:"leaf"`
	// Record is what the tree holds, 33 bytes.
	Record []byte `json:"record"`
	// Payload and Salt are what the record covers; absent from entries that are
	// withheld or erased.
	Payload []byte `json:"payload,omitempty"`
	Salt    []byte `json:"salt,omitempty"`
	// Withheld: it is another owner's.
	Withheld bool `json:"withheld,omitempty"`
	// ErasedBy is the entry that records its erasure.
	ErasedBy string `json:"erasedBy,omitempty"`
	// Proof is that of its inclusion (RFC 6962 §2.1.1).
	Proof [][]byte `json:"proof,omitempty"`
}

// Party opens a commitment to the name of an owner.
type Party struct {
	Epoch uint32 `json:"epoch"` // of ownership; 0 is the maker
	Name  string `json:"name"`
	Nonce []byte `json:"nonce"` // 16 bytes
}

// Event is the payload of an entry that is no join.
type Event struct {
	Format   int               `json:"format"`
	At       int64             `json:"at"` // milliseconds since 1970
	Event    string            `json:"event"`
	Actor    string            `json:"actor"`
	Org      string            `json:"org"`
	Device   string            `json:"device"`
	Peer     string            `json:"peer"`
	Detail   map[string]string `json:"detail"`
	N        int64             `json:"n"`        // among the events about Device, from 1
	Previous string            `json:"previous"` // record of the one before, hexadecimal
}

// Time is At.
func (e Event) Time() time.Time { return time.UnixMilli(e.At).UTC() }

// ErrPayload says that a payload is none that this version knows.
var ErrPayload = errors.New("audit payload: unknown format, or cut short")

// ParseEvent reads the payload of an event.
func ParseEvent(payload []byte) (e Event, err error) {
	if err := json.Unmarshal(payload, &e); err != nil || e.Format != 1 {
		return Event{}, fmt.Errorf("%w: want JSON of format 1", ErrPayload)
	}
	return e, nil
}

// Join is what an auditor needs of the payload of a join.
type Join struct {
	At        time.Time
	Device    uint64
	KeySet    uint64
	Type      byte // 0xFF a join, else the type of the rejoin
	JoinEUI   string
	DevEUI    string
	Count     uint16 // DevNonce or RJcount
	JoinNonce uint32
	NetID     string
}

// ParseJoin reads the payload of a join: format 1, all integers big-endian.
//
//	format 1 ‖ ID 8 ‖ At 8 ‖ Device 8 ‖ KeySet 8 ‖ Owner 8 ‖ Peer 8 ‖
//	FrameHash 32 ‖ Type 1 ‖ JoinEUI 8 ‖ DevEUI 8 ‖ flags 1 ‖ Root 1 ‖ Count 2 ‖
//	JoinNonce 3 ‖ NetID 3 ‖ more
func ParseJoin(payload []byte) (j Join, err error) {
	const least = 108
	if len(payload) < least || payload[0] != 1 {
		return j, fmt.Errorf("%w: want a join of format 1", ErrPayload)
	}
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(payload[at:]) }
	eui := func(at int) string { return strings.ToUpper(hex.EncodeToString(payload[at : at+8])) }
	return Join{
		At: time.UnixMilli(int64(u64(9))).UTC(), Device: u64(17), KeySet: u64(25), Type: payload[81],
		JoinEUI: eui(82), DevEUI: eui(90), Count: binary.BigEndian.Uint16(payload[100:]),
		JoinNonce: uint32(payload[102])<<16 | uint32(payload[103])<<8 | uint32(payload[104]),
		NetID:     strings.ToUpper(hex.EncodeToString(payload[105:108])),
	}, nil
}
