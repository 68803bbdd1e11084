package backend

import (
	"fmt"

	"joinery/lorawan"
)

// Parse reads the answer of a Join Server, as its counterpart does. Its error is
// an *Error. It wants what a strict client wants: every answer has a result
// whose code the version of the message defines, and a successful answer is
// complete.
func (a *Answer) Parse(body []byte) error {
	s := openScanner()
	defer s.close()
	*a = Answer{}
	if err := scanMessage(s, body); err != nil {
		return err
	}
	in := reader{members: &s.members}
	a.parseHeader(&in)
	if in.err != nil {
		in.err.Kind = Unanswerable
		return in.err
	}
	a.Result = parseResult(&in, a.ProtocolVersion)
	switch a.MessageType {
	case TypeJoinAns, TypeRejoinAns:
		a.parseJoin(&in)
	case TypeAppSKeyAns:
		a.parseAppSKey(&in)
	case TypeHomeNSAns:
		a.parseHomeNS(&in)
	}
	if in.err != nil {
		return in.err
	}
	return nil
}

func (a *Answer) parseHeader(in *reader) {
	text, _ := in.text(memberMessageType)
	a.MessageType = messageTypeOf(text)
	if a.MessageType == 0 || a.MessageType.IsRequest() {
		in.fail(memberMessageType, "want JoinAns, RejoinAns, AppSKeyAns or HomeNSAns")
	}
	version, _ := in.text(memberProtocolVersion)
	if a.ProtocolVersion = protocolVersionOf(version); a.ProtocolVersion == "" {
		in.fail(memberProtocolVersion, wantProtocol)
	}
	a.TransactionID = uint32(in.uint(memberTransactionID, 1<<32-1, wantUint32))
	var joinEUI lorawan.EUI64
	a.SenderID = string(in.fixed(memberSenderID, joinEUI[:], wantEUI))
	if a.MessageType == TypeAppSKeyAns {
		a.ReceiverID = in.ascii(memberReceiverID)
	} else {
		var netID lorawan.NetID
		a.ReceiverID = string(in.fixed(memberReceiverID, netID[:], wantNetID))
	}
	if in.has(memberReceiverNSID) {
		var nsid lorawan.EUI64
		a.ReceiverNSID = string(in.fixed(memberReceiverNSID, nsid[:], wantEUI))
	}
	a.SenderToken = in.token(memberSenderToken)
	a.ReceiverToken = in.token(memberReceiverToken)
	in.object(memberVSExtension)
}

func (a *Answer) parseJoin(in *reader) {
	if a.Result.Code != Success {
		return
	}
	a.PHYPayload = in.variable(memberPHYPayload, nil, 1, 255, wantPHYPayload)
	if n := len(a.PHYPayload); n != lorawan.JoinAcceptLen && n != lorawan.JoinAcceptCFListLen {
		in.fail(memberPHYPayload, "want a join-accept of 17 or 33 bytes")
	}
	if in.has(memberLifetime) {
		a.Lifetime = uint32(in.uint(memberLifetime, 1<<32-1, wantUint32))
	}
	a.NwkSKey = parseEnvelope(in, memberNwkSKey)
	a.SNwkSIntKey = parseEnvelope(in, memberSNwkSIntKey)
	a.FNwkSIntKey = parseEnvelope(in, memberFNwkSIntKey)
	a.NwkSEncKey = parseEnvelope(in, memberNwkSEncKey)
	a.AppSKey = parseEnvelope(in, memberAppSKey)
	if in.has(memberSessionKeyID) {
		a.SessionKeyID = in.variable(memberSessionKeyID, nil, 1, 64, wantKeyID)
	}
	// A network takes either NwkSKey or the three keys of a 1.1 session, never a
	// mixture; and an application has to get at its key.
	three := !a.SNwkSIntKey.IsZero() && !a.FNwkSIntKey.IsZero() && !a.NwkSEncKey.IsZero()
	none := a.SNwkSIntKey.IsZero() && a.FNwkSIntKey.IsZero() && a.NwkSEncKey.IsZero()
	if a.NwkSKey.IsZero() != three || (!three && !none) {
		in.fail(memberNwkSKey, "want NwkSKey alone, or SNwkSIntKey, FNwkSIntKey and NwkSEncKey")
	}
	if a.AppSKey.IsZero() && len(a.SessionKeyID) == 0 {
		in.fail(memberAppSKey, "want AppSKey or SessionKeyID")
	}
}

func (a *Answer) parseAppSKey(in *reader) {
	if in.has(memberDevEUI) || a.Result.Code == Success {
		a.DevEUI = in.eui(memberDevEUI)
	}
	if in.has(memberSessionKeyID) || a.Result.Code == Success {
		a.SessionKeyID = in.variable(memberSessionKeyID, nil, 1, 64, wantKeyID)
	}
	if a.Result.Code != Success {
		return
	}
	if a.AppSKey = parseEnvelope(in, memberAppSKey); a.AppSKey.IsZero() {
		in.fail(memberAppSKey, wantPresent)
	}
}

func (a *Answer) parseHomeNS(in *reader) {
	if a.Result.Code != Success {
		return
	}
	in.fixed(memberHNetID, a.HNetID[:], wantNetID)
	if in.has(memberHNSID) {
		a.HNSID = in.eui(memberHNSID)
	}
}

// parseResult reads the result. ChirpStack takes a missing one for success; who
// checks a server must not.
func parseResult(in *reader, v ProtocolVersion) Result {
	s, ok := parseObject(in, memberResult)
	if !ok {
		in.fail(memberResult, wantPresent)
		return Result{}
	}
	defer s.close()
	sub := reader{members: &s.members}
	text, _ := sub.text(memberResultCode)
	code, known := ParseResultCode(string(text))
	if !known || code.For(v) != code {
		sub.fail(memberResultCode, fmt.Sprintf("want a result code of version %s", v))
	}
	result := Result{Code: code}
	if sub.has(memberDescription) {
		text, _ := sub.text(memberDescription)
		result.Description = string(text)
	}
	in.adopt(sub.err)
	return result
}

// parseEnvelope reads an optional key.
func parseEnvelope(in *reader, m member) KeyEnvelope {
	s, ok := parseObject(in, m)
	if !ok {
		return KeyEnvelope{}
	}
	defer s.close()
	sub := reader{members: &s.members}
	var e KeyEnvelope
	length, want := clearKeyLen, "want 16 bytes in hexadecimal digits where there is no KEKLabel"
	if sub.has(memberKEKLabel) {
		text, _ := sub.text(memberKEKLabel)
		e.KEKLabel = string(text)
		length, want = wrappedKeyLen, "want 24 bytes in hexadecimal digits beside KEKLabel"
	}
	e.AESKey = sub.variable(memberAESKey, nil, length, length, want)
	in.adopt(sub.err)
	return e
}

// parseObject scans an optional member that is an object.
func parseObject(in *reader, m member) (*scanner, bool) {
	v := in.members[m]
	if v == nil {
		return nil, false
	}
	if v[0] != '{' {
		in.fail(m, wantObject)
		return nil, false
	}
	s := openScanner()
	if err := s.scan(v); err != nil { // cannot be: the outer scan read it
		s.close()
		in.fail(m, wantObject)
		return nil, false
	}
	return s, true
}

// adopt takes over what was wrong in an inner object.
func (r *reader) adopt(err *Error) {
	if r.err == nil {
		r.err = err
	}
}
