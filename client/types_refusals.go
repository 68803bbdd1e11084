package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// Received is what a refused request said, as far as it could be read. It holds
// no key, no token and no frame.
type Received struct {
	Message         string        `json:"message,omitzero" example:"JoinReq" doc:"MessageType"`
	ProtocolVersion string        `json:"protocolVersion,omitzero" example:"1.0" doc:"Version of Backend Interfaces"`
	TransactionID   uint32        `json:"transactionID,omitzero" doc:"TransactionID"`
	SenderID        string        `json:"senderID,omitzero" doc:"SenderID, of which at most 64 characters"`
	ReceiverID      string        `json:"receiverID,omitzero" doc:"ReceiverID"`
	NetID           lorawan.NetID `json:"netID,omitzero" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" doc:"SenderID of a Network Server"`
	NSID            lorawan.EUI64 `json:"nsid,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"SenderNSID"`
	JoinEUI         lorawan.EUI64 `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI          lorawan.EUI64 `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI of the message"`
	MACVersion      string        `json:"macVersion,omitzero" example:"1.0.3" doc:"LoRaWAN version asked for"`
	OptNeg          bool          `json:"optNeg,omitzero" doc:"OptNeg in DLSettings"`
	Frame           string        `json:"frame,omitzero" enum:"join,rejoin-0,rejoin-1,rejoin-2" doc:"What the frame was; absent: none of these"`
	Count           uint16        `json:"count,omitzero" maximum:"65535" doc:"DevNonce or RJcount of the frame"`
	Problem         string        `json:"problem,omitzero" doc:"What is wrong with the form of the message"`
}

// Decided is the state of a device that decided, as it was at that moment.
type Decided struct {
	Bound        bool          `json:"bound" doc:"Whether it was bound to a network"`
	NetID        lorawan.NetID `json:"netID,omitzero" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" doc:"To which"`
	NSID         lorawan.EUI64 `json:"nsid,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"To which Network Server; absent: any of the network's"`
	ASID         string        `json:"asID,omitzero" doc:"AS-ID that might have AppSKey; absent: none"`
	MACVersion   string        `json:"macVersion,omitzero" example:"1.0.4" doc:"Provisioned LoRaWAN version"`
	Root10       string        `json:"root10,omitzero" enum:"NwkKey,AppKey" doc:"The root key that served LoRaWAN 1.0.x"`
	Next         uint32        `json:"next,omitzero" maximum:"65536" doc:"The lowest DevNonce or RJcount that would have been accepted, where that decided"`
	AttestLevel  string        `json:"attestLevel,omitzero" example:"L0" doc:"What it was attested as, where that decided"`
	AttestWanted string        `json:"attestWanted,omitzero" example:"L2" doc:"What its owner wanted, where that decided"`
	ServiceEnd   string        `json:"serviceEnd,omitzero" example:"2027-11-22T14:03:11Z" doc:"When its service term ended, where that decided"`
}

// Refusal is refused requests that have device, peer and reason in common.
type Refusal struct {
	Reason   string           `json:"reason" example:"other-network" doc:"Why, in a word of a closed set"`
	Count    uint64           `json:"count" doc:"How many"`
	First    time.Time        `json:"first" doc:"When the first was"`
	Last     time.Time        `json:"last" doc:"When the last was"`
	Peer     joinery.PeerID   `json:"peer" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"Which peer asked"`
	Device   joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"About which device, if it is here"`
	Received Received         `json:"received" doc:"What the last one said"`
	Decided  *Decided         `json:"decided,omitempty" doc:"The state of the device that decided the last one"`
	What     string           `json:"what" doc:"What happened, in a sentence or two"`
	Remedy   string           `json:"remedy" doc:"What to do about it"`
	Settled  string           `json:"settled,omitzero" doc:"What changed since, where that may have settled it"`
}

// DeviceExplanation is why a device does not join, or that it does.
type DeviceExplanation struct {
	Device   Device       `json:"device" doc:"The device as it is now"`
	Summary  []string     `json:"summary" nullable:"false" doc:"How it stands, in sentences"`
	Refusals []Refusal    `json:"refusals" nullable:"false" doc:"What was refused, the newest first"`
	Joins    []Activation `json:"joins" nullable:"false" doc:"The newest accepted joins, the newest first"`
	NotKept  uint64       `json:"notKept" doc:"Refusals since the server started that could not be noted because too many came at once; some may have been about this device"`
}

// PeerRefusals is what a peer was refused.
type PeerRefusals struct {
	Totals  []Refusal `json:"totals" nullable:"false" doc:"All of it, by reason, the newest first"`
	Devices []Refusal `json:"devices" nullable:"false" doc:"The newest about devices that are here; to the operator only"`
	Unknown []Refusal `json:"unknown" nullable:"false" doc:"The newest about devices that are not here; to the operator only"`
	NotKept uint64    `json:"notKept" doc:"Refusals of all peers since the server started that could not be noted because too many came at once"`
}
