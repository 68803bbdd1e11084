package client

import (
	"time"

	"joinery"
	"joinery/lorawan"
)

// FromNow is the end of the feed of events, as the place to begin.
const FromNow = "now"

// Event is something that happened to what an organisation holds. Webhooks get
// it as it stands here, without Cursor.
type Event struct {
	ID           joinery.EventID `json:"id" pattern:"^evt_[0-9a-hjkmnp-tv-z]{16}$" patternDescription:"evt_ and 16 characters" doc:"Names the event for ever: the same each time that it comes"`
	Type         string          `json:"type" example:"device.joined" doc:"What happened, in a word of a closed set; receivers pass over words that they do not know"`
	Timestamp    time.Time       `json:"timestamp" doc:"When it happened"`
	Organisation joinery.OrgID   `json:"organisation,omitzero" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose it is"`
	Data         EventData       `json:"data" doc:"What is known of it; which members there are depends on the type"`
	Cursor       string          `json:"cursor,omitzero" maxLength:"32" doc:"Give this as 'after' to go on behind this event; in the feed only"`
}

// EventData is what is known of an event. It holds identifiers and settings,
// never a key or a token.
type EventData struct {
	Device  joinery.DeviceID `json:"device,omitzero" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device, if it is about one"`
	JoinEUI lorawan.EUI64    `json:"joinEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its JoinEUI"`
	DevEUI  lorawan.EUI64    `json:"devEUI,omitzero" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Its DevEUI"`

	Join    *Activation   `json:"join,omitzero" doc:"device.joined: the accepted join or rejoin"`
	Refused *EventRefused `json:"refused,omitzero" doc:"join.refused: what was refused, and what to do"`
	Import  *EventImport  `json:"import,omitzero" doc:"import.finished: the import and its counts; device.imported: its id"`

	Actor  string            `json:"actor,omitzero" doc:"Who did it, as in the audit log"`
	Detail map[string]string `json:"detail,omitzero" doc:"Identifiers and settings, as in the audit log"`
}

// EventRefused is refused requests that have device, peer and reason in common.
type EventRefused struct {
	Reason string         `json:"reason" example:"other-network" doc:"Why, in a word of a closed set"`
	Count  uint64         `json:"count" doc:"How many there are up to now"`
	First  time.Time      `json:"first" doc:"When the first was"`
	Last   time.Time      `json:"last" doc:"When the last was"`
	Peer   joinery.PeerID `json:"peer" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"Which peer asked"`
	NetID  lorawan.NetID  `json:"netID,omitzero" pattern:"^[0-9A-Fa-f]{6}$" patternDescription:"6 hexadecimal digits" doc:"Under which NetID"`
	What   string         `json:"what" doc:"What happened, in a sentence or two"`
	Remedy string         `json:"remedy" doc:"What to do about it"`
}

// EventImport is an import as events tell of it.
type EventImport struct {
	ID        joinery.ImportID `json:"id" pattern:"^imp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"imp_ and 13 characters" doc:"The import"`
	Kind      string           `json:"kind,omitzero" enum:"manifest,key-list" doc:"What was imported"`
	Created   uint64           `json:"created,omitzero" doc:"Devices that are new"`
	Unchanged uint64           `json:"unchanged,omitzero" doc:"Devices that were there"`
	Failed    uint64           `json:"failed,omitzero" doc:"Rows that were refused"`
}

// EventPage is a page of the feed.
type EventPage struct {
	Items []Event `json:"items" nullable:"false" doc:"Events, in the order of the feed"`
	// Next is there on the last page, too: events will come behind it.
	Next string `json:"next" maxLength:"32" doc:"Give this as 'after' for what comes behind; the same as before where there is nothing yet"`
	More bool   `json:"more" doc:"Whether there is more to look at now; a page may be short or empty and yet have more behind it"`
}

// NewWebhook is a webhook to be added.
type NewWebhook struct {
	URL         string   `json:"url" minLength:"1" maxLength:"2048" example:"https://example.com/joins" doc:"Where events are posted"`
	Description string   `json:"description,omitzero" maxLength:"200" doc:"For people"`
	Types       []string `json:"types,omitzero" nullable:"false" maxItems:"64" maxLength:"64" example:"device.joined" doc:"Types of events to send; without it all but device.imported"`
	Everything  bool     `json:"everything,omitzero" doc:"Send the events of all organisations; for the operator"`
}

// Webhook is an address to which events are sent. Its secret is not here.
type Webhook struct {
	ID           joinery.WebhookID `json:"id" pattern:"^whk_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"whk_ and 13 characters" doc:"Identifier"`
	Organisation joinery.OrgID     `json:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose events it gets"`
	URL          string            `json:"url" doc:"Where events are posted"`
	Description  string            `json:"description,omitzero" doc:"For people"`
	Types        []string          `json:"types,omitzero" nullable:"false" doc:"Types of events that are sent; absent: all but device.imported"`
	Everything   bool              `json:"everything,omitzero" doc:"Whether it gets the events of all organisations"`
	CreatedAt    time.Time         `json:"createdAt" doc:"When it was added"`
	Generation   uint32            `json:"generation" doc:"Of its secret, from 1"`
	OverlapUntil time.Time         `json:"overlapUntil,omitzero" doc:"Until when the secret before signs, too"`
	Disabled     string            `json:"disabled,omitzero" doc:"Why nothing is sent; absent while it is on"`
	FailingSince time.Time         `json:"failingSince,omitzero" doc:"Since when deliveries fail"`
	Attempts     uint32            `json:"attempts,omitzero" doc:"How often since"`
	NextAt       time.Time         `json:"nextAt,omitzero" doc:"When it is tried again"`
}

// MadeWebhook is a webhook with its secret.
type MadeWebhook struct {
	Webhook Webhook `json:"webhook" doc:"The webhook"`
	Secret  string  `json:"secret" doc:"The secret with which deliveries are signed, whsec_… as Standard Webhooks has it. It is stored nowhere and cannot be shown again"`
}

// WebhookRotation asks for another secret.
type WebhookRotation struct {
	OverlapHours int `json:"overlapHours,omitzero" minimum:"0" maximum:"168" doc:"How long the present secret goes on to sign beside the new one; 24 without it"`
	// Now ends the present secret at once.
	Now bool `json:"now,omitzero" doc:"End the present secret at once, because somebody else knows it"`
}

// WebhookEnabling ends that a webhook is off.
type WebhookEnabling struct {
	FromNow bool `json:"fromNow,omitzero" doc:"Pass over what was not delivered; without it deliveries go on where they stopped"`
}

// Delivery is one attempt to deliver an event.
type Delivery struct {
	Event   joinery.EventID `json:"event" pattern:"^evt_[0-9a-hjkmnp-tv-z]{16}$" patternDescription:"evt_ and 16 characters" doc:"The event"`
	Type    string          `json:"type" doc:"Its type"`
	At      time.Time       `json:"at" doc:"When"`
	TookMS  int64           `json:"tookMs" doc:"How long it took, in milliseconds"`
	Attempt uint32          `json:"attempt" doc:"The how manieth attempt for this event"`
	OK      bool            `json:"ok" doc:"Whether the receiver took it"`
	Status  int             `json:"status,omitzero" doc:"HTTP status of the answer; absent without one"`
	Error   string          `json:"error,omitzero" doc:"Why it was not taken"`
}
