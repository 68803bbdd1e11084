package backend

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"joinery/lorawan"
)

// Header is what every message carries. Identifiers are strings as on the wire:
// an answer gives them back as they came, whatever their case or prefix.
type Header struct {
	ProtocolVersion ProtocolVersion
	// TransactionID is chosen by the requester and no key of anything: The
	// Things Stack sends 0 always.
	TransactionID uint32
	MessageType   MessageType
	// SenderID and ReceiverID are a NetID (6 digits) for a Network Server, a
	// JoinEUI (16 digits) for a Join Server, free ASCII for an Application
	// Server.
	SenderID   string
	ReceiverID string
	// SenderNSID and ReceiverNSID tell networks that share a NetID apart
	// (EUI-64, version 1.1 only); empty is none.
	SenderNSID   string
	ReceiverNSID string
	// SenderToken and ReceiverToken are opaque hexadecimal: who gets one as
	// SenderToken gives it back as ReceiverToken. Empty is none.
	SenderToken   string
	ReceiverToken string
}

// Answer gives the header of the answer to a request: sender and receiver
// change places, tokens go back to who gave them, the rest stays as it came.
func (h Header) Answer() Header {
	a := Header{
		ProtocolVersion: h.ProtocolVersion,
		TransactionID:   h.TransactionID,
		MessageType:     h.MessageType.Answer(),
		SenderID:        h.ReceiverID,
		ReceiverID:      h.SenderID,
		ReceiverToken:   h.SenderToken,
		SenderToken:     h.ReceiverToken,
	}
	if h.ProtocolVersion.Is1_1() {
		a.ReceiverNSID = h.SenderNSID
	}
	return a
}

// Request is a request to a Join Server: JoinReq, RejoinReq, AppSKeyReq or
// HomeNSReq, as Header.MessageType tells.
//
// A Request may be used for one Parse after the other; its byte slices are
// overwritten by the next.
type Request struct {
	Header

	// NetID and NSID are SenderID and SenderNSID of a Network Server, JoinEUI is
	// ReceiverID, in numbers: Parse sets them, Append does not look at them.
	// NSID is zero in version 1.0, and where the sender is no Network Server.
	NetID   lorawan.NetID
	NSID    lorawan.EUI64
	JoinEUI lorawan.EUI64

	DevEUI lorawan.EUI64 // in every request

	// JoinReq and RejoinReq.
	MACVersion lorawan.MACVersion
	// PHYPayload is the frame as it travelled, of whatever kind and length (at
	// most 255 bytes): ChirpStack forwards a relayed join as the outer frame.
	PHYPayload []byte
	DevAddr    lorawan.DevAddr
	DLSettings lorawan.DLSettings
	RxDelay    uint8 // 0..15
	CFList     lorawan.CFList

	// SessionKeyID, in AppSKeyReq, is what an earlier answer named: opaque, 1 to
	// 64 bytes.
	SessionKeyID []byte
}

// Answer is the answer of a Join Server to a Request. Which members travel
// depends on the message type and, but for DevEUI and SessionKeyID of an
// AppSKeyAns, on success.
type Answer struct {
	Header
	Result Result

	// JoinAns and RejoinAns. NwkSKey is for a 1.0.x session, the three keys below
	// it for a 1.1 session; a zero envelope does not travel.
	PHYPayload  []byte
	Lifetime    uint32 // of the session, in seconds; 0 is no limit
	NwkSKey     KeyEnvelope
	SNwkSIntKey KeyEnvelope
	FNwkSIntKey KeyEnvelope
	NwkSEncKey  KeyEnvelope

	// JoinAns, RejoinAns and AppSKeyAns. At least one of the two must be in a
	// successful JoinAns.
	AppSKey      KeyEnvelope
	SessionKeyID []byte // empty does not travel

	DevEUI lorawan.EUI64 // AppSKeyAns; zero does not travel with an error

	HNetID lorawan.NetID // HomeNSAns
	HNSID  lorawan.EUI64 // HomeNSAns of version 1.1; zero does not travel
}

// KeyEnvelope carries one session key: wrapped by RFC 3394 under the KEK that
// both ends know as KEKLabel (24 bytes), or in the clear (16 bytes, KEKLabel
// empty).
type KeyEnvelope struct {
	KEKLabel string
	AESKey   []byte
}

// IsZero tells whether there is no key.
func (e KeyEnvelope) IsZero() bool { return len(e.AESKey) == 0 }

// String keeps a key that travels in the clear out of logs.
func (e KeyEnvelope) String() string { return "envelope(" + e.KEKLabel + ")" }

// Format implements fmt.Formatter: every verb prints String.
func (e KeyEnvelope) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, e.String()) }

// LogValue implements slog.LogValuer.
func (e KeyEnvelope) LogValue() slog.Value { return slog.StringValue(e.String()) }

// MarshalJSON refuses: Answer.Append alone writes keys, and writes them as TS002 has them.
func (e KeyEnvelope) MarshalJSON() ([]byte, error) {
	return nil, errors.New("backend: an envelope is not marshalled by itself; append the answer that it is in")
}

// Lengths of keys in an envelope, in bytes.
const (
	clearKeyLen   = 16
	wrappedKeyLen = 24
)
