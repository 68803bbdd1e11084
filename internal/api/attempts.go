package api

import (
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
	reason := attemptReasons[joinery.CodeOf(err)]
	if reason == "" || s.Attempts == nil {
		return
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
	if concerns(a) {
		s.Attempts.Attempt(&a)
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

// attemptedClaim is attempted for what shows an owner token: of a wrong one the
// custody log has a count of its own for who holds the device.
func (s *Server) attemptedClaim(operation string, caller joinery.Caller, err error, joinEUI, devEUI lorawan.EUI64, withToken bool) {
	about := joinery.DeviceRef{JoinEUI: joinEUI, DevEUI: devEUI}
	if withToken && joinery.CodeOf(err) == joinery.CodeForbidden {
		about = joinery.DeviceRef{}
	}
	if operation == "openDispute" && joinery.CodeOf(err) == joinery.CodeConflict {
		return // the challenge was used, it is disputed already, or nobody holds it
	}
	s.attempted(operation, caller, err, about)
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
		s.attemptedClaim(operation, caller, err, in.Body.JoinEUI, in.Body.DevEUI, true)
	case *body[client.RoamingRule]:
		s.attempted(operation, caller, err, joinery.DeviceRef{ID: in.Body.Device})
	case *body[client.NewDispute]:
		s.attemptedClaim(operation, caller, err, in.Body.JoinEUI, in.Body.DevEUI, in.Body.OwnerToken != "")
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

// attemptedAct notes that one act of a batch was refused.
func (s *Server) attemptedAct(caller joinery.Caller, a claim.Act, o claim.Outcome) {
	if a.Kind == claim.Claiming {
		s.attemptedClaim("changeOwnership", caller, o.Err, a.JoinEUI, a.DevEUI, true)
	} else if joinery.CodeOf(o.Err) != joinery.CodeConflict {
		s.attempted("changeOwnership", caller, o.Err, joinery.DeviceRef{ID: a.Device, JoinEUI: a.JoinEUI, DevEUI: a.DevEUI})
	}
}

// notHeld is what who asks for a device of others is told.
func notHeld() error { return joinery.Errorf(joinery.CodeNotFound, "no such device") }

// attemptedAbsent notes devices of a request that are none of the caller's.
func (s *Server) attemptedAbsent(operation string, caller joinery.Caller, refs []joinery.DeviceRef, absent []int) {
	for _, i := range absent {
		s.attempted(operation, caller, notHeld(), refs[i])
	}
}

// attemptedLeftOut is attemptedAbsent for what a file leaves out.
func (s *Server) attemptedLeftOut(operation string, caller joinery.Caller, f rekey.File) {
	for _, l := range f.LeftOut {
		if l.Code == joinery.CodeNotFound {
			s.attempted(operation, caller, notHeld(), joinery.DeviceRef{ID: l.Device})
		}
	}
}
