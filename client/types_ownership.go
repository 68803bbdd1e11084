package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// MaxOwnershipBatch is the most items that one batch takes.
const MaxOwnershipBatch = 10_000

// Actions of an OwnershipAct.
const (
	ActionClaim           = "claim"
	ActionRelease         = "release"
	ActionOffer           = "offer"
	ActionCancel          = "cancel"
	ActionAccept          = "accept"
	ActionRegenerateToken = "regenerate-token"
	ActionBind            = "bind"
	ActionUnbind          = "unbind"
)

// NewTransfer offers a device to another organisation.
type NewTransfer struct {
	Recipient joinery.OrgID `json:"recipient" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who may accept it. Whether there is such an organisation is not told: ask the recipient for its identifier"`
	ExpiresAt time.Time     `json:"expiresAt,omitzero" doc:"Until when, 90 days at most; absent: two weeks"`
}

// Transfer is an offer of a device to another organisation.
type Transfer struct {
	Device    joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI   lorawan.EUI64    `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI    lorawan.EUI64    `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	From      joinery.OrgID    `json:"from" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who offers it"`
	Recipient joinery.OrgID    `json:"recipient" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who may accept it"`
	OfferedAt time.Time        `json:"offeredAt" doc:"When it was offered"`
	ExpiresAt time.Time        `json:"expiresAt" doc:"Until when it can be accepted"`
	Expired   bool             `json:"expired" doc:"Whether that is over"`
}

// Acceptance accepts an offer.
type Acceptance struct {
	Binding *NewBinding `json:"binding,omitempty" doc:"Which network may join it from now on; absent: none yet. The binding of the former owner ends, unless its network locked it"`
}

// HandedOver is a device that changed hands, with its new owner token.
type HandedOver struct {
	Device joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	// OwnerToken is absent where an answer is repeated.
	OwnerToken string `json:"ownerToken,omitzero" doc:"Its new owner token; the one before is dead. Absent where this was done before"`
}

// OwnershipAct is one item of a batch.
type OwnershipAct struct {
	Action     string           `json:"action" enum:"claim,release,offer,cancel,accept,regenerate-token,bind,unbind" doc:"What to do"`
	Device     joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device; or name it by its DevEUI"`
	JoinEUI    lorawan.EUI64    `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI, where several devices have the DevEUI"`
	DevEUI     lorawan.EUI64    `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	OwnerToken string           `json:"ownerToken,omitzero" maxLength:"64" doc:"Owner token, of a claim"`
	Binding    *NewBinding      `json:"binding,omitempty" doc:"Which network may join it, of claim, accept and bind"`
	Recipient  joinery.OrgID    `json:"recipient,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"To whom it is offered"`
	ExpiresAt  time.Time        `json:"expiresAt,omitzero" doc:"Until when the offer stands; absent: two weeks"`
}

// OwnershipBatch is many acts in one request.
type OwnershipBatch struct {
	Items  []OwnershipAct `json:"items" minItems:"1" maxItems:"10000" nullable:"false" doc:"What to do, in this order"`
	DryRun bool           `json:"dryRun,omitzero" doc:"Only say what would become of each item; wrong owner tokens count all the same"`
}

// OwnershipResult is what became of one item.
type OwnershipResult struct {
	Index      int              `json:"index" doc:"Its place in the batch, from 0"`
	Status     string           `json:"status" enum:"done,unchanged,failed" doc:"unchanged: it was so already"`
	Device     joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device; absent where there is none that the caller may know of"`
	JoinEUI    lorawan.EUI64    `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI     lorawan.EUI64    `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	OwnerToken string           `json:"ownerToken,omitzero" doc:"The new owner token, where the act issues one; it is in no other answer"`
	Code       joinery.Code     `json:"code,omitzero" doc:"Why it failed, in a word"`
	Reason     string           `json:"reason,omitzero" doc:"Why it failed, for people"`
}

// OwnershipResults is what became of a batch.
type OwnershipResults struct {
	Done      int               `json:"done" doc:"How many items changed something, or would"`
	Unchanged int               `json:"unchanged" doc:"How many were so already"`
	Failed    int               `json:"failed" doc:"How many failed"`
	Results   []OwnershipResult `json:"results" nullable:"false" doc:"One for each item, in the same order"`
}

// NewChallenge asks for something that a device's element can sign.
type NewChallenge struct {
	JoinEUI lorawan.EUI64 `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"70B3D57ED0000000" doc:"JoinEUI"`
	DevEUI  lorawan.EUI64 `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"0004A310001AA90A" doc:"DevEUI"`
}

// Challenge is what an element signs. It is good for one dispute.
type Challenge struct {
	Challenge    []byte        `json:"challenge" doc:"32 random bytes, in base64"`
	Organisation joinery.OrgID `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"For whom it was made"`
	Digest       string        `json:"digest" pattern:"^[0-9a-f]{64}$" doc:"What the element's device key (slot 1) signs: SHA-256 over 'joinery possession of device key 1', a zero byte, the organisation's number (8 bytes, big-endian), JoinEUI, DevEUI and the challenge"`
	ExpiresAt    time.Time     `json:"expiresAt" doc:"Until when"`
}

// NewDispute disputes who holds a device, or the lock of the binding of one's own.
type NewDispute struct {
	JoinEUI    lorawan.EUI64 `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"70B3D57ED0000000" doc:"JoinEUI"`
	DevEUI     lorawan.EUI64 `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" example:"0004A310001AA90A" doc:"DevEUI"`
	Challenge  []byte        `json:"challenge,omitempty" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"44" doc:"The challenge that was signed, 32 bytes"`
	Signature  []byte        `json:"signature,omitempty" pattern:"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" patternDescription:"base64 with padding" maxLength:"88" doc:"ECDSA signature of its digest by the device key: r and s, 32 bytes each"`
	OwnerToken string        `json:"ownerToken,omitzero" maxLength:"64" doc:"Or the owner token from the label, for devices without a device key"`
	Statement  string        `json:"statement,omitzero" maxLength:"2000" doc:"What the operator should know"`
}

// DisputeResult is what became of a dispute.
type DisputeResult struct {
	Device   joinery.DeviceID `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	Unlocked bool             `json:"unlocked" doc:"Whether the binding that its network locked is gone, since the owner has shown the device"`
	Dispute  *Dispute         `json:"dispute,omitempty" doc:"Else what the operator decides about"`
}

// Dispute waits for the operator's decision, or had it.
type Dispute struct {
	ID        joinery.DisputeID `json:"id" pattern:"^dsp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dsp_ and 13 characters" doc:"Identifier"`
	Device    joinery.DeviceID  `json:"device" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device"`
	JoinEUI   lorawan.EUI64     `json:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"JoinEUI"`
	DevEUI    lorawan.EUI64     `json:"devEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"DevEUI"`
	Claimant  joinery.OrgID     `json:"claimant,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who disputes; the other side is not told"`
	Holder    joinery.OrgID     `json:"holder,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Who holds the device; the other side is not told"`
	About     string            `json:"about" enum:"ownership,lock" doc:"Who holds the device, or the binding that its network locked"`
	Evidence  string            `json:"evidence" enum:"none,owner-token,device-key" doc:"What speaks for the claimant"`
	Statement string            `json:"statement,omitzero" doc:"What the claimant says"`
	State     string            `json:"state" enum:"open,granted,rejected,withdrawn" doc:"Where it stands"`
	OpenedAt  time.Time         `json:"openedAt" doc:"When it was opened"`
	DecidedAt time.Time         `json:"decidedAt,omitzero" doc:"When it was decided or withdrawn"`
	Note      string            `json:"note,omitzero" doc:"What the operator says"`
}

// Decision decides a dispute.
type Decision struct {
	Grant bool   `json:"grant" doc:"Whether the claimant becomes the owner; about a lock, whether the binding ends"`
	Note  string `json:"note,omitzero" maxLength:"2000" doc:"What both sides should know"`
}
