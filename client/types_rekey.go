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

// NewHandover asks for new root keys, sealed to another Join Server.
type NewHandover struct {
	To        joinery.JoinServerID `json:"to,omitzero" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"The pinned Join Server that the orders name"`
	Recipient joinery.RecipientID  `json:"recipient,omitzero" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"Or the recipient that they name"`
	Devices   []joinery.DeviceID   `json:"devices" nullable:"false" minItems:"1" maxItems:"200" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Devices that the caller holds"`
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
	File []byte `json:"file" doc:"The file, in base64"`
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
