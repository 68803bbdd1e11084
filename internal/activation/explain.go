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
	r, err := refused(err)
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

// explainedOf is explained for what was asked about a session. It belongs to the
// device and the owner of that session, whoever holds the device by now: the
// next owner must not learn who served the one before.
func explainedOf(err error, a joinery.Activation) error {
	if err == nil {
		return nil
	}
	r, err := refused(err)
	r.Device, r.Owner = a.Device, a.Owner
	r.Decided = joinery.Decided{Bound: true, NetID: a.NetID, NSID: a.NSID, ASID: a.ASID}
	return err
}

// refused gives what is known of a refusal, to be completed, and err with it.
func refused(err error) (*joinery.Refused, error) {
	if r, ok := errors.AsType[*joinery.Refused](err); ok {
		return r, err
	}
	known := joinery.RefusedOf(err)
	return &known, &known
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
