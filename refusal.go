package joinery

import (
	"errors"
	"time"

	"joinery/lorawan"
)

// RefusalReason says, in a word of a closed set, why a request was refused. It
// is finer than a Code and than what the requester is told: it is for the
// device's owner and for the operator, who may know what the state was. The
// words are stored; one that was given is never given another meaning.
type RefusalReason string

// The reasons, in the order in which they are looked for.
const (
	RefusedUnreadable      RefusalReason = "unreadable"       // no message that could be answered
	RefusedProtocolVersion RefusalReason = "protocol-version" // a version of Backend Interfaces that we do not speak
	RefusedMalformed       RefusalReason = "malformed"        // a member is missing, or not what it should be
	RefusedSenderNetID     RefusalReason = "sender-net-id"    // SenderID is no NetID of the certificate's peer
	RefusedSenderNSID      RefusalReason = "sender-nsid"      // SenderNSID is no NSID of the certificate's peer
	RefusedSenderASID      RefusalReason = "sender-as-id"     // SenderID is no AS-ID of the certificate's peer
	RefusedPeerRemoved     RefusalReason = "peer-removed"     // the peer was removed or suspended while it asked
	RefusedFrame           RefusalReason = "frame"            // PHYPayload is no join-request or rejoin-request
	RefusedJoinEUI         RefusalReason = "unknown-join-eui" // no range of ours holds the JoinEUI
	RefusedEUIMismatch     RefusalReason = "eui-mismatch"     // message and frame name different devices
	RefusedCFList          RefusalReason = "cf-list"          // a network's CFList is of the type of our instructions to devices
	RefusedOptNeg          RefusalReason = "opt-neg"          // OptNeg and MACVersion contradict each other
	RefusedFenced          RefusalReason = "fenced"           // no joins until the operator confirms the database
	RefusedUnknownDevice   RefusalReason = "unknown-device"   // no such device
	RefusedNotBound        RefusalReason = "not-bound"        // the device is bound to no network
	RefusedOtherNetwork    RefusalReason = "other-network"    // the device is bound to another NetID
	RefusedNSIDMissing     RefusalReason = "nsid-missing"     // the binding names an NSID, the network none
	RefusedOtherNSID       RefusalReason = "other-nsid"       // right NetID, another NSID
	RefusedSuspended       RefusalReason = "suspended"
	RefusedMoved           RefusalReason = "moved"           // the device was rekeyed, and joined at another Join Server
	RefusedMACVersion      RefusalReason = "mac-version"     // a 1.0.x device asked for as 1.1
	RefusedLapsed          RefusalReason = "service-lapsed"  // the service term and its days of grace are over
	RefusedAttestation     RefusalReason = "attestation-low" // attested below the level that the owner wants
	RefusedMIC             RefusalReason = "mic"             // the frame was not made with the device's key
	RefusedNoSession       RefusalReason = "no-session"      // a rejoin of type 0 or 2, and no 1.1 session to speak from
	RefusedRejoinNetID     RefusalReason = "rejoin-net-id"   // the session's network is not the device's home any more
	RefusedDevNonceUsed    RefusalReason = "dev-nonce-used"  // below 1.0.4: seen before
	RefusedDevNonceLow     RefusalReason = "dev-nonce-low"   // from 1.0.4 on: not above the last
	RefusedRJCountLow      RefusalReason = "rj-count-low"    // RJcount is not above the last
	RefusedDevNonceEnd     RefusalReason = "dev-nonce-end"   // no DevNonce is left
	RefusedRJCountEnd      RefusalReason = "rj-count-end"    // no RJcount is left
	RefusedJoinNonceEnd    RefusalReason = "join-nonce-end"  // no JoinNonce is left
	RefusedNSKEK           RefusalReason = "ns-kek-missing"  // no KEK for the network, and no consent to go without
	RefusedNoAS            RefusalReason = "as-unknown"      // AppSKey has to be wrapped, for an AS that nobody is
	RefusedASKEK           RefusalReason = "as-kek-missing"  // no KEK for the Application Server
	RefusedSessionUnknown  RefusalReason = "session-unknown"
	RefusedOtherAS         RefusalReason = "other-as"      // the session was made for another Application Server
	RefusedSessionEnded    RefusalReason = "session-ended" // its binding does not stand any more
	RefusedNoRoaming       RefusalReason = "no-roaming"    // HomeNSReq of a network that is not on the list
	RefusedUnavailable     RefusalReason = "unavailable"   // a part of this server did not answer in time
	RefusedInternal        RefusalReason = "internal"      // a defect of this server
)

// RefusalReasons is all of them, in order.
var RefusalReasons = []RefusalReason{
	RefusedUnreadable, RefusedProtocolVersion, RefusedMalformed, RefusedSenderNetID, RefusedSenderNSID, RefusedSenderASID,
	RefusedPeerRemoved, RefusedFrame, RefusedJoinEUI, RefusedEUIMismatch, RefusedCFList, RefusedOptNeg, RefusedFenced, RefusedUnknownDevice, RefusedNotBound,
	RefusedOtherNetwork, RefusedNSIDMissing, RefusedOtherNSID, RefusedSuspended, RefusedMoved, RefusedMACVersion, RefusedLapsed, RefusedAttestation, RefusedMIC, RefusedNoSession,
	RefusedRejoinNetID, RefusedDevNonceUsed, RefusedDevNonceLow, RefusedRJCountLow, RefusedDevNonceEnd, RefusedRJCountEnd,
	RefusedJoinNonceEnd, RefusedNSKEK, RefusedNoAS, RefusedASKEK, RefusedSessionUnknown, RefusedOtherAS, RefusedSessionEnded,
	RefusedNoRoaming, RefusedUnavailable, RefusedInternal,
}

// Bounds of what is kept of refused requests. What is over a bound replaces the
// oldest.
const (
	// MaxDeviceRefusals is rows of one device, each an owner, a peer and a reason.
	MaxDeviceRefusals = 64
	// MaxPeerRefusals is rows of all devices that one peer asked about.
	MaxPeerRefusals = 16_384
	// MaxUnknownDevices is devices that are not here, of one peer.
	MaxUnknownDevices = 256
)

// Received is what a refused request said, as far as it could be read. It holds
// no key, no token and no frame.
type Received struct {
	Message         string             `json:"message,omitzero"` // MessageType
	ProtocolVersion string             `json:"protocolVersion,omitzero"`
	TransactionID   uint32             `json:"transactionID,omitzero"`
	SenderID        string             `json:"senderID,omitzero"`
	ReceiverID      string             `json:"receiverID,omitzero"`
	NetID           lorawan.NetID      `json:"netID,omitzero"` // SenderID of a Network Server
	NSID            lorawan.EUI64      `json:"nsid,omitzero"`  // SenderNSID
	JoinEUI         lorawan.EUI64      `json:"joinEUI,omitzero"`
	DevEUI          lorawan.EUI64      `json:"devEUI,omitzero"` // of the message
	MACVersion      lorawan.MACVersion `json:"macVersion,omitzero"`
	OptNeg          bool               `json:"optNeg,omitzero"`
	// Frame is "join", "rejoin-0", "rejoin-1" or "rejoin-2"; "" for a PHYPayload
	// that is neither, or none. Count is its DevNonce or RJcount.
	Frame string `json:"frame,omitzero"`
	Count uint16 `json:"count,omitzero"`
	// Problem is our own words for what is wrong with the form of the message.
	Problem string `json:"problem,omitzero"`
}

// Decided is the state that decided: of the device as it was at that moment.
type Decided struct {
	Bound      bool               `json:"bound,omitzero"`
	NetID      lorawan.NetID      `json:"netID,omitzero"` // the binding's, as the two below
	NSID       lorawan.EUI64      `json:"nsid,omitzero"`
	ASID       string             `json:"asID,omitzero"`
	MACVersion lorawan.MACVersion `json:"macVersion,omitzero"` // provisioned
	Root10     RootKey            `json:"root10,omitzero"`     // the root key that serves 1.0.x
	// Next is the lowest DevNonce or RJcount that would have been accepted, where
	// it was what decided.
	Next uint32 `json:"next,omitzero"`
	// ServiceEnd is when the service term ended, where that was what decided:
	// RFC 3339, UTC.
	ServiceEnd string `json:"serviceEnd,omitzero"`
	// AttestLevel is the level that was valid, AttestWanted the one that the owner
	// wants, where these decided: L0 to L3.
	AttestLevel  string `json:"attestLevel,omitzero"`
	AttestWanted string `json:"attestWanted,omitzero"`
}

// Refusal is one refused request.
type Refusal struct {
	At       time.Time
	Peer     PeerID
	Device   DeviceID // zero: not a device of ours
	Owner    OrgID    // who held the device; zero without one
	Reason   RefusalReason
	Received Received
	Decided  Decided
}

// RefusalCount is refused requests that have device, owner, peer and reason in
// common: the last of them, how many there were, and when the first was.
type RefusalCount struct {
	Refusal
	Count uint64
	First time.Time
}

// With is c and later in one, with the values of later.
func (c RefusalCount) With(later RefusalCount) RefusalCount {
	later.Count += c.Count
	if c.First.Before(later.First) {
		later.First = c.First
	}
	return later
}

// RefusalBatch is what is added to the stored refusals in one transaction.
type RefusalBatch struct {
	// Devices are counts of devices: one that names no device is of the device
	// that has its JoinEUI and DevEUI now, and of that one's owner, if there is
	// one who held it since First. Unknown are counts of devices that are not here, by peer, JoinEUI and
	// DevEUI; Peers of everything that a peer was refused, by reason. No two of
	// Unknown are alike, nor of Peers.
	Devices []RefusalCount
	Unknown []RefusalCount
	Peers   []RefusalCount
	// Attempts are counts of refused attempts at the management API, for the custody
	// log. No two are alike.
	Attempts []AttemptCount
}

// PeerRefusals is what a peer was refused.
type PeerRefusals struct {
	// Totals is by reason, newest first; Devices and Unknown the newest of the
	// rows that are kept.
	Totals  []RefusalCount
	Devices []RefusalCount
	Unknown []RefusalCount
}

// Refused is an error with what the owner may know of it. Its text and its code
// are those of Err, so that it makes no difference to whoever is told.
type Refused struct {
	Reason  RefusalReason
	Device  DeviceID
	Owner   OrgID
	Decided Decided
	Err     error
}

// Refuse gives err a reason. The result must not be shared between requests.
func Refuse(reason RefusalReason, err error) error { return &Refused{Reason: reason, Err: err} }

// Error implements error.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap gives the error that the requester is told.
func (r *Refused) Unwrap() error { return r.Err }

// RefusedOf gives what is known of a refusal: of one without a reason, what its
// code says.
func RefusedOf(err error) Refused {
	if r, ok := errors.AsType[*Refused](err); ok {
		return *r
	}
	return Refused{Reason: reasonOfCode(CodeOf(err)), Err: err}
}

func reasonOfCode(c Code) RefusalReason {
	switch c {
	case CodeInvalid, CodeTooLarge:
		return RefusedMalformed
	case CodeProtocol:
		return RefusedProtocolVersion
	case CodeUnknownReceiver:
		return RefusedJoinEUI
	case CodeUnknownSender:
		return RefusedPeerRemoved
	case CodeUnknownDevice:
		return RefusedUnknownDevice
	case CodeSuspended:
		return RefusedSuspended
	case CodeLapsed:
		return RefusedLapsed
	case CodeAttestation:
		return RefusedAttestation
	case CodeMIC:
		return RefusedMIC
	case CodeNoRoaming:
		return RefusedNoRoaming
	case CodeKEKMissing:
		return RefusedNSKEK
	case CodeUnavailable, CodeRateLimited:
		return RefusedUnavailable
	}
	return RefusedInternal
}
