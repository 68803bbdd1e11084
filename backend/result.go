package backend

// ResultCode is the outcome of a request, by its name on the wire.
type ResultCode string

// The result codes. Which version has which is in the table below.
const (
	Success                ResultCode = "Success"
	NoAction               ResultCode = "NoAction"
	MICFailed              ResultCode = "MICFailed"
	FrameReplayed          ResultCode = "FrameReplayed"
	JoinReqFailed          ResultCode = "JoinReqFailed"
	NoRoamingAgreement     ResultCode = "NoRoamingAgreement"
	DevRoamingDisallowed   ResultCode = "DevRoamingDisallowed"
	RoamingActDisallowed   ResultCode = "RoamingActDisallowed"
	ActivationDisallowed   ResultCode = "ActivationDisallowed"
	UnknownDevEUI          ResultCode = "UnknownDevEUI"
	UnknownDevAddr         ResultCode = "UnknownDevAddr"
	UnknownSender          ResultCode = "UnknownSender"
	UnknownReceiver        ResultCode = "UnkownReceiver" // the table of the specification lacks the n, and so do its clients
	Deferred               ResultCode = "Deferred"
	XmitFailed             ResultCode = "XmitFailed"
	InvalidFPort           ResultCode = "InvalidFPort"
	InvalidProtocolVersion ResultCode = "InvalidProtocolVersion"
	StaleDeviceProfile     ResultCode = "StaleDeviceProfile"
	MalformedRequest       ResultCode = "MalformedRequest"
	MalformedMessage       ResultCode = "MalformedMessage"
	FrameSizeError         ResultCode = "FrameSizeError"
	Other                  ResultCode = "Other"
)

// codes is the one table of result codes: each with the name by which a message
// of version 1.0 and of version 1.1 says it. Where the two differ, one version
// lacks the code and its nearest takes its place: ChirpStack v4 refuses a whole
// message over a code that 1.0 does not have.
var codes = [...]struct{ code, in1_0, in1_1 ResultCode }{
	{Success, Success, Success},
	{NoAction, Other, NoAction},
	{MICFailed, MICFailed, MICFailed},
	{FrameReplayed, JoinReqFailed, FrameReplayed},
	{JoinReqFailed, JoinReqFailed, JoinReqFailed},
	{NoRoamingAgreement, NoRoamingAgreement, NoRoamingAgreement},
	{DevRoamingDisallowed, DevRoamingDisallowed, DevRoamingDisallowed},
	{RoamingActDisallowed, RoamingActDisallowed, RoamingActDisallowed},
	{ActivationDisallowed, ActivationDisallowed, ActivationDisallowed},
	{UnknownDevEUI, UnknownDevEUI, UnknownDevEUI},
	{UnknownDevAddr, UnknownDevAddr, UnknownDevAddr},
	{UnknownSender, UnknownSender, UnknownSender},
	{UnknownReceiver, UnknownReceiver, UnknownReceiver},
	{Deferred, Deferred, Deferred},
	{XmitFailed, XmitFailed, XmitFailed},
	{InvalidFPort, InvalidFPort, InvalidFPort},
	{InvalidProtocolVersion, InvalidProtocolVersion, InvalidProtocolVersion},
	{StaleDeviceProfile, StaleDeviceProfile, StaleDeviceProfile},
	{MalformedRequest, MalformedRequest, MalformedMessage},
	{MalformedMessage, MalformedRequest, MalformedMessage},
	{FrameSizeError, FrameSizeError, FrameSizeError},
	{Other, Other, Other},
}

// For gives the code by which a message of version v says c: c itself, or its
// twin where v does not have c. What is no code at all becomes Other.
func (c ResultCode) For(v ProtocolVersion) ResultCode {
	for i := range codes {
		if codes[i].code != c {
			continue
		}
		if v.Is1_1() {
			return codes[i].in1_1
		}
		return codes[i].in1_0
	}
	return Other
}

// ResultCodes gives the codes that version v has.
func ResultCodes(v ProtocolVersion) []ResultCode {
	var has []ResultCode
	for i := range codes {
		if codes[i].code.For(v) == codes[i].code {
			has = append(has, codes[i].code)
		}
	}
	return has
}

// ParseResultCode reads a code as on the wire, of either version and in either
// spelling of UnkownReceiver; ok is false for a code that there is not.
func ParseResultCode(s string) (c ResultCode, ok bool) {
	if s == "UnknownReceiver" {
		return UnknownReceiver, true
	}
	for i := range codes {
		if string(codes[i].code) == s {
			return codes[i].code, true
		}
	}
	return "", false
}

// Result is the outcome of a request.
type Result struct {
	Code ResultCode
	// Description is for people at the other end; empty is none.
	Description string
}
