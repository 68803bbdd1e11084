package sim

import (
	"mime"
	"net/http"
	"slices"

	"joinery/lorawan"
)

// Result codes of Backend Interfaces that this package names.
const (
	ResultSuccess       = "Success"
	ResultMICFailed     = "MICFailed"
	ResultUnknownDevEUI = "UnknownDevEUI"
)

// resultCodes gives the closed set of codes of a protocol version. Clients of
// 1.0 fail to read a code that is not theirs. "UnkownReceiver" is spelt as the
// specification's table has it.
func resultCodes(protocol string) []string {
	both := []string{
		ResultSuccess, ResultMICFailed, "JoinReqFailed", "NoRoamingAgreement", "DevRoamingDisallowed",
		"RoamingActDisallowed", "ActivationDisallowed", ResultUnknownDevEUI, "UnknownDevAddr", "UnknownSender",
		"UnkownReceiver", "Deferred", "XmitFailed", "InvalidFPort", "InvalidProtocolVersion",
		"StaleDeviceProfile", "FrameSizeError", "Other",
	}
	if protocol == Protocol11 {
		return append(both, "NoAction", "FrameReplayed", "MalformedMessage")
	}
	return append(both, "MalformedRequest")
}

// ReplayCode gives the code that refuses a DevNonce or RJcount that is not
// fresh: 1.0 has none of its own for it.
func ReplayCode(protocol string) string {
	if protocol == Protocol11 {
		return "FrameReplayed"
	}
	return "JoinReqFailed"
}

// MalformedCode gives the code that refuses a message that is not well-formed.
func MalformedCode(protocol string) string {
	if protocol == Protocol11 {
		return "MalformedMessage"
	}
	return "MalformedRequest"
}

// checkForm makes the checks that hold for every answer to q: HTTP, JSON,
// header, Result. expect is the ResultCode wanted. The answer is nil where
// there is nothing to look at.
func checkForm(c *Checks, by Party, q *request, r *Reply, expect string) *answer {
	if !c.add(by, CheckHTTPStatus, r.Status == http.StatusOK) {
		c.becausef("it is %d", r.Status)
	}
	if !c.add(by, CheckContentType, isJSON(r.ContentType)) {
		c.becausef("it is %q", r.ContentType)
	}
	a, err := parseAnswer(r.Body)
	if !c.addErr(by, CheckJSON, err) {
		return nil
	}
	checkHeader(c, by, q, a)
	known := a.HasResult && slices.Contains(resultCodes(q.protocol), a.ResultCode)
	if !c.add(by, CheckCodeKnown, known) {
		c.becausef("%q is no code of %s", a.ResultCode, q.protocol)
	}
	if !c.add(by, CheckResult, a.ResultCode == expect) {
		c.becausef("want %s, got %q: %s", expect, a.ResultCode, a.Description)
	} else {
		c.because(a.ResultCode)
	}
	if a.ResultCode != ResultSuccess {
		c.add(by, CheckRefusalEmpty, a.carriesNothing(q))
	}
	return a
}

// isJSON tells whether a Content-Type is application/json, whatever its
// parameters.
func isJSON(contentType string) bool {
	const want = "application/json"
	if contentType == want { // as good as always
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == want
}

// checkHeader: version and TransactionID as sent, ids swapped.
func checkHeader(c *Checks, by Party, q *request, a *answer) {
	if !c.add(by, CheckVersion, a.ProtocolVersion == q.protocol) {
		c.becausef("want %q, got %q", q.protocol, a.ProtocolVersion)
	}
	if !c.add(by, CheckTransactionID, a.TransactionID != nil && *a.TransactionID == q.transactionID) {
		c.becausef("want %d", q.transactionID)
	}
	if !c.add(by, CheckMessageType, a.MessageType == q.answerType) {
		c.becausef("want %q, got %q", q.answerType, a.MessageType)
	}
	if !c.add(by, CheckSenderID, sameBinary(a.SenderID, q.joinEUI[:])) {
		c.becausef("want %v, got %q", q.joinEUI, a.SenderID)
	}
	c.add(by, CheckReceiverID, q.isSender(a.ReceiverID))
	if q.nsid.IsZero() {
		c.add(by, CheckNSID, a.SenderNSID == nil && a.ReceiverNSID == nil)
	} else {
		c.add(by, CheckNSID, a.SenderNSID == nil && a.ReceiverNSID != nil && sameBinary(*a.ReceiverNSID, q.nsid[:]))
	}
}

// isSender tells whether id is the one that q was sent under.
func (q *request) isSender(id string) bool {
	if q.netID != nil {
		return sameBinary(id, q.netID[:])
	}
	return id == q.asIDText
}

// carriesNothing tells whether an answer to q holds nothing of an activation.
// An AppSKeyAns repeats the SessionKeyID that it refuses.
func (a *answer) carriesNothing(q *request) bool {
	return a.PHYPayload == nil && a.Keys == [keyNames]*Envelope{} &&
		(a.SessionKeyID == nil || q.messageType == appSKeyReq)
}

// same tells whether two answers say the same, but for the TransactionID.
func (a *answer) same(b *answer) bool {
	for k := range a.Keys {
		x, y := a.Keys[k], b.Keys[k]
		if (x == nil) != (y == nil) {
			return false
		}
		if x != nil && (x.KEKLabel != y.KEKLabel || !slices.Equal(x.AESKey, y.AESKey)) {
			return false
		}
	}
	lifetimes := (a.Lifetime == nil) == (b.Lifetime == nil) && (a.Lifetime == nil || *a.Lifetime == *b.Lifetime)
	return lifetimes && a.MessageType == b.MessageType && a.ResultCode == b.ResultCode &&
		slices.Equal(a.PHYPayload, b.PHYPayload) && slices.Equal(a.SessionKeyID, b.SessionKeyID)
}

// acceptLen gives the length of an accept with or without a CFList.
func acceptLen(cfList lorawan.CFList) int {
	if cfList.IsPresent() {
		return lorawan.JoinAcceptCFListLen
	}
	return lorawan.JoinAcceptLen
}
