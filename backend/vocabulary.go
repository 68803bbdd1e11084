package backend

import "slices"

// ProtocolVersion is the version of Backend Interfaces that a message is in,
// spelled as its sender spelled it.
type ProtocolVersion string

// The versions of Backend Interfaces. A Join Server answers in the version of
// the request: there is no negotiation on the wire.
const (
	Version1_0 ProtocolVersion = "1.0"
	Version1_1 ProtocolVersion = "1.1"

	// HighestVersion is what an answer to an unsupported version names.
	HighestVersion = Version1_1
)

// Supported tells whether v is one of the versions of this package, in either
// of the spellings "1.0" and "1.0.0".
func (v ProtocolVersion) Supported() bool {
	switch v {
	case Version1_0, "1.0.0", Version1_1, "1.1.0":
		return true
	}
	return false
}

// Is1_1 tells whether v is version 1.1: network servers name their NSID, and
// there are result codes that 1.0 does not have.
func (v ProtocolVersion) Is1_1() bool { return v == Version1_1 || v == "1.1.0" }

// MessageType is the type of a message. The zero value is none of ours.
type MessageType uint8

// The messages of a Join Server, each request followed by its answer.
const (
	TypeJoinReq MessageType = iota + 1
	TypeJoinAns
	TypeRejoinReq
	TypeRejoinAns
	TypeAppSKeyReq
	TypeAppSKeyAns
	TypeHomeNSReq
	TypeHomeNSAns
)

var messageTypeText = [...]string{
	TypeJoinReq: "JoinReq", TypeJoinAns: "JoinAns",
	TypeRejoinReq: "RejoinReq", TypeRejoinAns: "RejoinAns",
	TypeAppSKeyReq: "AppSKeyReq", TypeAppSKeyAns: "AppSKeyAns",
	TypeHomeNSReq: "HomeNSReq", TypeHomeNSAns: "HomeNSAns",
}

// String gives the name on the wire; "unknown" for none of ours.
func (m MessageType) String() string {
	if m == 0 || int(m) >= len(messageTypeText) {
		return "unknown"
	}
	return messageTypeText[m]
}

// ParseMessageType reads a name as on the wire; the result is zero for a
// message that is none of ours.
func ParseMessageType(s string) MessageType {
	if s == "" {
		return 0
	}
	return MessageType(max(0, slices.Index(messageTypeText[:], s)))
}

// IsRequest tells whether m is a request to a Join Server.
func (m MessageType) IsRequest() bool { return m%2 == 1 && int(m) < len(messageTypeText) }

// Answer gives the type of the answer to request m: XAns to XReq.
func (m MessageType) Answer() MessageType {
	if !m.IsRequest() {
		return 0
	}
	return m + 1
}

// FromNetwork tells whether request m comes from a Network Server, so that its
// SenderID is a NetID; else it comes from an Application Server.
func (m MessageType) FromNetwork() bool { return m.IsRequest() && m != TypeAppSKeyReq }
