package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// Rekeying is how the rekeying of a device stands.
type Rekeying struct {
	Profile string `json:"profile" enum:"none,S,M" doc:"How the device derives its next root keys; none: it cannot, or nobody said so"`
	Word    string `json:"word,omitzero" enum:"owner,importer,manifest,device" doc:"By whose word: its owner's alone (then each order is sent a few times), who imported it, its signed manifest, or its own, which did it here"`
	// Generation and Candidates tell what keys the device has.
	Generation uint32       `json:"generation" doc:"How often the device is known to have been rekeyed since it was made"`
	Candidates uint32       `json:"candidates" doc:"How many other key sets it may have by now: of instructions that were sent"`
	Exposed    bool         `json:"exposed" doc:"Whether a root key was ever disclosed: whoever has it can forge an instruction, and so strand the device"`
	Orders     []RekeyOrder `json:"orders" nullable:"false" doc:"Orders to rekey it, newest first"`
}

// RekeyOrder is an order to have a device derive new root keys and join at another
// Join Server.
type RekeyOrder struct {
	ID          joinery.RekeyID      `json:"id" pattern:"^rky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rky_ and 13 characters" doc:"Identifier"`
	State       string               `json:"state" enum:"requested,armed,sent,confirmed,cancelled,rejected,expired" doc:"How far it has come; requested: it waits for another person"`
	NewJoinEUI  lorawan.EUI64        `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which the device is to join"`
	Cookie      lorawan.Cookie       `json:"cookie" pattern:"^[0-9A-Fa-f]{14}$" patternDescription:"14 hexadecimal digits" doc:"What makes this rekeying different from others; no secret"`
	To          string               `json:"to" doc:"Name of the Join Server, or of the recipient, to which the new root keys go"`
	Server      joinery.JoinServerID `json:"server,omitzero" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"That Join Server; absent: a recipient"`
	Recipient   joinery.RecipientID  `json:"recipient,omitzero" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"The recipient; absent: a pinned Join Server"`
	Thumbprint  string               `json:"thumbprint,omitzero" doc:"Names the key to which they go: of a Join Server's transport key base64url of SHA-256 of its DER, of a recipient's that of RFC 7638"`
	By          string               `json:"by" doc:"Who gave the order"`
	At          time.Time            `json:"at" doc:"When"`
	DecidedBy   string               `json:"decidedBy,omitzero" doc:"Who approved or rejected it; absent: nobody did, or had to"`
	ArmedAt     time.Time            `json:"armedAt,omitzero" doc:"When it was armed; absent: it was not"`
	ExpiresAt   time.Time            `json:"expiresAt" doc:"From when on it is not sent any more"`
	Sent        uint32               `json:"sent" doc:"How many join-accepts or tickets carried it"`
	FirstSentAt time.Time            `json:"firstSentAt,omitzero" doc:"When the first one did"`
	LastSentAt  time.Time            `json:"lastSentAt,omitzero" doc:"When the last one did"`
	EndedAt     time.Time            `json:"endedAt,omitzero" doc:"When it was confirmed or cancelled"`
	RekeyKey    bool                 `json:"rekeyKey,omitzero" doc:"Whether the next rekeying key goes there, too"`
	Passage     *Passage             `json:"passage,omitzero" doc:"How far its hand-over has come, where this server sees to it"`
}

// RekeyProfile says how a device rekeys.
type RekeyProfile struct {
	Profile string `json:"profile" enum:"none,S,M" doc:"S: one AES encryption under a rekeying key for each new key; M: the chip family's DeriveKey"`
}

// NewRekeyOrder asks to rekey a device.
type NewRekeyOrder struct {
	NewJoinEUI lorawan.EUI64        `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which the device is to join: one of the other Join Server's"`
	To         joinery.JoinServerID `json:"to,omitzero" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"The pinned Join Server to which the new root keys go"`
	Recipient  joinery.RecipientID  `json:"recipient,omitzero" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"Instead of it a recipient of the organisation's, whose key is RSA: its holder reads the new root keys, and the device says for ever that they were disclosed"`
	Days       uint32               `json:"days,omitzero" maximum:"366" doc:"For how long it is sent; without it 90 days"`
	RekeyKey   bool                 `json:"rekeyKey,omitzero" doc:"Hand the next rekeying key over, too, so that the device can be rekeyed from there: whoever has it can compute all root keys that come after"`
}

// RekeyDevices names devices with an order to rekey.
type RekeyDevices struct {
	Devices []joinery.DeviceID `json:"devices" nullable:"false" minItems:"1" maxItems:"200" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Devices that the caller holds"`
}

// NewRekeyTicket asks for a ticket for the bench.
type NewRekeyTicket struct {
	Devices []joinery.DeviceID `json:"devices" nullable:"false" minItems:"1" maxItems:"200" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Devices that the caller holds"`
	// LeaveOut is for whoever asks for many.
	LeaveOut bool `json:"leaveOut,omitzero" doc:"Leave out devices without an open order, and say so, instead of refusing the ticket"`
}

// NewHandover asks for new root keys, sealed to another Join Server.
type NewHandover struct {
	To        joinery.JoinServerID `json:"to,omitzero" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"The pinned Join Server that the orders name"`
	Recipient joinery.RecipientID  `json:"recipient,omitzero" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"Or the recipient that they name"`
	Devices   []joinery.DeviceID   `json:"devices" nullable:"false" minItems:"1" maxItems:"200" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Devices that the caller holds"`
	LeaveOut  bool                 `json:"leaveOut,omitzero" doc:"Leave out devices of which nothing can be handed over, and say so, instead of refusing"`
}

// NewRekeyBatch asks to rekey many devices.
type NewRekeyBatch struct {
	NewJoinEUI lorawan.EUI64        `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which the device is to join: one of the other Join Server's"`
	To         joinery.JoinServerID `json:"to,omitzero" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"The pinned Join Server to which the new root keys go"`
	Recipient  joinery.RecipientID  `json:"recipient,omitzero" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"Instead of it a recipient of the organisation's, whose key is RSA: its holder reads the new root keys, and the device says for ever that they were disclosed"`
	Days       uint32               `json:"days,omitzero" maximum:"366" doc:"For how long it is sent; without it 90 days"`
	RekeyKey   bool                 `json:"rekeyKey,omitzero" doc:"Hand the next rekeying key over, too, so that the device can be rekeyed from there: whoever has it can compute all root keys that come after"`
	Devices    []DeviceRef          `json:"devices,omitzero" nullable:"false" maxItems:"10000" doc:"Devices of the organisation; more of them by further calls"`
	Select     *ExportSelection     `json:"select,omitempty" doc:"Instead of devices by name: all of the organisation that this selects"`
	More       bool                 `json:"more,omitzero" doc:"Keep the batch open for more devices"`
}

// MoreRekeyDevices adds devices to a batch.
type MoreRekeyDevices struct {
	Devices []DeviceRef `json:"devices" nullable:"false" maxItems:"10000" doc:"Devices of the organisation"`
	More    bool        `json:"more,omitzero" doc:"Keep the batch open for more devices; without it the batch is complete"`
}

// MaxRekeyRefs is the most devices that one call names.
const MaxRekeyRefs = 10_000

// RekeyBatch is an order to rekey many devices: each gets an order of its own.
type RekeyBatch struct {
	ID            joinery.RekeyBatchID `json:"id" pattern:"^rkb_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rkb_ and 13 characters" doc:"Identifier"`
	State         string               `json:"state" enum:"collecting,requested,approved,done,rejected,withdrawn,expired" doc:"Where it stands; approved: the server arms one device after another"`
	NewJoinEUI    lorawan.EUI64        `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which the devices are to join"`
	To            string               `json:"to" doc:"Name of the Join Server, or of the recipient, to which the new root keys go"`
	Recipient     joinery.RecipientID  `json:"recipient,omitzero" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"The recipient; absent: a pinned Join Server"`
	Thumbprint    string               `json:"thumbprint" doc:"Names the key to which they go, as in orders"`
	RekeyKey      bool                 `json:"rekeyKey,omitzero" doc:"Whether the next rekeying keys go there, too"`
	Days          uint32               `json:"days" doc:"For how long each order is sent"`
	Devices       int64                `json:"devices" doc:"How many devices it has"`
	Armed         int64                `json:"armed" doc:"Of them, those that have their order"`
	Failed        int64                `json:"failed" doc:"Of them, those that have none, each with its reason"`
	Digest        string               `json:"digest,omitzero" pattern:"^[0-9a-f]{64}$" doc:"Of the devices in their order, as of an export; absent while devices are added"`
	NeedsApproval bool                 `json:"needsApproval" doc:"Whether another person has to approve it, or had to"`
	RequestedBy   string               `json:"requestedBy" doc:"Who asked"`
	RequestedAt   time.Time            `json:"requestedAt" doc:"When"`
	DecidedBy     string               `json:"decidedBy,omitzero" doc:"Who approved or rejected it"`
	DecidedAt     time.Time            `json:"decidedAt,omitzero" doc:"When"`
	Note          string               `json:"note,omitzero" doc:"Why it was rejected"`
	EndedAt       time.Time            `json:"endedAt,omitzero" doc:"When it ended"`
	ExpiresAt     time.Time            `json:"expiresAt,omitzero" doc:"When it ends by itself, while it is collected or waits for another person"`
	Absent        []int                `json:"absent,omitzero" nullable:"false" doc:"In the answer to who names devices: the places of those that the organisation does not hold"`
}

// RekeyBatchItem is one device of a batch, and what became of it.
type RekeyBatchItem struct {
	Index   int64            `json:"index" doc:"Its place in the set, from 0"`
	Device  joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI  lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	State   string           `json:"state" enum:"waiting,armed,failed" doc:"Where it stands"`
	Order   joinery.RekeyID  `json:"order,omitzero" pattern:"^rky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rky_ and 13 characters" doc:"The order that it got, or had to the same effect"`
	Code    joinery.Code     `json:"code,omitzero" doc:"What kind of refusal it was"`
	Reason  string           `json:"reason,omitzero" doc:"Why it has none"`
}

// RekeyBatchApproval approves exactly what was looked at.
type RekeyBatchApproval struct {
	Digest     string        `json:"digest" pattern:"^[0-9a-f]{64}$" doc:"Digest of the devices, as the batch has it"`
	NewJoinEUI lorawan.EUI64 `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which they are to join"`
	Thumbprint string        `json:"thumbprint" minLength:"43" maxLength:"43" doc:"Of the key to which their new root keys are to go"`
	RekeyKey   bool          `json:"rekeyKey,omitzero" doc:"Whether the next rekeying keys are to go there, too, as the batch says"`
}

// RekeyBatchRejection rejects a batch.
type RekeyBatchRejection struct {
	Note string `json:"note,omitzero" maxLength:"1000" doc:"Why"`
}

// RekeyRequest is an order to rekey that waits for another person.
type RekeyRequest struct {
	Device  joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its present JoinEUI"`
	DevEUI  lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its DevEUI"`
	Order   RekeyOrder       `json:"order" doc:"What was asked for"`
}

// RekeyApproval approves orders to rekey: what the approver looked at.
type RekeyApproval struct {
	Devices    []joinery.DeviceID `json:"devices" nullable:"false" minItems:"1" maxItems:"200" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Exactly the devices whose orders are approved"`
	NewJoinEUI lorawan.EUI64      `json:"newJoinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"At which they are to join"`
	Thumbprint string             `json:"thumbprint" minLength:"43" maxLength:"43" doc:"Of the key to which their new root keys are to go"`
	RekeyKey   bool               `json:"rekeyKey,omitzero" doc:"Whether the next rekeying keys are to go there, too, as the orders say"`
}

// RekeyOrders is orders to rekey.
type RekeyOrders struct {
	Orders []RekeyOrder `json:"orders" nullable:"false" doc:"The orders"`
}

// Rejected is how many orders to rekey, or devices that were handed over, were rejected.
type Rejected struct {
	Rejected int `json:"rejected" doc:"Orders, or devices that were handed over"`
}

// RekeyFile is a file of rekeying as docs/handover.md has it.
type RekeyFile struct {
	File    []byte         `json:"file,omitzero" doc:"The file, in base64; absent where every device was left out"`
	Devices int            `json:"devices,omitzero" doc:"How many devices it has"`
	LeftOut []RekeyLeftOut `json:"leftOut,omitzero" nullable:"false" doc:"Those that it does not have, where that was asked for"`
}

// RekeyLeftOut is a device that is not in a file, and why.
type RekeyLeftOut struct {
	Device joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	Code   joinery.Code     `json:"code" doc:"What kind of refusal it was"`
	Reason string           `json:"reason" doc:"Why"`
}

// RekeyResults is what the bench made of a ticket.
type RekeyResults struct {
	Results []RekeyResult `json:"results" nullable:"false" maxItems:"200" doc:"By order"`
}

// RekeyResult is what became of one order at the bench.
type RekeyResult struct {
	Order   joinery.RekeyID `json:"order" pattern:"^rky_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rky_ and 13 characters" doc:"The order"`
	DevEUI  lorawan.EUI64   `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its device"`
	Rekeyed bool            `json:"rekeyed" doc:"Whether the element derived, and has its new JoinEUI"`
	Error   string          `json:"error,omitzero" maxLength:"500" doc:"Why not"`
}

// Confirmed is how many orders to rekey are confirmed.
type Confirmed struct {
	Confirmed int `json:"confirmed" doc:"Orders that are confirmed, those that were already counted"`
}

// ArrivedDevices is devices that another Join Server handed over, and joined here or not.
type ArrivedDevices struct {
	Devices []ArrivedDevice `json:"devices" nullable:"false" minItems:"1" maxItems:"200" doc:"The devices"`
}

// ArrivedDevice is one of them, and its order there.
type ArrivedDevice struct {
	Device joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device here"`
	Order  string           `json:"order" maxLength:"64" doc:"The order there, as the hand-over has it"`
	Cookie lorawan.Cookie   `json:"cookie" pattern:"^[0-9A-Fa-f]{14}$" patternDescription:"14 hexadecimal digits" doc:"As the hand-over has it"`
}

// JoinServer is another Join Server to which new root keys may go.
type JoinServer struct {
	ID           joinery.JoinServerID `json:"id" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"Identifier"`
	Name         string               `json:"name" example:"joins.example.com" doc:"Name"`
	TransportKey []byte               `json:"transportKey" doc:"To what keys are sealed that go there: SubjectPublicKeyInfo, DER in base64"`
	SHA1         bool                 `json:"sha1" doc:"Whether keys are sealed to it by OAEP with SHA-1, as that key then says: the token here, or there, knows no other"`
	ReceiptKey   []byte               `json:"receiptKey,omitzero" doc:"What signs its receipts, the same; absent: it gives none"`
	URL          string               `json:"url,omitzero" maxLength:"500" example:"https://joins.example.com" doc:"Where it is reached, so that orders are handed over by themselves; absent: by files"`
	Identity     *Credential          `json:"identity,omitzero" doc:"By what its certificate is known, as who is called and as who calls"`
	Theirs       []EUIRange           `json:"theirs,omitzero" nullable:"false" maxItems:"64" doc:"JoinEUIs that are its own: only there may devices be ordered to go; absent: to any"`
	Ours         []EUIRange           `json:"ours,omitzero" nullable:"false" maxItems:"64" doc:"JoinEUIs of this server into which it may hand devices over; absent: none"`
	CreatedAt    time.Time            `json:"createdAt" doc:"When it was pinned"`
}

// NewJoinServer asks to pin a Join Server.
type NewJoinServer struct {
	Name         string      `json:"name" minLength:"1" maxLength:"100" example:"joins.example.com" doc:"Name; unique on this server"`
	TransportKey []byte      `json:"transportKey" doc:"To what keys are sealed that go there: SubjectPublicKeyInfo, DER in base64"`
	SHA1         bool        `json:"sha1,omitzero" doc:"Seal to it by OAEP with SHA-1, because the token of this server knows no other; the key has another thumbprint then"`
	ReceiptKey   []byte      `json:"receiptKey,omitzero" doc:"What signs its receipts, the same"`
	URL          string      `json:"url,omitzero" maxLength:"500" example:"https://joins.example.com" doc:"Where it is reached, so that orders are handed over by themselves; absent: by files"`
	Identity     *Credential `json:"identity,omitzero" doc:"By what its certificate is known, as who is called and as who calls"`
	Theirs       []EUIRange  `json:"theirs,omitzero" nullable:"false" maxItems:"64" doc:"JoinEUIs that are its own: only there may devices be ordered to go; absent: to any"`
	Ours         []EUIRange  `json:"ours,omitzero" nullable:"false" maxItems:"64" doc:"JoinEUIs of this server into which it may hand devices over; absent: none"`
}

// StatementKey verifies what this Join Server says to others.
type StatementKey struct {
	PublicKey []byte `json:"publicKey" doc:"SubjectPublicKeyInfo (P-256), DER in base64"`
}
