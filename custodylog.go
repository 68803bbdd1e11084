package joinery

import (
	"time"

	"joinery/auditlog"
	"joinery/lorawan"
)

// LogRef names the row that a leaf of the custody log is: an activation by its
// id, an audit row by minus its number.
type LogRef int64

// ActivationRef names an activation.
func ActivationRef(id ActivationID) LogRef { return LogRef(id) }

// AuditRef names an audit row.
func AuditRef(id int64) LogRef { return LogRef(-id) }

// Audit gives the number of the audit row that r names; false for an activation.
func (r LogRef) Audit() (int64, bool) { return int64(-r), r < 0 }

// Activation gives the id of the activation that r names; false for an audit row.
func (r LogRef) Activation() (ActivationID, bool) { return ActivationID(r), r > 0 }

// LogState is how far the tree of the custody log got, and from where what
// follows is taken. It moves by compare-and-swap as a whole.
type LogState struct {
	Origin string // of the first line; see Name
	Line   int    // from 1; a restored log goes on as the next
	Size   int64
	Root   [32]byte // Merkle Tree Hash of RFC 6962 over Size leaves

	Page    int64 // of the feed, done with
	Audited int64 // number of the last audit row in the tree
	// Scanning: all activations are gone through by their ids, which Scanned says
	// how far. The tree had ScanSize leaves when that began.
	Scanning bool
	Scanned  ActivationID
	ScanSize int64
	// SettledAt: pages from before may name what the scan took.
	SettledAt time.Time
}

// LogLeaf is a row on its way into the tree.
type LogLeaf struct {
	Ref    LogRef
	Record auditlog.Record
}

// LogBatch is what comes next into the tree.
type LogBatch struct {
	Leaves []LogLeaf
	// Found are activations that their own server may name again.
	Found []ActivationID
	// Missing are activations that the feed names and that are not there.
	Missing []ActivationID
	// Next is the state with these in it, but for Size and Root.
	Next LogState
	// More: there is more than this.
	More bool
}

// LogBundle is up to 256 leaves from number 256 Index on.
type LogBundle struct {
	Index   int64
	Refs    []LogRef
	Records []byte // 33 bytes each
}

// LogTile is up to 256 hashes of a level, from number 256 Index on.
type LogTile struct {
	Level  int // from 1
	Index  int64
	Hashes []byte // 32 bytes each
}

// LogGrowth is how leaves change the tree: bundles and tiles that are new, or
// have more in them.
type LogGrowth struct {
	Bundles []LogBundle
	Tiles   []LogTile
}

// LogCheckpoint is the newest signed state of a line.
type LogCheckpoint struct {
	Line int
	Size int64
	Note string // signed note of c2sp.org/tlog-checkpoint, with cosignatures
}

// LogLag is how far the tree, and its newest signed state, are behind the rows.
type LogLag struct {
	Size      int64     // leaves in the tree
	Published int64     // of them, in the newest checkpoint
	Waiting   time.Time // since when the oldest row waits that is not in the tree; zero: none does
}

// LogLine is a line of the log that ended with a restore.
type LogLine struct {
	Line       int
	Origin     string
	Size       int64
	Root       [32]byte
	Checkpoint string
	EndedAt    time.Time
	Told       LogRef // the entry that tells of it
}

// CustodyEntry is one entry of the log about a device, as it is stored.
type CustodyEntry struct {
	Ref    LogRef
	Leaf   int64 // -1: not in the tree yet
	Record auditlog.Record
	// Payload and Salt are nil where they were erased.
	Payload, Salt []byte
	// Org may read it, besides the operator: it had the device then, or did it.
	Org   OrgID
	Event AuditEvent // "" for an activation
	// Subject is set where it is not about the device alone: the number of the export,
	// batch or arrival that it is about.
	Subject int64
	// Erasure is the audit row that tells of it.
	Erasure LogRef
}

// CustodyQuery selects entries about a device, and about orders for it and others, and
// its arrivals: audit rows, oldest first, and then activations, newest first.
type CustodyQuery struct {
	Device DeviceID
	// After is the last entry seen; 0 begins.
	After LogRef
	Limit int
}

// Audit events of the log itself.
const (
	// AuditLogRestarted: a restored log goes on, as a line of its own.
	AuditLogRestarted AuditEvent = "log.restarted"
	// AuditLogRowMissing: the feed names an activation that is not there.
	AuditLogRowMissing AuditEvent = "log.row_missing"
	// AuditEntryErased: payload and salt of an entry were erased.
	AuditEntryErased AuditEvent = "log.entry_erased"
	// AuditOwnerLinked: the next link in the chain of a device's owners.
	AuditOwnerLinked AuditEvent = "device.owner_linked"
	// AuditProvenanceStated: how the chain of a device's owners stands, and whether
	// its root keys were disclosed, for who is shown the chain.
	AuditProvenanceStated AuditEvent = auditlog.EventStated
	// AuditAppSKeyFetched: an Application Server got an AppSKey.
	AuditAppSKeyFetched AuditEvent = "device.app_s_key_fetched"
	// AuditDeviceRefused: requests were refused, so many since the last such entry.
	AuditDeviceRefused AuditEvent = "device.refused"
	// AuditCeremonyReported: the report of a ceremony of keys was entered.
	AuditCeremonyReported AuditEvent = "ceremony.reported"
	// AuditImportCommitted: these devices, with these manifest entries, were imported
	// in one run of rows. A device that is imported again after it was deleted has an
	// AuditDeviceImported of its own.
	AuditImportCommitted AuditEvent = auditlog.EventImported
	// AuditClaimRefused: somebody showed wrong owner tokens, so many times.
	AuditClaimRefused AuditEvent = "device.claim_refused"
	// AuditDeviceAttempt and AuditOrgAttempt: people or programs were refused something
	// at the management API, so many times since the last such entry; the first is
	// about a device, the second about credentials of the organisation.
	AuditDeviceAttempt AuditEvent = "device.attempt_refused"
	AuditOrgAttempt    AuditEvent = "org.attempt_refused"
	// AuditKeysChanged: a server serves with other generations of keys than before.
	AuditKeysChanged AuditEvent = "keys.changed"
	// AuditMasterServed: a server has a master key that none had before.
	AuditMasterServed AuditEvent = "keys.master_served"
)

// CustodyDevice is who has and had a device, as the custody log asks.
type CustodyDevice struct {
	ID              DeviceID
	JoinEUI, DevEUI lorawan.EUI64
	Owner           OrgID // now; zero where it was deleted
	// Owners are all who ever had it, the maker first, by epoch of ownership.
	Owners []PastOwner
	// Manifest is the signed entry with which it was imported; nil for none.
	Manifest []byte
	// Import is how its import stands in the log; nil where it came before the log
	// told.
	Import *CustodyImport
}

// CustodyImport is where a device stands in the entry of its import.
type CustodyImport struct {
	Entry  LogRef
	Leaves [][32]byte // of all rows of the run
	Row    int64      // of the device among them
	Device auditlog.ImportedDevice
	// Told is the entry that says who imported the run; 0 where there is none.
	Told LogRef
}

// PastOwner is who had a device in an epoch of ownership.
type PastOwner struct {
	Epoch uint32
	Org   OrgID
	Name  string
	// Nonce opens the commitment to Name in the log; nil from before there was one.
	Nonce []byte
}

// Had tells whether an organisation has or had the device.
func (d CustodyDevice) Had(org OrgID) bool {
	for _, o := range d.Owners {
		if org != 0 && o.Org == org {
			return true
		}
	}
	return false
}

// sharedEvents are those that every later owner of a device reads, whoever had it
// then: what became of its keys, who asked for that and who approved it, and of whom it
// came. They name no other device, and who did it by an identifier: entries that name a
// person can be erased.
var sharedEvents = map[AuditEvent]bool{
	AuditOwnerLinked: true, AuditKeysExposed: true, AuditKeysTold: true, AuditLogRestarted: true, AuditEntryErased: true, AuditDeviceImported: true,
	AuditRekeySent: true, AuditRekeyTicket: true, AuditRekeyObeyed: true, AuditRekeyHandedOver: true, AuditRekeyConfirmed: true,

	AuditExportRequested: true, AuditExportApproved: true, AuditExportRejected: true, AuditExportWithdrawn: true,
	AuditExportReady: true, AuditExportDelivered: true, AuditExportExpired: true,
	AuditRekeyRequested: true, AuditRekeyApproved: true, AuditRekeyRejected: true, AuditRekeyArmed: true,
	AuditRekeyBatchRequested: true, AuditRekeyBatchApproved: true, AuditRekeyBatchRejected: true, AuditRekeyBatchWithdrawn: true, AuditRekeyBatchDone: true,
}

// SharedWithLaterOwners tells whether later owners of a device read entries of an
// event.
func SharedWithLaterOwners(e AuditEvent) bool { return sharedEvents[e] }
