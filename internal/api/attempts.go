package api

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
	"joinery/internal/rekey"
	"joinery/lorawan"
)

// Attempts takes refused attempts for the custody log. It looks at nothing and
// waits for nothing: an answer takes as long whatever was refused.
type Attempts interface {
	Attempt(a *joinery.Attempt)
}

// attempted notes that a request was refused, and what it was about. Whether there is
// such a device, and who is to be told, is found out behind.
func (s *Server) attempted(operation string, caller joinery.Caller, err error, about joinery.DeviceRef) {
	s.attemptedAll(attemptAt(operation, caller, err, about))
}

// attemptAt is an attempt that somebody may have to be told of, or none.
func attemptAt(operation string, caller joinery.Caller, err error, about joinery.DeviceRef) []joinery.Attempt {
	reason := attemptReasons[joinery.CodeOf(err)]
	if reason == "" {
		return nil
	}
	a := joinery.Attempt{
		At: time.Now().UTC().Truncate(time.Millisecond), Act: operation, Reason: reason, By: caller.Name, Org: caller.Org, Operator: caller.Operator,
		Device: about.ID, JoinEUI: about.JoinEUI, DevEUI: about.DevEUI,
	}
	if more, ok := errors.AsType[*joinery.Attempted](err); ok {
		a.Learn(*more)
	}
	if a.Operator {
		a.Org = 0 // whose credential it is, not for whom it acts
	}
	if !concerns(a) {
		return nil
	}
	return []joinery.Attempt{a}
}

// maxAttempted bounds the devices of one request of which attempts are noted: who names
// thousands that are not there leaves room for what others are refused.
const maxAttempted = 32

// attemptedAll notes the attempts of one request. Of more than maxAttempted it takes some
// from a random place on, so that none hides behind others, and one about no device stands for the
// rest: whose credential it was is told that there were more.
func (s *Server) attemptedAll(list []joinery.Attempt) {
	if s.Attempts == nil {
		return
	}
	if len(list) > maxAttempted {
		var b [8]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		from := int(binary.BigEndian.Uint64(b[:]) % uint64(len(list)))
		list = slices.Concat(list[from:], list[:from])[:maxAttempted]
		rest := list[0]
		rest.Reason, rest.Device, rest.JoinEUI, rest.DevEUI = joinery.AttemptOther, 0, lorawan.EUI64{}, lorawan.EUI64{}
		if concerns(rest) {
			list = append(list, rest)
		}
	}
	for i := range list {
		s.Attempts.Attempt(&list[i])
	}
}

// attemptReasons says what refusals of who asks look like. Others are of the state of
// things, or of the form of the request.
var attemptReasons = map[joinery.Code]joinery.AttemptReason{
	joinery.CodeUnauthenticated: joinery.AttemptNoCredential,
	joinery.CodeForbidden:       joinery.AttemptNotAllowed,
	joinery.CodeNotFound:        joinery.AttemptNotHeld,
	joinery.CodeConflict:        joinery.AttemptOwned,
	joinery.CodeRateLimited:     joinery.AttemptTooMany,
}

// concerns tells whether there may be somebody to be told of an attempt.
func concerns(a joinery.Attempt) bool {
	named := a.Device != 0 || !a.DevEUI.IsZero()
	switch a.Reason {
	case joinery.AttemptOwned, joinery.AttemptTooMany: // of a claim; else nobody may not
		return named && slices.Contains([]string{"claimDevice", "openDispute", "changeOwnership"}, a.Act)
	}
	return named || !a.Reason.OfHolder() && (a.Org != 0 || a.Operator)
}

// claimAt is attemptAt for what shows an owner token: of a wrong one the custody log
// has a count of its own for who holds the device.
func claimAt(operation string, caller joinery.Caller, err error, joinEUI, devEUI lorawan.EUI64, withToken bool) []joinery.Attempt {
	about := joinery.DeviceRef{JoinEUI: joinEUI, DevEUI: devEUI}
	if withToken && joinery.CodeOf(err) == joinery.CodeForbidden {
		about = joinery.DeviceRef{}
	}
	if operation == "openDispute" && joinery.CodeOf(err) == joinery.CodeConflict {
		return nil // the challenge was used, it is disputed already, or nobody holds it
	}
	return attemptAt(operation, caller, err, about)
}

// attemptedBy notes that the request of a route was refused.
func (s *Server) attemptedBy(operation string, caller joinery.Caller, err error, in any) {
	switch in := in.(type) {
	case interface {
		parse() (joinery.DeviceID, error)
	}:
		id, _ := in.parse()
		s.attempted(operation, caller, err, joinery.DeviceRef{ID: id})
	case *body[client.NewClaim]:
		s.attemptedAll(claimAt(operation, caller, err, in.Body.JoinEUI, in.Body.DevEUI, true))
	case *body[client.RoamingRule]:
		s.attempted(operation, caller, err, joinery.DeviceRef{ID: in.Body.Device})
	case *body[client.NewDispute]:
		s.attemptedAll(claimAt(operation, caller, err, in.Body.JoinEUI, in.Body.DevEUI, in.Body.OwnerToken != ""))
	default:
		s.attempted(operation, caller, err, joinery.DeviceRef{})
	}
}

// pathDevice is the device that the path of a request names, zero for none: before
// anything else of the request was looked at.
func pathDevice(r *http.Request) (id joinery.DeviceID) {
	if strings.HasPrefix(r.URL.Path, client.BasePath+"/devices/") {
		_ = id.UnmarshalText([]byte(r.PathValue("id"))) // or it is none
	}
	return id
}

// actAt is attemptAt for one act of a batch.
func actAt(caller joinery.Caller, a claim.Act, o claim.Outcome) []joinery.Attempt {
	switch {
	case a.Kind == claim.Claiming:
		return claimAt("changeOwnership", caller, o.Err, a.JoinEUI, a.DevEUI, true)
	case joinery.CodeOf(o.Err) == joinery.CodeConflict:
		return nil
	}
	return attemptAt("changeOwnership", caller, o.Err, joinery.DeviceRef{ID: a.Device, JoinEUI: a.JoinEUI, DevEUI: a.DevEUI})
}

// notHeld is what who asks for a device of others is told.
func notHeld() error { return joinery.Errorf(joinery.CodeNotFound, "no such device") }

// attemptedAbsent notes devices of a request that are none of the caller's.
func (s *Server) attemptedAbsent(operation string, caller joinery.Caller, refs []joinery.DeviceRef, absent []int) {
	var list []joinery.Attempt
	for _, i := range absent {
		list = append(list, attemptAt(operation, caller, notHeld(), refs[i])...)
	}
	s.attemptedAll(list)
}

// attemptedLeftOut is attemptedAbsent for what a file leaves out.
func (s *Server) attemptedLeftOut(operation string, caller joinery.Caller, f rekey.File) {
	var list []joinery.Attempt
	for _, l := range f.LeftOut {
		if l.Code == joinery.CodeNotFound {
			list = append(list, attemptAt(operation, caller, notHeld(), joinery.DeviceRef{ID: l.Device})...)
		}
	}
	s.attemptedAll(list)
}
