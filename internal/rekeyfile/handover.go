package rekeyfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"joinery/internal/exposure"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// FormatOffered is that of the answer to an offer, which is signed by nobody: it is
// read from a connection that proved whose it is.
const FormatOffered = "joinery-rekey-offered/1"

// HandedOver is one device: the rows of a key list, under its new JoinEUI.
type HandedOver struct {
	// Order names the order at the sender: the same one is the same hand-over,
	// however often it comes.
	Order  string         `json:"order"`
	Cookie lorawan.Cookie `json:"cookie"`
	// Profile is S or M; Serial is that of the chip, 9 bytes in hexadecimal, of
	// profile M alone.
	Profile string `json:"profile"`
	Serial  string `json:"serial,omitempty"`
	// Generation is the key set that the device has if nothing happened that the
	// sender does not know of.
	Generation
	// Others are key sets that it may have instead.
	Others []Generation `json:"others,omitempty"`
	// Exposure is what the sender knows of disclosures; nil: it does not say.
	Exposure *exposure.Exposure `json:"exposure,omitzero"`
}

// Generation is one key set to which instructions lead.
type Generation struct {
	// Label is how the sender calls it: the same label is the same keys.
	Label string `json:"label"`
	// Row has the root keys.
	Row seal.SealedRow `json:"row"`
	// RekeyKey has the rekeying key that goes with them, where the owner ordered it.
	RekeyKey *seal.SealedRow `json:"rekeyKey,omitempty"`
}

// Generations gives all key sets, the likeliest first.
func (d HandedOver) Generations() []Generation {
	return append([]Generation{d.Generation}, d.Others...)
}

// maxName bounds Order and Label, in bytes.
const maxName = 64

// ErrDevice is what a hand-over that contradicts itself about a device, or is
// incomplete, is refused with. It names no value.
var ErrDevice = errors.New("not a hand-over of a device")

// Check tells whether d is complete and of one device.
func (d HandedOver) Check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrDevice, what) }
	switch {
	case d.Order == "" || len(d.Order) > maxName || !exposure.IsName(d.Order):
		return bad("the name of its order")
	case !d.hasProfile():
		return bad("its profile or serial number")
	case d.Exposure != nil && d.Exposure.Check() != nil:
		return bad("what it says of disclosures")
	}
	seen := map[string]bool{}
	for _, g := range d.Generations() {
		if g.Label == "" || len(g.Label) > maxName || !exposure.IsName(g.Label) || seen[g.Label] {
			return bad("the label of a key set")
		}
		seen[g.Label] = true
		if !sameDevice(g.Row, d.Row) || g.Row.JoinEUI.IsZero() {
			return bad("key sets of different devices")
		}
		if !isRootRow(g.Row) {
			return bad("a row of root keys")
		}
		if k := g.RekeyKey; k != nil && (!sameDevice(*k, d.Row) || k.CheckRekeyKey() != nil || (d.Profile == "M") != (len(k.AppKey) > 0)) {
			return bad("a row of a rekeying key")
		}
	}
	return nil
}

// hasProfile tells whether the profile is one, and has the serial number that it needs.
func (d HandedOver) hasProfile() bool {
	serial, err := hex.DecodeString(d.Serial)
	return d.Profile == "S" && d.Serial == "" || d.Profile == "M" && err == nil && len(serial) == 9
}

func sameDevice(a, b seal.SealedRow) bool {
	return a.JoinEUI == b.JoinEUI && a.DevEUI == b.DevEUI && a.MACVersion == b.MACVersion
}

// isRootRow tells whether a row has root keys as hand-overs have them: NwkKey serves,
// no nonce was used up under this JoinEUI or a former one, and there are JoinNonces left.
func isRootRow(r seal.SealedRow) bool {
	fresh := len(r.UsedDevNonces) == 0 && r.NextRJCount1 == 0 && len(r.Former) == 0
	return r.Check() == nil && r.Root10 == seal.RootNwkKey && fresh && r.JoinNonceFloor < lorawan.MaxJoinNonce
}

// States of an offered device.
const (
	StateParked  = "parked"  // nobody there accepted it yet
	StateTaken   = "taken"   // joins of it would be answered
	StateRefused = "refused" // see the reasons
	StateJoined  = "joined"  // it joined there
)

// Reasons of refusals.
const (
	ReasonRange     = "range"      // its JoinEUI is not open to this sender
	ReasonMalformed = "malformed"  // what it says contradicts itself
	ReasonConflict  = "conflict"   // there is such a device already, or it is another order's
	ReasonSeal      = "seal"       // it does not open: sealed to another transport key, or damaged
	ReasonFull      = "full"       // too many wait to be accepted; offer it later
	ReasonExhausted = "exhausted"  // too many key sets for one device
	ReasonNotServed = "not-served" // this server takes no root keys in
	ReasonRejected  = "rejected"   // who may accept it does not
	ReasonExpired   = "expired"    // nobody accepted it in time
)

// Offered answers an offer.
type Offered struct {
	Format  string `json:"format"`
	Results []Told `json:"results"`
}

// ReadOffered reads the answer to an offer, strictly. ErrFormat.
func ReadOffered(text []byte) (o Offered, err error) {
	if err := json.Unmarshal(text, &o, json.RejectUnknownMembers(true), json.WithUnmarshalers(bounded())); err != nil || o.Format != FormatOffered {
		return Offered{}, fmt.Errorf("%w: want %s", ErrFormat, FormatOffered)
	}
	return o, nil
}

// Told is what became of one order.
type Told struct {
	Order  string `json:"order"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Receipt says what became of devices that were handed over. As a file it has
// joins alone; between servers it is one page of all that is to tell.
type Receipt struct {
	At time.Time `json:"at"`
	// For is SHA-256 of the statement key of who handed over; After is the number of
	// the entry behind which the page begins, Next that of its last; More, that there
	// is another page. Epoch is what the numbers are of: it is another one once the
	// signer came back from a backup. All are zero in a file.
	For   []byte   `json:"for,omitempty"`
	Epoch uint64   `json:"epoch,omitempty"`
	After uint64   `json:"after,omitempty"`
	Next  uint64   `json:"next,omitempty"`
	More  bool     `json:"more,omitempty"`
	Told  []Told   `json:"told,omitempty"`
	Joins []Joined `json:"joins"`
}

// Entry is one entry of a receipt, as it is kept until it is told.
type Entry struct {
	Told *Told   `json:"told,omitempty"`
	Join *Joined `json:"join,omitempty"`
}

// Joined is the transcript of one join.
type Joined struct {
	Order     string            `json:"order"`
	Cookie    lorawan.Cookie    `json:"cookie"`
	JoinEUI   lorawan.EUI64     `json:"joinEUI"`
	DevEUI    lorawan.EUI64     `json:"devEUI"`
	At        time.Time         `json:"at"`
	DevNonce  lorawan.DevNonce  `json:"devNonce"`
	JoinNonce lorawan.JoinNonce `json:"joinNonce"`
	// Request is SHA-256 over the join-request and what the network asked with it;
	// Accept over the join-accept as it went over the air, MHDR first, encrypted.
	Request []byte `json:"request"`
	Accept  []byte `json:"accept"`
	// Transcript binds all of that together; see TranscriptHash.
	Transcript []byte `json:"transcript"`
}

const transcriptDomain = "joinery-join-transcript/1\x00"

// TranscriptHash is SHA-256 over "joinery-join-transcript/1" ‖ 00 ‖ JoinEUI 8 ‖
// DevEUI 8 ‖ DevNonce 2 ‖ JoinNonce 4 ‖ Request 32 ‖ Accept 32, all big-endian.
func (j Joined) TranscriptHash() []byte {
	b := append([]byte(transcriptDomain), j.JoinEUI[:]...)
	b = append(b, j.DevEUI[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(j.DevNonce))
	b = binary.BigEndian.AppendUint32(b, uint32(j.JoinNonce))
	b = append(append(b, j.Request...), j.Accept...)
	sum := sha256.Sum256(b)
	return sum[:]
}

// Whole tells whether j is the transcript of a join, and its hash the one of it.
func (j Joined) Whole() bool {
	return len(j.Request) == sha256.Size && len(j.Accept) == sha256.Size && j.JoinNonce > 0 && j.JoinNonce <= lorawan.MaxJoinNonce &&
		bytes.Equal(j.Transcript, j.TranscriptHash())
}
