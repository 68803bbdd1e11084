package joinery

import (
	"errors"
	"fmt"
)

// Code says, in one word of a closed set, why a call failed. Each door maps it
// to its protocol: a TS002 result code per protocol version, an HTTP status and
// problem type.
type Code string

// The codes. Whatever else goes wrong is CodeInternal: logged once by the door,
// never explained to the outside.
const (
	CodeInternal        Code = "internal"         // a defect, or a part of us that failed
	CodeUnavailable     Code = "unavailable"      // sealed, database away, overloaded: try again later
	CodeInvalid         Code = "invalid"          // the request is not well-formed; the message names the field
	CodeTooLarge        Code = "too_large"        // over a stated bound
	CodeUnauthenticated Code = "unauthenticated"  // no credential, or not one of ours
	CodeForbidden       Code = "forbidden"        // known, and not allowed
	CodeNotFound        Code = "not_found"        // absent, or nothing that the caller may know of
	CodeConflict        Code = "conflict"         // against what is stored: exists, changed meanwhile
	CodePrecondition    Code = "precondition"     // changed since the caller read it
	CodeRateLimited     Code = "rate_limited"     // too many tries
	CodeProtocol        Code = "protocol_version" // a Backend Interfaces version that we do not speak
	CodeUnknownSender   Code = "unknown_sender"   // SenderID or NSID is not the certificate's
	CodeUnknownReceiver Code = "unknown_receiver" // ReceiverID is no JoinEUI of ours
	CodeUnknownDevice   Code = "unknown_device"   // no such device, or none that this peer may join
	CodeSuspended       Code = "suspended"        // the owner or operator suspended the device
	CodeLapsed          Code = "service_lapsed"   // the device's service term is over
	CodeAttestation     Code = "attestation"      // the device's level is below what its owner wants, or evidence proves nothing
	CodeMIC             Code = "mic_failed"       // the frame was not made with the device's key
	CodeReplay          Code = "replay"           // DevNonce or RJcount was used, or went backwards
	CodeExhausted       Code = "exhausted"        // a counter reached its end
	CodeJoinRefused     Code = "join_refused"     // anything else about this join
	CodeNoRoaming       Code = "no_roaming"       // the network is not on the device's roaming list
	CodeKEKMissing      Code = "kek_missing"      // no KEK to wrap under, and no consent to go without
)

// Error is a failure with a code. Message is for people outside: it names what
// is wrong and what to do, and never holds a secret or an echo of one. Err is
// for the log.
type Error struct {
	Code    Code
	Message string
	Err     error
}

// Error implements error, with the detail that only logs may show.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error whose message is for people outside.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WrapError makes an Error with a cause that only the log shows.
func WrapError(code Code, err error, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Err: err}
}

// CodeOf gives the code of err: CodeInternal for an error that has none, "" for
// nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// MessageOf gives what people outside may read of err; for an error without a
// code that is nothing but "internal error".
func MessageOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Message
	}
	return "internal error"
}

// ErrSwapLost says that a compare-and-swap found another version than the one
// that was read: nothing was written, and the request has to begin again from
// reading.
var ErrSwapLost = errors.New("the row was changed by somebody else meanwhile")
