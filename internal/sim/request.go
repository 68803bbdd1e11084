package sim

import (
	"strconv"

	"joinery/lorawan"
)

// Versions of Backend Interfaces.
const (
	Protocol10 = "1.0"
	Protocol11 = "1.1"
)

// Message types (TS002-1.0).
const (
	joinReq    = "JoinReq"
	rejoinReq  = "RejoinReq"
	appSKeyReq = "AppSKeyReq"
	homeNSReq  = "HomeNSReq"
)

// answerTo gives the MessageType that answers another.
func answerTo(messageType string) string {
	switch messageType {
	case joinReq:
		return "JoinAns"
	case rejoinReq:
		return "RejoinAns"
	case appSKeyReq:
		return "AppSKeyAns"
	}
	return "HomeNSAns"
}

// request is what every message of ours begins with.
type request struct {
	dialect       *Dialect
	protocol      string
	messageType   string
	answerType    string
	transactionID uint32
	// The SenderID is netID or, where that is nil, asID: an AS-ID as JSON text.
	netID    *lorawan.NetID
	asID     []byte
	asIDText string
	nsid     lorawan.EUI64 // zero: none is sent
	// joinEUI is the ReceiverID.
	joinEUI lorawan.EUI64
}

// appendHeader appends the header, open for further members.
func (q *request) appendHeader(b []byte) []byte {
	b = append(b, `{"ProtocolVersion":"`...)
	b = append(b, q.protocol...)
	b = append(b, `","TransactionID":`...)
	b = strconv.AppendUint(b, uint64(q.transactionID), 10)
	b = append(b, `,"MessageType":"`...)
	b = append(b, q.messageType...)
	b = append(b, `","SenderID":`...)
	if q.netID != nil {
		b = q.dialect.appendHex(b, q.netID[:])
	} else {
		b = append(b, q.asID...)
	}
	b = q.appendBinary(b, "ReceiverID", q.joinEUI[:])
	if !q.nsid.IsZero() {
		b = q.appendBinary(b, "SenderNSID", q.nsid[:])
	}
	if q.dialect.emptyVSExtension {
		b = append(b, `,"VSExtension":{}`...)
	}
	return b
}

// appendBinary appends a further member in hexadecimal.
func (q *request) appendBinary(b []byte, name string, value []byte) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return q.dialect.appendHex(b, value)
}

// Parameters are what a JoinReq or RejoinReq says of the activation.
type Parameters struct {
	MACVersion lorawan.MACVersion
	PHYPayload []byte
	DevEUI     lorawan.EUI64
	DevAddr    lorawan.DevAddr
	DLSettings lorawan.DLSettings
	RxDelay    uint8
	CFList     lorawan.CFList
}

// appendJoin appends a whole JoinReq or RejoinReq (TS002-1.0, "JoinReq").
func (q *request) appendJoin(b []byte, p *Parameters) []byte {
	b = q.appendHeader(b)
	b = append(b, `,"MACVersion":"`...)
	b = append(b, q.dialect.macVersion(p.MACVersion)...)
	b = append(b, '"')
	b = q.appendBinary(b, "PHYPayload", p.PHYPayload)
	b = q.appendBinary(b, "DevEUI", p.DevEUI[:])
	b = q.appendBinary(b, "DevAddr", p.DevAddr[:])
	b = q.appendBinary(b, "DLSettings", []byte{byte(p.DLSettings)})
	b = append(b, `,"RxDelay":`...)
	b = strconv.AppendUint(b, uint64(p.RxDelay), 10)
	if p.CFList.IsPresent() {
		var wire [lorawan.CFListLen]byte
		b = q.appendBinary(b, "CFList", p.CFList.Append(wire[:0]))
	}
	return append(b, '}')
}

// appendAppSKey appends a whole AppSKeyReq (TS002-1.0, "AppSKeyReq").
func (q *request) appendAppSKey(b []byte, devEUI lorawan.EUI64, sessionKeyID []byte) []byte {
	b = q.appendHeader(b)
	b = q.appendBinary(b, "DevEUI", devEUI[:])
	b = q.appendBinary(b, "SessionKeyID", sessionKeyID)
	return append(b, '}')
}

// appendHomeNS appends a whole HomeNSReq (TS002-1.0 §12).
func (q *request) appendHomeNS(b []byte, devEUI lorawan.EUI64) []byte {
	b = q.appendHeader(b)
	b = q.appendBinary(b, "DevEUI", devEUI[:])
	return append(b, '}')
}
