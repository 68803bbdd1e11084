package joinery

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ID is the opaque identifier of one kind of thing: a positive 63-bit number
// that is never used again, also not after its thing was deleted or a backup
// was restored. Its text form is the kind's prefix, "_" and 13 characters, as
// in "dev_0c3kd5vqmr2hx". The kind is a type, so that a device's id cannot be
// given where a peer's is wanted.
type ID[K kind] int64

type kind interface{ prefix() string }

// The kinds of things that have an ID.
type (
	orgKind         struct{}
	deviceKind      struct{}
	keySetKind      struct{}
	peerKind        struct{}
	kekKind         struct{}
	activationKind  struct{}
	signerKind      struct{}
	importKind      struct{}
	apiKeyKind      struct{}
	disputeKind     struct{}
	rekeyKind       struct{}
	rekeyBatchKind  struct{}
	joinServerKind  struct{}
	arrivalKind     struct{}
	expectationKind struct{}
	productKind     struct{}
	productKeyKind  struct{}
	releaseKind     struct{}
)

func (orgKind) prefix() string         { return "org" }
func (deviceKind) prefix() string      { return "dev" }
func (keySetKind) prefix() string      { return "kst" }
func (peerKind) prefix() string        { return "peer" }
func (kekKind) prefix() string         { return "kek" }
func (activationKind) prefix() string  { return "act" }
func (signerKind) prefix() string      { return "sgn" }
func (importKind) prefix() string      { return "imp" }
func (apiKeyKind) prefix() string      { return "key" }
func (disputeKind) prefix() string     { return "dsp" }
func (rekeyKind) prefix() string       { return "rky" }
func (rekeyBatchKind) prefix() string  { return "rkb" }
func (joinServerKind) prefix() string  { return "jsv" }
func (arrivalKind) prefix() string     { return "arr" }
func (expectationKind) prefix() string { return "xpc" }
func (productKind) prefix() string     { return "prd" }
func (productKeyKind) prefix() string  { return "pky" }
func (releaseKind) prefix() string     { return "rel" }

// What each kind's identifier is called.
type (
	// OrgID is the identifier of an organisation: "org_…".
	OrgID = ID[orgKind]
	// DeviceID is the identifier of a device: "dev_…".
	DeviceID = ID[deviceKind]
	// KeySetID is the identifier of a key set: "kst_…".
	KeySetID = ID[keySetKind]
	// PeerID is the identifier of a peer: "peer_…".
	PeerID = ID[peerKind]
	// KEKID is the identifier of one version of a KEK: "kek_…".
	KEKID = ID[kekKind]
	// ActivationID is the identifier of an activation: "act_…".
	ActivationID = ID[activationKind]
	// SignerID is the identifier of a signer of manifests: "sgn_…".
	SignerID = ID[signerKind]
	// ImportID is the identifier of an import: "imp_…".
	ImportID = ID[importKind]
	// APIKeyID is the identifier of an API key: "key_…".
	APIKeyID = ID[apiKeyKind]
	// DisputeID is the identifier of a dispute: "dsp_…".
	DisputeID = ID[disputeKind]
	// RekeyID is the identifier of an order to rekey a device: "rky_…".
	RekeyID = ID[rekeyKind]
	// RekeyBatchID is the identifier of an order to rekey many devices: "rkb_…".
	RekeyBatchID = ID[rekeyBatchKind]
	// JoinServerID is the identifier of a pinned Join Server: "jsv_…".
	JoinServerID = ID[joinServerKind]
	// ArrivalID is the identifier of a device that another Join Server handed over:
	// "arr_…".
	ArrivalID = ID[arrivalKind]
	// ExpectationID is the identifier of what an organisation expects of another
	// Join Server: "xpc_…".
	ExpectationID = ID[expectationKind]
	// ProductID is the identifier of a product: "prd_…".
	ProductID = ID[productKind]
	// ProductKeyID is the identifier of a key of a product: "pky_…".
	ProductKeyID = ID[productKeyKind]
	// ReleaseID is the identifier of a release of firmware: "rel_…".
	ReleaseID = ID[releaseKind]
)

// idText is Crockford's alphabet in lower case: no i, l, o, u to misread.
var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// String gives the one text form.
func (id ID[K]) String() string {
	var k K
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(id))
	return k.prefix() + "_" + idText.EncodeToString(b[:])
}

// ErrID is wrapped by the errors of the Parse functions.
var ErrID = errors.New("not a valid identifier")

// parseID reads the text form of kind K.
func parseID[K kind](s string) (ID[K], error) {
	var k K
	rest, ok := strings.CutPrefix(s, k.prefix()+"_")
	if ok && len(rest) == 13 {
		b, err := idText.DecodeString(rest)
		if err == nil && len(b) == 8 {
			id := ID[K](binary.BigEndian.Uint64(b))
			// Several texts decode to the same bytes; only one is the text form.
			if id > 0 && id.String() == s {
				return id, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: want %q and 13 characters", ErrID, k.prefix()+"_")
}

// MarshalText implements encoding.TextMarshaler.
func (id ID[K]) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID[K]) UnmarshalText(b []byte) (err error) {
	*id, err = parseID[K](string(b))
	return err
}

// idEpoch is the minute from which identifiers count.
var idEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// numbers is where identifiers are drawn from: 28 bits of minutes, so that rows
// made together lie together, then 35 bits that start at random in each minute
// and rise by random steps. Two processes meet in one number with a chance of
// about 2^-35 for each pair of rows of the same minute; the database's primary
// key then refuses the later row.
//
// Nothing depends on the clock being right. After a jump backwards numbers go on
// rising from the last one. A process that starts with a clock from before the
// epoch begins anywhere in 62 bits: had all such processes the same beginning,
// they would draw the same numbers.
type numbers struct {
	sync.Mutex
	last int64
}

func (n *numbers) draw(now time.Time) int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	random := int64(binary.BigEndian.Uint64(b[:]) >> 1)
	minutes := int64(now.Sub(idEpoch) / time.Minute)
	begin := minutes<<35 | random&(1<<35-1)
	if minutes <= 0 || minutes >= 1<<28 {
		minutes, begin = 0, random>>1
	}

	n.Lock()
	defer n.Unlock()
	if n.last == 0 || minutes<<35 > n.last {
		n.last = begin
	} else {
		n.last += 1 + random&(1<<10-1)
	}
	return n.last
}

var drawn numbers

func newID[K kind]() ID[K] { return ID[K](drawn.draw(time.Now())) }

// FirstActivationID is below every identifier of an activation that is drawn from
// at on, to the minute, by processes whose clocks are right.
func FirstActivationID(at time.Time) ActivationID {
	return ActivationID(max(0, int64(at.Sub(idEpoch)/time.Minute)) << 35)
}

// Minute is when id was drawn, to the minute, by a process whose clock was right.
func (id ID[K]) Minute() time.Time { return idEpoch.Add(time.Duration(id>>35) * time.Minute) }

// NewActivationID draws the identifier of an activation.
func NewActivationID() ActivationID { return newID[activationKind]() }

// NewDeviceID draws the identifier of a device.
func NewDeviceID() DeviceID { return newID[deviceKind]() }

// NewKeySetID draws the identifier of a key set.
func NewKeySetID() KeySetID { return newID[keySetKind]() }

// NewPeerID draws the identifier of a peer.
func NewPeerID() PeerID { return newID[peerKind]() }

// NewKEKID draws the identifier of a KEK.
func NewKEKID() KEKID { return newID[kekKind]() }

// NewOrgID draws the identifier of an organisation.
func NewOrgID() OrgID { return newID[orgKind]() }

// NewSignerID draws the identifier of a signer.
func NewSignerID() SignerID { return newID[signerKind]() }

// NewImportID draws the identifier of an import.
func NewImportID() ImportID { return newID[importKind]() }

// NewAPIKeyID draws the identifier of an API key.
func NewAPIKeyID() APIKeyID { return newID[apiKeyKind]() }

// NewDisputeID draws the identifier of a dispute.
func NewDisputeID() DisputeID { return newID[disputeKind]() }

// NewRekeyID draws the identifier of an order to rekey.
func NewRekeyID() RekeyID { return newID[rekeyKind]() }

// NewRekeyBatchID draws the identifier of an order to rekey many devices.
func NewRekeyBatchID() RekeyBatchID { return newID[rekeyBatchKind]() }

// NewJoinServerID draws the identifier of a pinned Join Server.
func NewJoinServerID() JoinServerID { return newID[joinServerKind]() }

// NewArrivalID draws the identifier of an arrival.
func NewArrivalID() ArrivalID { return newID[arrivalKind]() }

// NewExpectationID draws the identifier of an expectation.
func NewExpectationID() ExpectationID { return newID[expectationKind]() }

// NewProductID draws the identifier of a product.
func NewProductID() ProductID { return newID[productKind]() }

// NewProductKeyID draws the identifier of a key of a product.
func NewProductKeyID() ProductKeyID { return newID[productKeyKind]() }

// NewReleaseID draws the identifier of a release.
func NewReleaseID() ReleaseID { return newID[releaseKind]() }

// ParseOrgID reads "org_…".
func ParseOrgID(s string) (OrgID, error) { return parseID[orgKind](s) }

// ParseDeviceID reads "dev_…".
func ParseDeviceID(s string) (DeviceID, error) { return parseID[deviceKind](s) }

// ParsePeerID reads "peer_…".
func ParsePeerID(s string) (PeerID, error) { return parseID[peerKind](s) }

// ParseKEKID reads "kek_…".
func ParseKEKID(s string) (KEKID, error) { return parseID[kekKind](s) }

// ParseSignerID reads "sgn_…".
func ParseSignerID(s string) (SignerID, error) { return parseID[signerKind](s) }

// ParseImportID reads "imp_…".
func ParseImportID(s string) (ImportID, error) { return parseID[importKind](s) }

// ParseAPIKeyID reads "key_…".
func ParseAPIKeyID(s string) (APIKeyID, error) { return parseID[apiKeyKind](s) }

// ParseDisputeID reads "dsp_…".
func ParseDisputeID(s string) (DisputeID, error) { return parseID[disputeKind](s) }

// ParseRekeyID reads "rky_…".
func ParseRekeyID(s string) (RekeyID, error) { return parseID[rekeyKind](s) }

// ParseRekeyBatchID reads "rkb_…".
func ParseRekeyBatchID(s string) (RekeyBatchID, error) { return parseID[rekeyBatchKind](s) }

// ParseJoinServerID reads "jsv_…".
func ParseJoinServerID(s string) (JoinServerID, error) { return parseID[joinServerKind](s) }

// ParseArrivalID reads "arr_…".
func ParseArrivalID(s string) (ArrivalID, error) { return parseID[arrivalKind](s) }

// ParseExpectationID reads "xpc_…".
func ParseExpectationID(s string) (ExpectationID, error) { return parseID[expectationKind](s) }

// ParseProductID reads "prd_…".
func ParseProductID(s string) (ProductID, error) { return parseID[productKind](s) }

// ParseProductKeyID reads "pky_…".
func ParseProductKeyID(s string) (ProductKeyID, error) { return parseID[productKeyKind](s) }

// ParseReleaseID reads "rel_…".
func ParseReleaseID(s string) (ReleaseID, error) { return parseID[releaseKind](s) }
