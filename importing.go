package joinery

import (
	"crypto/sha256"
	"time"

	"joinery/lorawan"
)

// ImportKind tells what is imported.
type ImportKind string

// Import kinds.
const (
	ImportManifest ImportKind = "manifest" // signed elements, roots derived
	ImportKeyList  ImportKind = "key-list" // ordinary devices, roots sealed to the transport key
)

// Import is the state of importing one file: it is found again by its hash, so
// that an import cut off at any place goes on where it stood.
type Import struct {
	ID     ImportID
	Org    OrgID
	Kind   ImportKind
	SHA256 [sha256.Size]byte // of the file as uploaded
	// MACVersion is the provisioned version of all elements of a manifest.
	MACVersion lorawan.MACVersion
	// Rekey is how all elements of a manifest rekey of which it says nothing, by the
	// importer's word; zero: they do not.
	Rekey RekeyProfile
	// Bind is the binding that imported devices get; nil for none.
	Bind *Binding
	// Next is the number of rows taken; the next row has this index.
	Next      uint64
	Created   uint64
	Unchanged uint64
	Failed    uint64
	Done      bool
	CreatedAt time.Time
}

// MaxImportRows is the most rows that one transaction takes, so that joins are
// never kept waiting behind an import.
const MaxImportRows = 500

// NewDevice is one device on its way into the store.
type NewDevice struct {
	// Index is the row's index in the file, from 0; Line is what a person finds
	// it by: the line of a CSV, the number of the entry of a manifest.
	Index uint64
	Line  uint64

	Device  Device
	KeySet  KeySet
	Binding *Binding
	// Manifest is the signed entry as it came; nil for key lists. Signer signed it.
	Manifest []byte
	Serial   string
	Signer   SignerID
	// Told is what the Join Server said that exported it; nil for none.
	Told *Told
}

// RowStatus is the fate of one imported row.
type RowStatus string

// Row statuses.
const (
	RowCreated   RowStatus = "created"
	RowUnchanged RowStatus = "unchanged" // the same device from the same owner is there
	RowFailed    RowStatus = "failed"
	RowConflict  RowStatus = "conflict" // it is there and somebody else's, who is not named; counts as failed
)

// Refused tells whether a row was not taken.
func (s RowStatus) Refused() bool { return s == RowFailed || s == RowConflict }

// RowResult tells what became of one row.
type RowResult struct {
	Index   uint64
	Line    uint64
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
	Serial  string   // of the element, if a manifest's entry could be read
	Device  DeviceID // of created and unchanged rows
	Status  RowStatus
	Reason  string // of refused rows; names what is wrong, never a value of a key
	Warning string // of rows that were taken: what a person may want to look into; not kept
}

// ImportRows is a run of rows of one import that the store takes in one
// transaction: rows [From, From+Count) of which Devices passed and Failed did
// not. From must be the import's Next.
type ImportRows struct {
	Import  ImportID
	From    uint64
	Count   uint64
	Devices []NewDevice
	Failed  []RowResult
	Last    bool
}
