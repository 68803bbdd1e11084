package backend

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"joinery/lorawan"
)

// Style is how a request is spelled; clients differ, and servers must not mind.
// The zero value is the spelling of The Things Stack.
type Style struct {
	LowerHex         bool // ChirpStack: lower-case digits
	FullMACVersion   bool // ChirpStack: "1.0.0" and "1.1.0" for "1.0" and "1.1"
	EmptyVSExtension bool // brocaar/lorawan: "VSExtension":{} in every message
}

// Append appends the JSON of a request to dst. NetID, NSID and JoinEUI travel
// in the strings of Header, as they are there.
func (r *Request) Append(dst []byte, style Style) []byte {
	digits := upperHex
	if style.LowerHex {
		digits = lowerHex
	}
	dst = appendHeader(dst, &r.Header)
	dst = appendHex(append(dst, `,"DevEUI":`...), r.DevEUI[:], digits)
	switch r.MessageType {
	case TypeJoinReq, TypeRejoinReq:
		dst = r.appendJoin(dst, style, digits)
	case TypeAppSKeyReq:
		dst = appendHex(append(dst, `,"SessionKeyID":`...), r.SessionKeyID, digits)
	}
	if style.EmptyVSExtension {
		dst = append(dst, `,"VSExtension":{}`...)
	}
	return append(dst, '}')
}

func (r *Request) appendJoin(dst []byte, style Style, digits string) []byte {
	version := r.MACVersion.String()
	if !style.FullMACVersion && (r.MACVersion == lorawan.MAC1_0_0 || r.MACVersion == lorawan.MAC1_1) {
		version = version[:3]
	}
	dst = append(append(append(dst, `,"MACVersion":"`...), version...), '"')
	dst = appendHex(append(dst, `,"PHYPayload":`...), r.PHYPayload, digits)
	dst = appendHex(append(dst, `,"DevAddr":`...), r.DevAddr[:], digits)
	dst = appendHex(append(dst, `,"DLSettings":`...), []byte{byte(r.DLSettings)}, digits)
	dst = strconv.AppendUint(append(dst, `,"RxDelay":`...), uint64(r.RxDelay), 10)
	if r.CFList.IsPresent() {
		var wire [lorawan.CFListLen]byte
		dst = appendHex(append(dst, `,"CFList":`...), r.CFList.Append(wire[:0]), digits)
	}
	return dst
}

// Append appends the JSON of an answer to dst, which grows only if it is too
// short: no null, no prefix, no escape in a hexadecimal string, no code that
// the version does not have.
func (a *Answer) Append(dst []byte) []byte {
	dst = appendHeader(dst, &a.Header)
	dst = append(dst, `,"Result":{"ResultCode":"`...)
	dst = append(dst, a.Result.Code.For(a.ProtocolVersion)...)
	dst = append(dst, '"')
	if a.Result.Description != "" {
		dst = appendString(append(dst, `,"Description":`...), a.Result.Description)
	}
	dst = append(dst, '}')
	switch a.MessageType {
	case TypeJoinAns, TypeRejoinAns:
		dst = a.appendJoin(dst)
	case TypeAppSKeyAns:
		dst = a.appendAppSKey(dst)
	case TypeHomeNSAns:
		dst = a.appendHomeNS(dst)
	}
	return append(dst, '}')
}

func (a *Answer) appendJoin(dst []byte) []byte {
	if a.Result.Code != Success {
		return dst
	}
	dst = appendHex(append(dst, `,"PHYPayload":`...), a.PHYPayload, upperHex)
	dst = strconv.AppendUint(append(dst, `,"Lifetime":`...), uint64(a.Lifetime), 10)
	dst = appendEnvelope(dst, `,"NwkSKey":`, &a.NwkSKey)
	dst = appendEnvelope(dst, `,"SNwkSIntKey":`, &a.SNwkSIntKey)
	dst = appendEnvelope(dst, `,"FNwkSIntKey":`, &a.FNwkSIntKey)
	dst = appendEnvelope(dst, `,"NwkSEncKey":`, &a.NwkSEncKey)
	dst = appendEnvelope(dst, `,"AppSKey":`, &a.AppSKey)
	return a.appendSessionKeyID(dst)
}

// appendAppSKey: DevEUI and SessionKeyID also travel with an error, ChirpStack's
// type demands them.
func (a *Answer) appendAppSKey(dst []byte) []byte {
	if a.Result.Code == Success || !a.DevEUI.IsZero() {
		dst = appendHex(append(dst, `,"DevEUI":`...), a.DevEUI[:], upperHex)
	}
	if a.Result.Code == Success {
		dst = appendEnvelope(dst, `,"AppSKey":`, &a.AppSKey)
	}
	return a.appendSessionKeyID(dst)
}

func (a *Answer) appendHomeNS(dst []byte) []byte {
	if a.Result.Code != Success {
		return dst
	}
	dst = appendHex(append(dst, `,"HNetID":`...), a.HNetID[:], upperHex)
	if a.ProtocolVersion.Is1_1() && !a.HNSID.IsZero() {
		dst = appendHex(append(dst, `,"HNSID":`...), a.HNSID[:], upperHex)
	}
	return dst
}

func (a *Answer) appendSessionKeyID(dst []byte) []byte {
	if len(a.SessionKeyID) == 0 {
		return dst
	}
	return appendHex(append(dst, `,"SessionKeyID":`...), a.SessionKeyID, upperHex)
}

// appendHeader opens the object. Optional members travel only if they hold
// something.
func appendHeader(dst []byte, h *Header) []byte {
	dst = appendString(append(dst, `{"ProtocolVersion":`...), string(h.ProtocolVersion))
	dst = strconv.AppendUint(append(dst, `,"TransactionID":`...), uint64(h.TransactionID), 10)
	dst = append(append(dst, `,"MessageType":"`...), h.MessageType.String()...)
	dst = appendString(append(dst, `","SenderID":`...), h.SenderID)
	dst = appendString(append(dst, `,"ReceiverID":`...), h.ReceiverID)
	dst = appendOptional(dst, `,"SenderNSID":`, h.SenderNSID)
	dst = appendOptional(dst, `,"ReceiverNSID":`, h.ReceiverNSID)
	dst = appendOptional(dst, `,"SenderToken":`, h.SenderToken)
	return appendOptional(dst, `,"ReceiverToken":`, h.ReceiverToken)
}

func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendString(append(dst, name...), value)
}

// appendEnvelope writes a key, if there is one. KEKLabel travels with a wrapped
// key only.
func appendEnvelope(dst []byte, name string, e *KeyEnvelope) []byte {
	if e.IsZero() {
		return dst
	}
	dst = append(append(dst, name...), '{')
	if e.KEKLabel != "" {
		dst = append(appendString(append(dst, `"KEKLabel":`...), e.KEKLabel), ',')
	}
	return append(appendHex(append(dst, `"AESKey":`...), e.AESKey, upperHex), '}')
}

// appendHex writes b as a string of digits.
func appendHex(dst, b []byte, digits string) []byte {
	dst = append(dst, '"')
	for _, c := range b {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return append(dst, '"')
}

// appendString writes a JSON string. Plain ASCII goes as it is; whatever else
// there may be is escaped, and what is no UTF-8 replaced.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			dst, _ = jsontext.AppendQuote(dst, s)
			return dst
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
