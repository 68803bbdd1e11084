package interop

import (
	"joinery"
	"joinery/backend"
)

// resultCodes is the one table from our codes to those of the protocol, as
// version 1.1 has them; backend.ResultCode.For gives a 1.0 peer the twin that it
// knows.
var resultCodes = map[joinery.Code]backend.ResultCode{
	joinery.CodeInternal:        backend.Other,
	joinery.CodeUnavailable:     backend.Other,
	joinery.CodeInvalid:         backend.MalformedMessage,
	joinery.CodeTooLarge:        backend.MalformedMessage,
	joinery.CodeUnauthenticated: backend.UnknownSender,
	joinery.CodeForbidden:       backend.ActivationDisallowed,
	joinery.CodeNotFound:        backend.UnknownDevEUI,
	joinery.CodeConflict:        backend.Other,
	joinery.CodePrecondition:    backend.Other,
	joinery.CodeRateLimited:     backend.Other,
	joinery.CodeProtocol:        backend.InvalidProtocolVersion,
	joinery.CodeUnknownSender:   backend.UnknownSender,
	joinery.CodeUnknownReceiver: backend.UnknownReceiver,
	joinery.CodeUnknownDevice:   backend.UnknownDevEUI,
	joinery.CodeSuspended:       backend.ActivationDisallowed,
	joinery.CodeLapsed:          backend.ActivationDisallowed,
	joinery.CodeAttestation:     backend.ActivationDisallowed,
	joinery.CodeMIC:             backend.MICFailed,
	joinery.CodeReplay:          backend.FrameReplayed,
	joinery.CodeExhausted:       backend.JoinReqFailed,
	joinery.CodeJoinRefused:     backend.JoinReqFailed,
	joinery.CodeNoRoaming:       backend.NoRoamingAgreement,
	joinery.CodeKEKMissing:      backend.Other,
}

// resultOf tells err in version v. Of what failed inside our own house nothing
// is told but that it did.
func resultOf(err error, v backend.ProtocolVersion) backend.Result {
	if err == nil {
		return backend.Result{Code: backend.Success}
	}
	code, known := resultCodes[joinery.CodeOf(err)]
	if !known {
		code = backend.Other
	}
	return backend.Result{Code: code.For(v), Description: joinery.MessageOf(err)}
}
