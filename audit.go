package joinery

import "time"

// AuditEvent names what an audit row is about.
type AuditEvent string

// Audit events. A row is written in the transaction of its effect; activations
// are their own rows (see Activation).
const (
	AuditDeviceImported   AuditEvent = "device.imported"
	AuditDeviceClaimed    AuditEvent = "device.claimed"
	AuditDeviceBound      AuditEvent = "device.bound"
	AuditDeviceSuspended  AuditEvent = "device.suspended"
	AuditDeviceResumed    AuditEvent = "device.resumed"
	AuditDeviceDeleted    AuditEvent = "device.deleted"
	AuditNoncesReset      AuditEvent = "device.nonces_reset"
	AuditOwnerTokenRead   AuditEvent = "device.owner_token_read"
	AuditPeerAdded        AuditEvent = "peer.added"
	AuditPeerChanged      AuditEvent = "peer.changed"
	AuditPeerRemoved      AuditEvent = "peer.removed"
	AuditClearKeysAllowed AuditEvent = "peer.clear_keys_allowed"
	AuditKEKAdded         AuditEvent = "kek.added"
	AuditKEKRetired       AuditEvent = "kek.retired"
	AuditSignerAdded      AuditEvent = "signer.added"
	AuditSignerRemoved    AuditEvent = "signer.removed"
	AuditRangeAssigned    AuditEvent = "range.assigned"
	AuditRangeReleased    AuditEvent = "range.released"
	AuditRoamingChanged   AuditEvent = "roaming.changed"
	AuditAPIKeyMade       AuditEvent = "api_key.made"
	AuditAPIKeyRevoked    AuditEvent = "api_key.revoked"
	AuditAPIKeyKept       AuditEvent = "api_key.kept" // it is the organisation's own, who made it is gone
	AuditOrgAdded         AuditEvent = "org.added"
	AuditServerFenced     AuditEvent = "server.fenced"
	AuditServerConfirmed  AuditEvent = "server.confirmed"
	AuditRootsRewrapped   AuditEvent = "roots.rewrapped" // sealed under newer storage keys
	AuditServiceEnding    AuditEvent = "service.ending"  // a term ends soon
	AuditServiceEnded     AuditEvent = "service.ended"   // its days of grace began
	AuditServiceLapsed    AuditEvent = "service.lapsed"  // joins are refused
	AuditServiceExtended  AuditEvent = "service.extended"
	AuditServiceCredited  AuditEvent = "service.credited" // an organisation may extend by so many months
	AuditPlanChanged      AuditEvent = "plan.changed"     // made or changed
	AuditPlanRemoved      AuditEvent = "plan.removed"
	AuditClockDoubted     AuditEvent = "server.clock_doubted"   // nothing lapses until it is confirmed
	AuditClockConfirmed   AuditEvent = "server.clock_confirmed" // by the operator
)

// AuditEntry is one custody event. Detail holds identifiers and settings only,
// never a secret; it becomes part of a hashed leaf and cannot be changed later.
type AuditEntry struct {
	ID     int64 // its place in the log, from 1; 0 before it is stored
	At     time.Time
	Event  AuditEvent
	Actor  string // Caller.Name
	Org    OrgID
	Device DeviceID // zero where the event is about no device
	Peer   PeerID   // zero where the event is about no peer
	Detail map[string]string
}
