package joinery

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"joinery/lorawan"
)

// EventType says what an event is about, in a word of a closed set. Receivers
// rely on the words: one that was given is never given another meaning.
type EventType string

// Event types.
const (
	EventImportFinished    EventType = "import.finished"    // a file was imported to its end; one an import
	EventDeviceImported    EventType = "device.imported"    // one a device; sent to webhooks that ask for it by name only
	EventDeviceClaimed     EventType = "device.claimed"     // the organisation became its owner
	EventDeviceBound       EventType = "device.bound"       // a network may join it, another one, or none any more
	EventDeviceReleased    EventType = "device.released"    // its owner let it go
	EventTransferOffered   EventType = "transfer.offered"   // its owner offers it to somebody
	EventTransferCancelled EventType = "transfer.cancelled" // and took that back
	EventDeviceTransferred EventType = "device.transferred" // it changed hands
	EventRekeyRequested    EventType = "rekey.requested"    // it is to be rekeyed, and another person has to approve
	EventRekeyRejected     EventType = "rekey.rejected"     // that one did not
	EventRekeyArmed        EventType = "rekey.armed"        // it is to derive new root keys and join elsewhere
	EventRekeySent         EventType = "rekey.sent"         // it was told so, as far as anybody knows
	EventRekeyObeyed       EventType = "rekey.obeyed"       // it joined here with new root keys
	EventRekeyCancelled    EventType = "rekey.cancelled"    // it is told no more
	EventRekeyHandedOver   EventType = "rekey.handed_over"  // new root keys went, sealed, to another Join Server
	EventRekeyConfirmed    EventType = "rekey.confirmed"    // it joined at another Join Server
	EventRekeyPassage      EventType = "rekey.passage"      // the other Join Server took it, parked it or refused it
	EventRekeyArrived      EventType = "rekey.arrived"      // another Join Server handed a device over: it waits to be accepted
	EventRekeyTaken        EventType = "rekey.taken"        // a device that was handed over was taken in
	EventRekeyRefused      EventType = "rekey.refused"      // or cannot be
	EventRekeyReceived     EventType = "rekey.received"     // it joined here, and its former Join Server is told so
	EventDeviceSuspended   EventType = "device.suspended"
	EventDeviceResumed     EventType = "device.resumed"
	EventDeviceDeleted     EventType = "device.deleted"
	EventDeviceJoined      EventType = "device.joined" // a join or rejoin was accepted
	EventJoinRefused       EventType = "join.refused"  // at most one an hour of a device, peer and reason
	EventKeysExposed       EventType = "keys.exposed"  // a root key was disclosed to somebody
	EventRecipientAdded    EventType = "export.recipient_added"
	EventRecipientRemoved  EventType = "export.recipient_removed"
	EventExportPolicy      EventType = "export.policy_changed"
	EventExportRequested   EventType = "export.requested" // its detail says whether another person has to approve it
	EventExportApproved    EventType = "export.approved"
	EventExportRejected    EventType = "export.rejected"
	EventExportWithdrawn   EventType = "export.withdrawn"
	EventExportReady       EventType = "export.ready" // it can be downloaded
	EventExportDelivered   EventType = "export.delivered"
	EventExportExpired     EventType = "export.expired"
	EventExportFailed      EventType = "export.failed"   // nothing of it could be exported; detail.why says why
	EventExportStalled     EventType = "export.stalled"  // devices of it wait for a key that was not at hand; detail.why
	EventDeviceAttested    EventType = "device.attested" // evidence was accepted; its detail says of what level, and which is valid now
	EventAttestRefused     EventType = "device.attestation_refused"
	EventAttestUnvouched   EventType = "device.attestation_unvouched" // a result does not rest any more on a signer that is pinned
	EventAttestEnded       EventType = "device.attestation_ended"     // a level ended, by its time or with what it rests on; a lower one may be left
	EventServiceEnding     EventType = "service.ending"               // the device's service term ends soon
	EventServiceEnded      EventType = "service.ended"                // it ended, and its days of grace run
	EventServiceLapsed     EventType = "service.lapsed"               // they are over: joins are refused
	EventServiceExtended   EventType = "service.extended"
	EventWebhookAdded      EventType = "webhook.added"
	EventWebhookRemoved    EventType = "webhook.removed"
	EventWebhookRotated    EventType = "webhook.rotated"
	EventWebhookEnabled    EventType = "webhook.enabled"
	EventWebhookDisabled   EventType = "webhook.disabled" // nothing is sent to it any more
	EventWebhookTest       EventType = "webhook.test"     // somebody asked for it; in no feed
)

// EventTypes is all types that a feed can have, in the order of a device's life.
var EventTypes = []EventType{
	EventImportFinished, EventDeviceImported, EventDeviceClaimed, EventDeviceBound, EventDeviceReleased,
	EventTransferOffered, EventTransferCancelled, EventDeviceTransferred,
	EventRekeyRequested, EventRekeyRejected, EventRekeyArmed, EventRekeySent, EventRekeyObeyed, EventRekeyCancelled, EventRekeyHandedOver, EventRekeyConfirmed,
	EventRekeyPassage, EventRekeyArrived, EventRekeyTaken, EventRekeyRefused, EventRekeyReceived, EventDeviceSuspended, EventDeviceResumed,
	EventDeviceDeleted, EventDeviceJoined, EventJoinRefused, EventKeysExposed,
	EventRecipientAdded, EventRecipientRemoved, EventExportPolicy, EventExportRequested, EventExportApproved, EventExportRejected,
	EventExportWithdrawn, EventExportReady, EventExportDelivered, EventExportExpired, EventExportFailed, EventExportStalled,
	EventDeviceAttested, EventAttestRefused, EventAttestUnvouched, EventAttestEnded,
	EventServiceEnding, EventServiceEnded, EventServiceLapsed, EventServiceExtended,
	EventWebhookAdded, EventWebhookRemoved, EventWebhookRotated, EventWebhookEnabled, EventWebhookDisabled,
}

// auditedEvents says which audit entry is which event; one that is not here is
// none. Whoever adds an AuditEvent decides it here.
var auditedEvents = map[AuditEvent]EventType{
	AuditDeviceClaimed:     EventDeviceClaimed,
	AuditDeviceBound:       EventDeviceBound,
	AuditDeviceSuspended:   EventDeviceSuspended,
	AuditDeviceResumed:     EventDeviceResumed,
	AuditDeviceDeleted:     EventDeviceDeleted,
	AuditWebhookAdded:      EventWebhookAdded,
	AuditWebhookRemoved:    EventWebhookRemoved,
	AuditWebhookRotated:    EventWebhookRotated,
	AuditWebhookEnabled:    EventWebhookEnabled,
	AuditWebhookDisabled:   EventWebhookDisabled,
	AuditDeviceReleased:    EventDeviceReleased,
	AuditDeviceTransferred: EventDeviceTransferred,
	AuditTransferOffered:   EventTransferOffered,
	AuditRekeyRequested:    EventRekeyRequested,
	AuditRekeyRejected:     EventRekeyRejected,
	AuditRekeyApproved:     EventRekeyArmed,
	AuditRekeyArmed:        EventRekeyArmed,
	AuditRekeySent:         EventRekeySent,
	AuditRekeyTicket:       EventRekeySent,
	AuditRekeyObeyed:       EventRekeyObeyed,
	AuditRekeyCancelled:    EventRekeyCancelled,
	AuditRekeyHandedOver:   EventRekeyHandedOver,
	AuditRekeyConfirmed:    EventRekeyConfirmed,
	AuditRekeyPassage:      EventRekeyPassage,
	AuditRekeyArrived:      EventRekeyArrived,
	AuditRekeyTaken:        EventRekeyTaken,
	AuditRekeyRefused:      EventRekeyRefused,
	AuditRekeyReceived:     EventRekeyReceived,
	AuditTransferCancelled: EventTransferCancelled,
	AuditKeysExposed:       EventKeysExposed,
	AuditRecipientAdded:    EventRecipientAdded,
	AuditRecipientRemoved:  EventRecipientRemoved,
	AuditExportPolicy:      EventExportPolicy,
	AuditExportRequested:   EventExportRequested,
	AuditExportApproved:    EventExportApproved,
	AuditExportRejected:    EventExportRejected,
	AuditExportWithdrawn:   EventExportWithdrawn,
	AuditExportReady:       EventExportReady,
	AuditExportDelivered:   EventExportDelivered,
	AuditExportExpired:     EventExportExpired,
	AuditExportFailed:      EventExportFailed,
	AuditExportStalled:     EventExportStalled,
	AuditDeviceAttested:    EventDeviceAttested,
	AuditAttestRefused:     EventAttestRefused,
	AuditAttestUnvouched:   EventAttestUnvouched,
	AuditAttestEnded:       EventAttestEnded,
	AuditServiceEnding:     EventServiceEnding,
	AuditServiceEnded:      EventServiceEnded,
	AuditServiceLapsed:     EventServiceLapsed,
	AuditServiceExtended:   EventServiceExtended,

	// Of many devices at once; each that is armed has an event of its own.
	AuditRekeyBatchRequested: EventRekeyRequested,
	AuditRekeyBatchRejected:  EventRekeyRejected,
}

// EventOf gives the type of the event that an audit entry is, "" for none.
func EventOf(e AuditEvent) EventType { return auditedEvents[e] }

// EventID names one event for ever: the same wherever and however often it is
// delivered, and after a restore never another event's. Its text form is
// "evt_" and 16 characters.
type EventID [10]byte

const eventPrefix = "evt_"

// NewEventID makes the id of an event from what it stands on: what kind of row,
// and what tells that row from all others, those of a restored copy included.
func NewEventID(kind string, of ...[]byte) EventID {
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	part([]byte(kind))
	for _, b := range of {
		part(b)
	}
	return EventID(h.Sum(nil)[:10])
}

// String gives the one text form.
func (id EventID) String() string { return eventPrefix + idText.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id EventID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *EventID) UnmarshalText(b []byte) error {
	rest, ok := strings.CutPrefix(string(b), eventPrefix)
	raw, err := idText.DecodeString(rest)
	if !ok || err != nil || len(raw) != len(id) || EventID(raw).String() != string(b) {
		return errors.New(`event: want "evt_" and 16 characters`)
	}
	*id = EventID(raw)
	return nil
}

// EventCursor is a place in the feed: behind event Index of page Page. The zero
// cursor is before everything. Its text form is 23 characters.
type EventCursor struct {
	Page  int64
	Index uint16
	// Tag tells the page from another of the same number, as there is one after a
	// backup was restored; 0 is not looked at.
	Tag uint32
}

// EndOfPage is the Index of a cursor behind all of a page.
const EndOfPage = 1<<16 - 1

// Before tells whether c is a place before o.
func (c EventCursor) Before(o EventCursor) bool {
	return c.Page < o.Page || c.Page == o.Page && c.Index < o.Index
}

// IsZero tells whether c is before everything.
func (c EventCursor) IsZero() bool { return c.Page == 0 }

// String gives the one text form; "" before everything.
func (c EventCursor) String() string {
	if c.IsZero() {
		return ""
	}
	var b [14]byte
	binary.BigEndian.PutUint64(b[:], uint64(c.Page))
	binary.BigEndian.PutUint16(b[8:], c.Index)
	binary.BigEndian.PutUint32(b[10:], c.Tag)
	return idText.EncodeToString(b[:])
}

// MarshalText implements encoding.TextMarshaler.
func (c EventCursor) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// ParseEventCursor reads the text form.
func ParseEventCursor(s string) (c EventCursor, err error) {
	if s == "" {
		return c, nil
	}
	b, err := idText.DecodeString(s)
	if err == nil && len(b) == 14 {
		c = EventCursor{int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint32(b[10:])}
	}
	if err != nil || c.Page <= 0 || c.String() != s {
		return EventCursor{}, Errorf(CodeInvalid, "after: want the 'next' or the 'cursor' of an answer, as it came")
	}
	return c, nil
}

// Event is something that happened to what an organisation holds. Exactly one
// of Audit, Join, Import, Imported and Refusal says what.
type Event struct {
	ID     EventID
	Cursor EventCursor // behind it
	Type   EventType
	At     time.Time
	Org    OrgID // whose it is; zero: the operator's alone

	// Device is zero for what is about none; DevEUI and JoinEUI are its own.
	Device  DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64

	Audit    *AuditEntry
	Join     *Activation
	Import   *Import   // finished
	Imported *ImportID // one device of it
	Refusal  *RefusalCount
}

// EventQuery selects events of the feed.
type EventQuery struct {
	After EventCursor
	Org   OrgID                // zero: of all, and what is nobody's
	Wants func(EventType) bool // nil: every type
	Limit int
}

// EventPage is what a query found, and from where to go on.
type EventPage struct {
	Events []Event
	Next   EventCursor
	// More tells whether there was more to look at.
	More bool
}

// EventSource is a server as the feed knows it. Its joins that the feed does not
// have, because it crashed, have ids above Mark.
type EventSource struct {
	Server   int64
	Mark     ActivationID
	MarkedAt time.Time
	// Beat changes whenever the server named joins in the feed, and once in a while.
	Beat int64
}
