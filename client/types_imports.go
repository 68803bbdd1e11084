package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// MaxImportRows is the most rows of one ImportRows.
const MaxImportRows = joinery.MaxImportRows

// Import is the state of importing one file.
type Import struct {
	ID           joinery.ImportID   `json:"id" pattern:"^imp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"imp_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID      `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"For whom"`
	Kind         string             `json:"kind" enum:"manifest,key-list" doc:"What is imported"`
	SHA256       string             `json:"sha256" doc:"SHA-256 of the file, in hexadecimal: the same file goes on where it stood"`
	MACVersion   lorawan.MACVersion `json:"macVersion,omitzero" doc:"Provisioned version of a manifest's elements"`
	RekeyProfile string             `json:"rekeyProfile,omitzero" enum:"S,M" doc:"How its elements rekey of which it says nothing, by the word of who imports them"`
	Binding      *Binding           `json:"binding,omitempty" doc:"Binding that imported devices get; absent: none"`
	Next         uint64             `json:"next" doc:"Rows taken so far: the index of the next row"`
	Created      uint64             `json:"created" doc:"Devices made"`
	Unchanged    uint64             `json:"unchanged" doc:"Rows whose device was there already, of the same owner"`
	Failed       uint64             `json:"failed" doc:"Rows refused"`
	Done         bool               `json:"done" doc:"Whether the last row was taken"`
	CreatedAt    time.Time          `json:"createdAt" doc:"When it began"`
}

// NewImport begins an import, or finds the one that was begun for the same file.
type NewImport struct {
	Kind       string             `json:"kind" enum:"manifest,key-list" doc:"What is imported"`
	SHA256     string             `json:"sha256" pattern:"^[0-9a-fA-F]{64}$" patternDescription:"64 hexadecimal digits" doc:"SHA-256 of the file, in hexadecimal"`
	MACVersion lorawan.MACVersion `json:"macVersion,omitzero" enum:"1.0,1.0.0,1.0.1,1.0.2,1.0.3,1.0.4,1.1,1.1.0" doc:"For a manifest: the LoRaWAN version that its elements' devices are provisioned with"`
	// RekeyProfile is for manifests.
	RekeyProfile string      `json:"rekeyProfile,omitzero" enum:"S,M" doc:"For a manifest: how its elements rekey of which it says nothing itself; absent: they do not"`
	Binding      *NewBinding `json:"binding,omitempty" doc:"Bind every imported device; absent: bind none"`
	DryRun       bool        `json:"dryRun,omitzero" doc:"Check the rows and store nothing"`
}

// SealedKeyRow is one device of a key list, its root keys sealed.
type SealedKeyRow struct {
	Line           uint64             `json:"line" minimum:"0" maximum:"9007199254740991" doc:"Line of the row in the file, for messages"`
	JoinEUI        lorawan.EUI64      `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI         lorawan.EUI64      `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	MACVersion     lorawan.MACVersion `json:"macVersion" enum:"1.0.0,1.0.1,1.0.2,1.0.3,1.0.4,1.1.0" doc:"Provisioned LoRaWAN version"`
	NwkKey         []byte             `json:"nwkKey,omitzero" minLength:"4" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"64" doc:"NwkKey, wrapped under the file key"`
	AppKey         []byte             `json:"appKey,omitzero" minLength:"4" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"64" doc:"AppKey, wrapped under the file key"`
	Root10         string             `json:"root10" enum:"NwkKey,AppKey" doc:"The root key that serves LoRaWAN 1.0.x"`
	UsedDevNonces  []lorawan.DevNonce `json:"usedDevNonces,omitzero" nullable:"false" maxItems:"65536" minimum:"0" maximum:"65535" doc:"DevNonces that the device used elsewhere already"`
	JoinNonceFloor lorawan.JoinNonce  `json:"joinNonceFloor,omitzero" minimum:"0" maximum:"16777215" doc:"Last JoinNonce that another Join Server issued to it"`
	NextRJCount1   uint32             `json:"nextRJcount1,omitzero" minimum:"0" maximum:"65536" doc:"One above the last RJcount1 that another Join Server accepted"`
	Former         []FormerNonces     `json:"former,omitzero" nullable:"false" maxItems:"63" doc:"What the device used up under JoinEUIs that it had before, in their order"`
	MAC            []byte             `json:"mac" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" minLength:"24" maxLength:"24" doc:"AES-CMAC over the row as it was sealed: identifiers, version, nonces and wrapped keys"`
}

// FormerNonces is what a device used up at another Join Server under a JoinEUI that
// it had before.
type FormerNonces struct {
	JoinEUI       lorawan.EUI64      `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	UsedDevNonces []lorawan.DevNonce `json:"usedDevNonces,omitzero" nullable:"false" maxItems:"65536" minimum:"0" maximum:"65535" doc:"DevNonces; of a device that counts, the last"`
	NextRJCount1  uint32             `json:"nextRJcount1,omitzero" minimum:"0" maximum:"65536" doc:"One above the last RJcount1"`
}

// BadRow is a row that could not be sealed on the customer's machine.
type BadRow struct {
	Index  uint64 `json:"index" minimum:"0" maximum:"9007199254740991" doc:"Index of the row in the file, from 0"`
	Line   uint64 `json:"line" minimum:"0" maximum:"9007199254740991" doc:"Line of the row in the file"`
	Reason string `json:"reason" minLength:"1" maxLength:"256" doc:"What is wrong; never a value"`
}

// ImportRows is a run of rows of an import. Rows that keys or entries do not
// account for are the bad ones: their indexes say where they stood.
type ImportRows struct {
	From    uint64         `json:"from" minimum:"0" maximum:"9007199254740991" doc:"Index of the first row; must be the import's 'next'"`
	Last    bool           `json:"last,omitzero" doc:"Whether the file ends with these rows"`
	Seal    *SealHeader    `json:"seal,omitempty" doc:"For a key list: how the keys of these rows are sealed"`
	Keys    []SealedKeyRow `json:"keys,omitzero" nullable:"false" maxItems:"500" doc:"Rows of a key list, in the file's order"`
	BadRows []BadRow       `json:"badRows,omitzero" nullable:"false" maxItems:"500" doc:"Rows of a key list that could not be sealed"`
	// Exported are texts and not JSON, since what was signed is all of a line.
	ExportHeader string   `json:"exportHeader,omitzero" maxLength:"4096" doc:"For devices that another Joinery exported to this one: the first line of the file"`
	Exported     []string `json:"exported,omitzero" nullable:"false" maxItems:"500" doc:"Lines of devices of that file, byte for byte, in its order, in the place of keys: what is signed in them is taken over, disclosures too. All of a request were wrapped under one key (member seal)"`
	// Entries are bytes and not JSON, so that one that is broken costs itself
	// alone, and what was signed comes through unchanged.
	Entries [][]byte `json:"entries,omitzero" nullable:"false" maxItems:"500" doc:"Entries of a manifest, byte for byte as they stand in the file, in its order; each in base64"`
}

// RowResult tells what became of one row.
type RowResult struct {
	Index   uint64           `json:"index" doc:"Index of the row in the file, from 0"`
	Line    uint64           `json:"line" doc:"Line in a key list, number of the entry in a manifest"`
	JoinEUI lorawan.EUI64    `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI, if it could be read"`
	DevEUI  lorawan.EUI64    `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI, if it could be read"`
	Serial  string           `json:"serial,omitzero" doc:"Serial number of the element, of a manifest's entry, if it could be read"`
	Device  joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device, of rows that did not fail"`
	Status  string           `json:"status" enum:"created,unchanged,failed,conflict" doc:"What became of it; a conflict, which counts as failed, is somebody else's device"`
	Reason  string           `json:"reason,omitzero" doc:"What is wrong, of rows that were refused"`
	Warning string           `json:"warning,omitzero" doc:"What may be worth a look, of rows that were taken"`
}

// ImportProgress answers ImportRows.
type ImportProgress struct {
	Results []RowResult `json:"results" nullable:"false" doc:"One for each row, in order"`
	Import  Import      `json:"import" doc:"How far the import is now"`
}
