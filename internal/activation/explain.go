package activation

import (
	"errors"

	"joinery"
)

// explained gives a refusal the device that it is about and the state that
// decided, for whoever keeps refusals. What the requester is told stays as it
// is. state is zero where no device was found.
func explained(err error, state *joinery.ActivationState) error {
	if err == nil || errors.Is(err, joinery.ErrSwapLost) {
		return err
	}
	r, ok := errors.AsType[*joinery.Refused](err)
	if !ok {
		known := joinery.RefusedOf(err)
		r, err = &known, &known
	}
	if r.Device != 0 {
		return err
	}
	r.Device, r.Owner = state.Device.ID, state.Device.Ownership.Org
	r.Decided.MACVersion, r.Decided.Root10 = state.Device.MACVersion, state.KeySet.Root10
	if b := state.Binding; b != nil {
		r.Decided.Bound, r.Decided.NetID, r.Decided.NSID, r.Decided.ASID = true, b.NetID, b.NSID, b.ASID
	}
	return err
}

// whyNotHome says what is wrong with a requester that isHome refuses.
func whyNotHome(b *joinery.Binding, r Requester) joinery.RefusalReason {
	switch {
	case b == nil:
		return joinery.RefusedNotBound
	case b.NetID != r.NetID:
		return joinery.RefusedOtherNetwork
	case r.NSID.IsZero():
		return joinery.RefusedNSIDMissing
	default:
		return joinery.RefusedOtherNSID
	}
}

// whyNoASKEK says why nothing wraps AppSKey for an AS-ID.
func (s *Service) whyNoASKEK(asid string) joinery.RefusalReason {
	if asid == "" {
		return joinery.RefusedNoAS
	}
	if _, ok := s.peers.PeerByASID(asid); !ok {
		return joinery.RefusedNoAS
	}
	return joinery.RefusedASKEK
}

// tooLow refuses a counter that is below next.
func tooLow(reason joinery.RefusalReason, next uint32, err error) error {
	return &joinery.Refused{Reason: reason, Decided: joinery.Decided{Next: next}, Err: err}
}

// mismatch refuses a message that speaks of another device than its frame.
func mismatch(message string) error {
	return joinery.Refuse(joinery.RefusedEUIMismatch, joinery.Errorf(joinery.CodeInvalid, "%s", message))
}

// otherAS refuses a session to an Application Server for which it was not made.
func otherAS(a joinery.Activation) error {
	return &joinery.Refused{
		Reason: joinery.RefusedOtherAS, Device: a.Device, Owner: a.Owner,
		Decided: joinery.Decided{Bound: true, NetID: a.NetID, NSID: a.NSID, ASID: a.ASID}, Err: unknownSession(),
	}
}
