package joinery

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"strconv"
	"time"

	"joinery/auditlog"
	"joinery/lorawan"
)

type (
	recipientKind struct{}
	exportKind    struct{}

	disclosureKind struct{}
)

func (recipientKind) prefix() string { return "rcp" }
func (exportKind) prefix() string    { return "exp" }

func (disclosureKind) prefix() string { return "dis" }

type (
	// RecipientID is the identifier of a recipient of root keys: "rcp_…".
	RecipientID = ID[recipientKind]
	// ExportID is the identifier of an export: "exp_…".
	ExportID = ID[exportKind]
	// DisclosureID is the identifier of one disclosure of a key set: "dis_…".
	DisclosureID = ID[disclosureKind]
)

// NewRecipientID draws the identifier of a recipient.
func NewRecipientID() RecipientID { return newID[recipientKind]() }

// NewExportID draws the identifier of an export.
func NewExportID() ExportID { return newID[exportKind]() }

// NewDisclosureID draws the identifier of a disclosure.
func NewDisclosureID() DisclosureID { return newID[disclosureKind]() }

// ParseRecipientID reads "rcp_…".
func ParseRecipientID(s string) (RecipientID, error) { return parseID[recipientKind](s) }

// ParseExportID reads "exp_…".
func ParseExportID(s string) (ExportID, error) { return parseID[exportKind](s) }

// RecipientKind says who opens what is exported. The set is closed.
type RecipientKind string

// Kinds of recipients.
const (
	// RecipientFile: somebody with a private key of their own; each root key is
	// encrypted to it by itself.
	RecipientFile RecipientKind = "file"
	// RecipientServer: the transport key of another Joinery, which imports what it
	// gets as it imports a key list.
	RecipientServer RecipientKind = "join-server"
)

// Recipient is a public key to which an organisation has root keys exported.
type Recipient struct {
	ID   RecipientID
	Org  OrgID
	Name string
	Kind RecipientKind
	// Thumbprint is that of RFC 7638 with SHA-256: 43 characters of base64url.
	Thumbprint string
	Key        string // the public key, PEM
	// SHA1 is the organisation's word that the key is in a token which knows no
	// other OAEP than that with SHA-1.
	SHA1      bool
	AddedBy   string // Caller.Name
	CreatedAt time.Time
	// RemovedAt is set once nothing more is exported to it.
	RemovedAt time.Time
}

// ApprovalRule says whether an export needs a second person. The order is from
// weak to strict.
type ApprovalRule uint8

// Approval rules.
const (
	// ApprovalNever: whoever may ask for an export has it.
	ApprovalNever ApprovalRule = iota + 1
	// ApprovalAuto: another admin approves wherever there is one. It is what an
	// organisation has that said nothing.
	ApprovalAuto
	// ApprovalAlways: another admin approves; without one nothing is exported.
	ApprovalAlways
)

var approvalText = map[ApprovalRule]string{ApprovalNever: "never", ApprovalAuto: "auto", ApprovalAlways: "always"}

// String gives the word for people, and for the database.
func (a ApprovalRule) String() string { return approvalText[a] }

// ParseApprovalRule reads "never", "auto" or "always".
func ParseApprovalRule(s string) (ApprovalRule, error) {
	for a, text := range approvalText {
		if text == s {
			return a, nil
		}
	}
	return 0, Errorf(CodeInvalid, "approval: want never, auto or always")
}

// ExportPolicy is when an organisation's exports need a second person.
type ExportPolicy struct {
	Org      OrgID
	Approval ApprovalRule
	// Next takes the place of Approval at NextFrom, zero for nothing; while
	// NextFrom is zero it waits for another admin to approve it. It is always the
	// weaker of the two: what is stricter holds at once.
	Next           ApprovalRule
	NextFrom       time.Time
	ProposedBy     string
	ProposedPerson PersonID
	// AdminLeftAt is when an admin last ceased to be one: for a day nobody counts
	// as alone after that, so that whoever removes the others gains nothing by it.
	AdminLeftAt time.Time
}

// At gives the rule that holds at a time.
func (p ExportPolicy) At(at time.Time) ApprovalRule {
	if p.Next != 0 && !p.NextFrom.IsZero() && !at.Before(p.NextFrom) {
		return p.Next
	}
	return p.Approval
}

// ExportState is where an export stands. The set is closed.
type ExportState string

// States of an export, in the order of its life.
const (
	ExportCollecting ExportState = "collecting" // devices are being added
	ExportRequested  ExportState = "requested"  // waits for another person
	ExportApproved   ExportState = "approved"   // waits for the custody key
	ExportWorking    ExportState = "working"    // the custody process wraps keys
	ExportReady      ExportState = "ready"      // can be downloaded
	ExportDelivered  ExportState = "delivered"  // the receipt was acknowledged; the wrapped keys are deleted
	ExportRejected   ExportState = "rejected"   // by the other person
	ExportWithdrawn  ExportState = "withdrawn"  // by its organisation
	ExportExpired    ExportState = "expired"    // nobody went on with it in time; what was wrapped is deleted
	ExportFailed     ExportState = "failed"     // nothing of it could be wrapped; its note says why
)

// ExportStates lists every state.
func ExportStates() []ExportState {
	return []ExportState{ExportCollecting, ExportRequested, ExportApproved, ExportWorking, ExportReady, ExportDelivered,
		ExportRejected, ExportWithdrawn, ExportExpired, ExportFailed}
}

// Ended tells whether nothing more becomes of an export in this state.
func (s ExportState) Ended() bool {
	return slices.Contains([]ExportState{ExportDelivered, ExportRejected, ExportWithdrawn, ExportExpired, ExportFailed}, s)
}

// Bounds of exports.
const (
	// MaxExportDevices is the most devices of one export.
	MaxExportDevices = 100_000
	// MaxExportRows is the most devices that one transaction adds, wraps or
	// deletes, so that joins are never kept waiting behind an export.
	MaxExportRows = 200
)

// Export is a request to have the root keys of devices for a recipient. It stays
// for ever, the wrapped keys do not.
type Export struct {
	ID    ExportID
	Org   OrgID
	State ExportState
	// Recipient is to whom; Thumbprint and Kind are its own, repeated.
	Recipient     RecipientID
	RecipientName string
	Kind          RecipientKind
	Thumbprint    string
	Form          string // "raw", "jwe", "seal", or "" for the best that there is

	Devices int64             // in the set
	Wrapped int64             // disclosed with it
	Dropped int64             // left out, each with its reason
	Digest  [sha256.Size]byte // of the set, see ExportDigest; zeros while devices are added
	// Root is that of the tree over the set; see DeviceSet.
	Root [sha256.Size]byte

	// Header is the first line of the file; nil before keys are wrapped.
	Header []byte

	// NeedsApproval is decided when the set is complete.
	NeedsApproval bool
	RequestedBy   string // Caller.Name
	// RequestedPerson is who asked, or made the API key that did; zero: nobody.
	RequestedPerson PersonID
	RequestedAt     time.Time
	DecidedBy       string // who approved or rejected it
	DecidedAt       time.Time
	// Note is why it was rejected or failed; of one that goes on, why devices of it
	// wait, as the custody process said last.
	Note    string
	ReadyAt time.Time
	EndedAt time.Time
	// ExpiresAt is when it ends by itself, in the state where it is.
	ExpiresAt time.Time
}

// ExportDigest stands for a set of devices in their order: SHA-256 over
// "joinery export devices 1", a zero byte, and for each device JoinEUI 8 ‖
// DevEUI 8, big-endian. Begin with NewExportDigest, Add each device, Sum.
type ExportDigest struct{ hash hash.Hash }

const exportDigestDomain = "joinery export devices 1\x00"

// NewExportDigest begins the digest of an empty set.
func NewExportDigest() ExportDigest {
	h := sha256.New()
	h.Write([]byte(exportDigestDomain))
	return ExportDigest{h}
}

// Add puts the next device in.
func (d ExportDigest) Add(joinEUI, devEUI lorawan.EUI64) {
	d.hash.Write(append(joinEUI[:], devEUI[:]...)) // never fails (hash.Hash)
}

// Sum gives the digest of the devices so far.
func (d ExportDigest) Sum() (sum [sha256.Size]byte) {
	d.hash.Sum(sum[:0])
	return sum
}

// DeviceSet stands for the devices of an export, or of an order to rekey many, when
// it is complete.
type DeviceSet struct {
	Devices int64
	Digest  [sha256.Size]byte // see ExportDigest
	// Root is that of a tree over auditlog.SetDevice: what says it proves of each device
	// that it is one of them, and says nothing of the others.
	Root [sha256.Size]byte
}

// Detail says in the log what a set is: how many devices, and the root. The digest
// stays out. Whoever holds one of the devices reads the entry, and EUIs are few enough
// to try: the digest has nothing that hides them. Of what is not complete it says
// nothing.
func (s DeviceSet) Detail(detail map[string]string) map[string]string {
	if s.Digest != [sha256.Size]byte{} {
		detail["devices"], detail["set"] = strconv.FormatInt(s.Devices, 10), hex.EncodeToString(s.Root[:])
	}
	return detail
}

// ItemState is where one device of an export stands.
type ItemState uint8

// States of an item.
const (
	ItemWaiting ItemState = iota
	ItemWrapped
	ItemDropped
)

var itemText = [...]string{ItemWaiting: "waiting", ItemWrapped: "wrapped", ItemDropped: "dropped"}

// String gives the word for people.
func (s ItemState) String() string {
	if int(s) < len(itemText) {
		return itemText[s]
	}
	return "unknown"
}

// NoteNothing is the note of an export whose devices were all left out.
const NoteNothing = "none of its devices could be exported; each says why"

// Reasons why a device is left out of an export. They tell its former owner
// nothing about whose it is now.
const (
	DropGone       = "the device was deleted"
	DropOwner      = "the device changed hands since the export was requested"
	DropKeySet     = "the device got other root keys since the export was requested"
	DropUnwrapped  = "its root keys do not open with the keys of this server"
	DropNotAllowed = "the custody of its root keys does not allow this recipient"
	DropNoKey      = "its root keys are under a custody key, or derive from a master key, that was not at hand"
	DropWrapping   = "its root keys cannot be wrapped to the recipient's key so"
)

// ExportItem is one device of an export.
type ExportItem struct {
	Index   uint64 // from 0, in the order of the set
	Device  DeviceID
	KeySet  KeySetID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	// Epoch is that of its ownership when it was requested.
	Epoch  uint32
	State  ItemState
	Reason string // of a dropped one
}

// WrappedItem is what the custody process made of one device: Blob, or a Reason
// why it could not.
type WrappedItem struct {
	Index  uint64
	KeySet KeySetID
	Blob   []byte
	Reason string
}

// ExportQuery selects exports for a listing, newest first.
type ExportQuery struct {
	Org    OrgID // zero: all (the custody process)
	States []ExportState
	Before ExportID // zero: from the newest
	Limit  int
}

// Disclosure is one time that root keys of a key set were made readable to
// somebody. It is never forgotten.
type Disclosure struct {
	KeySet KeySetID
	Org    OrgID // whose the device was, and who asked
	At     time.Time
	// Recipient is the thumbprint of the key to which they were encrypted.
	Recipient string
	Kind      RecipientKind
	// Export or Rekey is by what.
	Export ExportID
	Rekey  RekeyID
	// Former: they were root keys that the device had before it derived new ones.
	Former bool
	// ToldBy is the Join Server that told of it; "": it was done here. By is the one
	// that did it, Reference what that one calls it, ToldOrg for whom. Of what was told
	// KeySet, Org, Export and Rekey are zero.
	ToldBy    string
	By        string
	Reference string
	ToldOrg   string
}

// Audit events of exports. Each device that is disclosed has a keys.exposed of
// its own.
const (
	AuditRecipientAdded   AuditEvent = "export.recipient_added"
	AuditRecipientRemoved AuditEvent = "export.recipient_removed"
	AuditExportPolicy     AuditEvent = "export.policy_changed"
	AuditExportRequested  AuditEvent = "export.requested"
	AuditExportApproved   AuditEvent = "export.approved"
	AuditExportRejected   AuditEvent = "export.rejected"
	AuditExportWithdrawn  AuditEvent = "export.withdrawn"
	AuditExportReady      AuditEvent = "export.ready"
	AuditExportDelivered  AuditEvent = "export.delivered"
	AuditExportExpired    AuditEvent = "export.expired"
	AuditExportFailed     AuditEvent = "export.failed"
	AuditExportStalled    AuditEvent = "export.stalled"
	AuditKeysExposed      AuditEvent = "keys.exposed"
	// AuditKeysTold: another Join Server, which gave the device away, told who could
	// read its root keys.
	AuditKeysTold AuditEvent = auditlog.EventTold
)
