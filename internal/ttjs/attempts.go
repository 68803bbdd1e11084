package ttjs

import (
	"errors"
	"net/http"
	"time"

	"joinery"
	"joinery/internal/claim"
	"joinery/lorawan"
)

// attempted notes for the custody log that a caller was refused, and the device of the
// path, if there is one. The act is the route.
func (s *Server) attempted(r *http.Request, caller joinery.Caller, err error) {
	a := joinery.Attempt{By: caller.Name, Org: caller.Org, Operator: caller.Operator}
	switch joinery.CodeOf(err) {
	case joinery.CodeUnauthenticated:
		a.Reason = joinery.AttemptNoCredential
	case joinery.CodeForbidden:
		a.Reason = joinery.AttemptNotAllowed
	case joinery.CodeNotFound:
		a.Reason = joinery.AttemptNotHeld
	default:
		return
	}
	if more, ok := errors.AsType[*joinery.Attempted](err); ok {
		a.Learn(*more)
	}
	if d, err := deviceOf(r); err == nil {
		a.DevEUI = d.DevEUI
		if d.JoinEUI != nil {
			a.JoinEUI = *d.JoinEUI
		}
	}
	s.attempt(r, a)
}

// attemptedAs notes that an Application Server was refused a device that is bound
// otherwise. Wrong owner tokens have a count of their own.
func (s *Server) attemptedAs(r *http.Request, peer joinery.Peer, devEUI lorawan.EUI64, err error) {
	if errors.Is(err, claim.ErrHeldByOther) {
		s.attempt(r, joinery.Attempt{Reason: joinery.AttemptNotHeld, By: "peer " + peer.ID.String(), Org: peer.Org, DevEUI: devEUI})
	}
}

func (s *Server) attempt(r *http.Request, a joinery.Attempt) {
	if s.Attempts == nil || a.DevEUI.IsZero() && (a.Reason.OfHolder() || a.Org == 0 && !a.Operator) {
		return
	}
	a.At, a.Act = time.Now().UTC().Truncate(time.Millisecond), r.Pattern
	if a.Operator {
		a.Org = 0 // whose credential it is, not for whom it acts
	}
	s.Attempts.Attempt(&a)
}
