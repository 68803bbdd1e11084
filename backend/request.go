package backend

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"joinery/lorawan"
)

// Parse reads a request to a Join Server. Its error is an *Error. When that is
// not Unanswerable, Header is fit to be answered: ProtocolVersion is one that
// this package speaks (1.0 where none was named, HighestVersion where it was
// unsupported), and what could not be read is zero. DevEUI and SessionKeyID are
// set wherever they could be read, since error answers repeat them.
func (r *Request) Parse(body []byte) error {
	s := openScanner()
	defer s.close()
	last := r.Header
	*r = Request{PHYPayload: r.PHYPayload[:0], SessionKeyID: r.SessionKeyID[:0]}
	if err := scanMessage(s, body); err != nil {
		return err
	}
	in := reader{members: &s.members}
	if err := r.parseAddress(&in, last); err != nil {
		return err
	}
	if err := r.parseHeader(&in); err != nil {
		return err
	}
	in.object(memberVSExtension)
	r.DevEUI = in.eui(memberDevEUI)
	switch r.MessageType {
	case TypeJoinReq, TypeRejoinReq:
		r.parseJoin(&in)
	case TypeAppSKeyReq:
		r.SessionKeyID = in.variable(memberSessionKeyID, r.SessionKeyID, 1, 64, wantKeyID)
	}
	if in.err != nil {
		return in.err
	}
	return nil
}

// scanMessage splits a body into members, or says what kind of thing it is not.
// The parser's own error stays behind: it may hold a piece of the body.
func scanMessage(s *scanner, body []byte) error {
	if len(body) > MaxMessageLen {
		return &Error{Kind: Unanswerable, Want: "the body is longer than 32768 bytes"}
	}
	err := s.scan(body)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName):
		return &Error{Kind: Unanswerable, Want: "a member of a JSON object stands twice"}
	case errors.Is(err, errDepth):
		return &Error{Kind: Unanswerable, Want: "the JSON is nested deeper than 16 levels"}
	}
	return &Error{Kind: Unanswerable, Want: "the body is not one JSON object"}
}

// parseAddress reads what an answer cannot do without. last is the header that
// was in r before: peers repeat themselves, so that its strings serve again.
func (r *Request) parseAddress(in *reader, last Header) error {
	text, _ := in.text(memberMessageType)
	r.MessageType = messageTypeOf(text)
	if !r.MessageType.IsRequest() {
		return &Error{Kind: Unanswerable, Field: memberText[memberMessageType], Want: "want JoinReq, RejoinReq, AppSKeyReq or HomeNSReq"}
	}
	if r.MessageType.FromNetwork() {
		r.SenderID = same(last.SenderID, in.fixed(memberSenderID, r.NetID[:], wantNetID))
	} else {
		r.SenderID = in.ascii(memberSenderID)
	}
	r.ReceiverID = same(last.ReceiverID, in.fixed(memberReceiverID, r.JoinEUI[:], wantEUI))
	if in.err != nil {
		in.err.Kind = Unanswerable
		return in.err
	}
	return nil
}

// parseHeader reads the rest of the header. Only an unsupported version is an
// error at once; other findings wait in the reader.
func (r *Request) parseHeader(in *reader) error {
	version, isText := in.text(memberProtocolVersion)
	r.ProtocolVersion = protocolVersionOf(version)
	r.TransactionID = uint32(in.uint(memberTransactionID, 1<<32-1, wantUint32))
	switch {
	case !isText:
		r.ProtocolVersion = Version1_0 // whose codes every version has, or maps
	case !r.ProtocolVersion.Supported():
		r.ProtocolVersion = HighestVersion
		return &Error{Kind: UnsupportedVersion, Field: memberText[memberProtocolVersion], Want: wantProtocol}
	}
	r.SenderToken = in.token(memberSenderToken)
	r.ReceiverToken = in.token(memberReceiverToken)
	// Version 1.0 knows no NSID; what stands there is an unknown member.
	if r.ProtocolVersion.Is1_1() && r.MessageType.FromNetwork() {
		r.SenderNSID = string(in.fixed(memberSenderNSID, r.NSID[:], wantEUI))
	}
	return nil
}

func (r *Request) parseJoin(in *reader) {
	r.MACVersion = in.macVersion()
	r.PHYPayload = in.variable(memberPHYPayload, r.PHYPayload, 1, 255, wantPHYPayload)
	in.fixed(memberDevAddr, r.DevAddr[:], wantDevAddr)
	var dlSettings [1]byte
	in.fixed(memberDLSettings, dlSettings[:], wantDLSettings)
	r.DLSettings = lorawan.DLSettings(dlSettings[0])
	r.RxDelay = uint8(in.uint(memberRxDelay, 15, wantRxDelay))
	if in.has(memberCFList) {
		var wire [lorawan.CFListLen]byte
		in.fixed(memberCFList, wire[:], wantCFList)
		r.CFList, _ = lorawan.ParseCFList(wire[:]) // of the right length
	}
}

func messageTypeOf(text []byte) MessageType {
	for m, name := range messageTypeText {
		if m > 0 && name == string(text) {
			return MessageType(m)
		}
	}
	return 0
}

// protocolVersionOf gives a version without allocating where it is one that we
// speak; everything else is "".
func protocolVersionOf(text []byte) ProtocolVersion {
	switch string(text) {
	case "1.0":
		return Version1_0
	case "1.1":
		return Version1_1
	case "1.0.0":
		return "1.0.0"
	case "1.1.0":
		return "1.1.0"
	}
	return ""
}

// same gives s as a string: last, if that is equal.
func same(last string, s []byte) string {
	if last == string(s) {
		return last
	}
	return string(s)
}
