package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// MaxExportDevices is the most devices that one request names.
const MaxExportDevices = 10_000

// MaxCustodyDevices is the most devices of one HandInExport.
const MaxCustodyDevices = joinery.MaxExportRows

// NewRecipient registers a public key to which root keys may be exported.
type NewRecipient struct {
	Name string `json:"name" minLength:"1" maxLength:"64" doc:"What people call it"`
	Kind string `json:"kind,omitzero" enum:"file,join-server" doc:"file: its holder opens the keys; join-server: the transport key of another Joinery, which imports them. Absent: file"`
	Key  string `json:"key" minLength:"1" maxLength:"8192" doc:"The public key: RSA of 3072 to 8192 bits, or P-256; PEM or a JSON Web Key"`
	SHA1 bool   `json:"sha1,omitzero" doc:"The key is in a token that knows no other OAEP than that with SHA-1"`
}

// Recipient is a public key to which root keys may be exported.
type Recipient struct {
	ID         joinery.RecipientID `json:"id" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"Identifier"`
	Name       string              `json:"name" doc:"What people call it"`
	Kind       string              `json:"kind" enum:"file,join-server" doc:"Who opens what is exported to it"`
	Thumbprint string              `json:"thumbprint" pattern:"^[A-Za-z0-9_-]{43}$" doc:"Thumbprint of the key (RFC 7638, SHA-256)"`
	Key        string              `json:"key" doc:"The public key, PEM"`
	SHA1       bool                `json:"sha1" doc:"Whether OAEP with SHA-1 may be used"`
	AddedBy    string              `json:"addedBy" doc:"Who registered it"`
	CreatedAt  time.Time           `json:"createdAt" doc:"When"`
}

// NewExportPolicy says when exports need another person.
type NewExportPolicy struct {
	Approval string `json:"approval" enum:"never,auto,always" doc:"never: whoever may ask has it; auto: another admin approves wherever there is one; always: without another admin nothing is exported"`
}

// ExportPolicy says when exports need another person.
type ExportPolicy struct {
	Approval   string    `json:"approval" enum:"never,auto,always" doc:"What holds now"`
	Next       string    `json:"next,omitzero" enum:"never,auto" doc:"The weaker rule that is to take over"`
	NextFrom   time.Time `json:"nextFrom,omitzero" doc:"From when; absent while it waits for another admin's approval"`
	ProposedBy string    `json:"proposedBy,omitzero" doc:"Who proposed it"`
	Admins     int       `json:"admins" doc:"How many people of the organisation could approve"`
	Needed     bool      `json:"needed" doc:"Whether an export that the caller asks for now needs another person"`
}

// ExportSelection selects devices of the organisation.
type ExportSelection struct {
	JoinEUI lorawan.EUI64 `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Only devices with this JoinEUI"`
	DevEUI  string        `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{1,16}$" patternDescription:"1 to 16 hexadecimal digits" doc:"Only devices whose DevEUI begins so"`
	Status  string        `json:"status,omitzero" enum:"active,unbound,suspended" doc:"Only devices that stand so"`
}

// NewExport asks for the root keys of devices.
type NewExport struct {
	Recipient joinery.RecipientID `json:"recipient" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"To whom"`
	Form      string              `json:"form,omitzero" enum:"raw,jwe,seal" doc:"Form of the wrapped keys; absent: the best that there is"`
	Devices   []DeviceRef         `json:"devices,omitempty" maxItems:"10000" nullable:"false" doc:"Which devices"`
	Select    *ExportSelection    `json:"select,omitempty" doc:"Or all devices of the organisation that are so"`
	More      bool                `json:"more,omitzero" doc:"More devices follow, with addExportDevices"`
}

// MoreExportDevices adds devices to an export that was requested with more.
type MoreExportDevices struct {
	Devices []DeviceRef `json:"devices" maxItems:"10000" nullable:"false" doc:"Which devices; those that are in it already stay as they are"`
	More    bool        `json:"more,omitzero" doc:"More follow; else the export is complete"`
}

// Export is a request for the root keys of devices.
type Export struct {
	ID            joinery.ExportID    `json:"id" pattern:"^exp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"exp_ and 13 characters" doc:"Identifier"`
	Organisation  joinery.OrgID       `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose devices they are"`
	State         string              `json:"state" enum:"collecting,requested,approved,working,ready,delivered,rejected,withdrawn,expired,failed" doc:"Where it stands"`
	WaitsFor      string              `json:"waitsFor,omitzero" enum:"approval,custody-key" doc:"What has to come before it goes on: another person, or the custody process with its key"`
	Recipient     joinery.RecipientID `json:"recipient" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"To whom"`
	RecipientName string              `json:"recipientName" doc:"What people call the recipient"`
	Kind          string              `json:"kind" enum:"file,join-server" doc:"Who opens it"`
	Thumbprint    string              `json:"thumbprint" pattern:"^[A-Za-z0-9_-]{43}$" doc:"Thumbprint of the recipient's key"`
	Form          string              `json:"form,omitzero" enum:"raw,jwe,seal" doc:"Form of the wrapped keys, where it was asked for"`
	Devices       int64               `json:"devices" doc:"Devices in the set"`
	Wrapped       int64               `json:"wrapped" doc:"Of them, those whose keys were wrapped, and so disclosed"`
	Dropped       int64               `json:"dropped" doc:"Of them, those that were left out"`
	Digest        string              `json:"digest,omitzero" pattern:"^[0-9a-f]{64}$" doc:"SHA-256 over 'joinery export devices 1', a zero byte, and JoinEUI and DevEUI (8 bytes each) of each device in order; absent while devices are added"`
	Signer        string              `json:"signer,omitzero" pattern:"^[A-Za-z0-9_-]{43}$" doc:"Thumbprint of the key that signs the file"`
	NeedsApproval bool                `json:"needsApproval" doc:"Whether another person has to approve it, or had to"`
	RequestedBy   string              `json:"requestedBy" doc:"Who asked"`
	RequestedAt   time.Time           `json:"requestedAt" doc:"When"`
	DecidedBy     string              `json:"decidedBy,omitzero" doc:"Who approved or rejected it"`
	DecidedAt     time.Time           `json:"decidedAt,omitzero" doc:"When"`
	Note          string              `json:"note,omitzero" doc:"Why it was rejected or failed, or why devices of it wait on"`
	ReadyAt       time.Time           `json:"readyAt,omitzero" doc:"Since when it can be downloaded"`
	EndedAt       time.Time           `json:"endedAt,omitzero" doc:"When it ended; what was wrapped is deleted then"`
	ExpiresAt     time.Time           `json:"expiresAt" doc:"When it ends by itself, in the state where it is"`
}

// ExportApproval approves exactly what was looked at.
type ExportApproval struct {
	Digest     string `json:"digest" pattern:"^[0-9a-f]{64}$" doc:"Digest of the devices, as the export has it"`
	Thumbprint string `json:"thumbprint" pattern:"^[A-Za-z0-9_-]{43}$" doc:"Thumbprint of the recipient's key"`
}

// ExportRejection rejects an export.
type ExportRejection struct {
	Note string `json:"note,omitzero" maxLength:"1000" doc:"Why"`
}

// ExportItem is one device of an export.
type ExportItem struct {
	Index   int64            `json:"index" doc:"Its place in the set, from 0"`
	Device  joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI  lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	State   string           `json:"state" enum:"waiting,wrapped,dropped" doc:"Where it stands"`
	Reason  string           `json:"reason,omitzero" doc:"Why it was left out"`
}

// ExportFilePage is a part of the file of an export. The file is the header and
// then all devices, each a line.
type ExportFilePage struct {
	Header string   `json:"header,omitzero" doc:"The first line of the file; absent where no device of the export is left"`
	Items  []string `json:"items" nullable:"false" doc:"Lines of devices"`
	Next   string   `json:"next,omitzero" doc:"Where the next page begins; absent after the last"`
}

// Disclosure is one time that root keys of a device were disclosed.
type Disclosure struct {
	KeySet       joinery.KeySetID `json:"keySet,omitzero" pattern:"^kst_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kst_ and 13 characters" doc:"The key set, if it was here"`
	Organisation joinery.OrgID    `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who held the device here, and had its keys exported"`
	At           time.Time        `json:"at" doc:"When"`
	Recipient    string           `json:"recipient" doc:"Thumbprint of the key to which they were encrypted"`
	Kind         string           `json:"kind" enum:"file,join-server" doc:"Who opens them"`
	Export       joinery.ExportID `json:"export,omitzero" pattern:"^exp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"exp_ and 13 characters" doc:"The export, if it was here"`
	Rekey        joinery.RekeyID  `json:"rekey,omitzero" pattern:"^rky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rky_ and 13 characters" doc:"The order to rekey, if it was here and no export"`
	Former       bool             `json:"former,omitzero" doc:"Whether they were root keys that the device had before it derived new ones in its element: whoever has these has not the new ones"`
	ToldBy       string           `json:"toldBy,omitzero" doc:"The Join Server that told of it as the device came from there; absent: it was here"`
	By           string           `json:"by,omitzero" doc:"Of what was told: the Join Server where it was, the one that told or one before it"`
	Reference    string           `json:"reference,omitzero" doc:"Of what was told: how the server where it was calls the export or order"`
}

// CustodyExport is an export that waits for the custody process.
type CustodyExport struct {
	Export       Export `json:"export" doc:"The export"`
	RecipientKey string `json:"recipientKey" doc:"The recipient's public key, PEM"`
	Header       string `json:"header" doc:"The first line of the file, as JSON. Before the start wrapping and signer are to be filled in"`
	Started      bool   `json:"started" doc:"Whether the first line is whole, and stands"`
}

// CustodyStart fixes the first line of the file of an export.
type CustodyStart struct {
	Header string `json:"header" maxLength:"65536" doc:"The first line, as JSON"`
}

// CustodyExportItem is a device whose root keys are to be wrapped.
type CustodyExportItem struct {
	Index        int64            `json:"index" doc:"Its place in the set, from 0"`
	KeySet       joinery.KeySetID `json:"keySet" pattern:"^kst_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kst_ and 13 characters" doc:"The key set"`
	DevEUI       lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	Origin       string           `json:"origin" enum:"derived,sealed,rekeyed" doc:"Where its root keys come from"`
	Master       string           `json:"master,omitzero" doc:"Name of the master key of derived ones"`
	Generation   uint32           `json:"generation" doc:"Generation of derived ones"`
	Root10       string           `json:"root10" enum:"NwkKey,AppKey" doc:"The root key that serves LoRaWAN 1.0.x"`
	RekeyProfile string           `json:"rekeyProfile,omitzero" enum:"S,M" doc:"By what rekeyed ones follow"`
	Serial       string           `json:"serial,omitzero" doc:"Serial number of the chip, in hexadecimal, of rekeyed ones of profile M"`
	Steps        []RekeyStep      `json:"steps,omitzero" doc:"The instructions that led to rekeyed ones, the first one first"`
	Nwk          []byte           `json:"nwk,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"NwkKey, sealed to the custody key"`
	App          []byte           `json:"app,omitzero" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" doc:"AppKey, sealed to the custody key"`
	About        string           `json:"about" doc:"What is to be signed about the device, as JSON: identifiers, version and nonces"`
}

// RekeyStep is one instruction that a device obeyed.
type RekeyStep struct {
	NewJoinEUI lorawan.EUI64  `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which it was to join"`
	Cookie     lorawan.Cookie `json:"cookie" pattern:"^[0-9A-Fa-f]{14}$" patternDescription:"14 hexadecimal digits" doc:"Its cookie"`
}

// CustodyDone is what became of one device.
type CustodyDone struct {
	Index  int64            `json:"index" minimum:"0" maximum:"99999" doc:"Its place in the set"`
	KeySet joinery.KeySetID `json:"keySet" pattern:"^kst_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kst_ and 13 characters" doc:"The key set"`
	Line   string           `json:"line,omitzero" doc:"Its line of the file"`
	Failed string           `json:"failed,omitzero" enum:"does-not-open,not-allowed,no-key,not-wrappable" doc:"Or why there is none"`
}

// CustodyHandIn is devices that were wrapped, or could not be.
type CustodyHandIn struct {
	Devices []CustodyDone `json:"devices" maxItems:"200" nullable:"false" doc:"Devices, rising by index"`
}

// CustodyWord is what the custody process has to say of an export.
type CustodyWord struct {
	Why    string `json:"why" minLength:"1" maxLength:"1000" doc:"Why nothing of it can be wrapped, or why devices of it wait on"`
	Failed bool   `json:"failed,omitzero" doc:"Nothing of it can be wrapped: it ends"`
}

// ExportSigner is a key that signs exports of this server, or once did.
type ExportSigner struct {
	Server     string `json:"server" doc:"The server's name, as it stands in its files"`
	Thumbprint string `json:"thumbprint" pattern:"^[A-Za-z0-9_-]{43}$" doc:"Thumbprint of the key (RFC 7638, SHA-256)"`
	Key        string `json:"key" doc:"The public key: P-256, PEM"`
	Signs      bool   `json:"signs" doc:"Whether new exports are signed by it; others signed older ones"`
}
