package activation

import (
	"slices"

	"joinery"
)

// authorise decides, before any key is touched, whether this network may have
// this device. A peer without a binding learns nothing: the device might as
// well not exist (unless the operator lets this peer know).
func authorise(state joinery.ActivationState, r Requester) error {
	if state.Binding == nil || !isHome(*state.Binding, r) {
		if r.Peer.DiscloseDevices {
			err := joinery.Errorf(joinery.CodeForbidden, "the owner of the device has not bound it to network %s", r.NetID)
			return joinery.Refuse(whyNotHome(state.Binding, r), err)
		}
		return joinery.Refuse(whyNotHome(state.Binding, r), unknownDevice())
	}
	if state.Device.Suspended {
		return joinery.Errorf(joinery.CodeSuspended, "the device is suspended")
	}
	return nil
}

// unknownDevice is the same error for a device that is not here and for one
// that is somebody else's.
func unknownDevice() error {
	return joinery.Errorf(joinery.CodeUnknownDevice, "no such device for this network")
}

// isHome tells whether b names the requester. Backend Interfaces 1.0 knows no
// NSID; there the certificate tells which of the networks that share a NetID is
// asking, if its peer holds the NSID.
func isHome(b joinery.Binding, r Requester) bool {
	switch {
	case b.NetID != r.NetID:
		return false
	case b.NSID.IsZero():
		return true
	case r.NSID.IsZero():
		return slices.Contains(r.Peer.NSIDs, b.NSID)
	default:
		return b.NSID == r.NSID
	}
}

// appSKeyPolicy is the owner's policy, made stricter where the peer asks for
// it, or where the operator has not consented to keys in the clear.
func appSKeyPolicy(p joinery.Peer, b joinery.Binding) joinery.AppSKeyPolicy {
	policy := b.Policy.Stricter(p.AppSKeyAtLeast)
	if !p.ClearKeys {
		policy = policy.Stricter(joinery.AppSKeyWrapped)
	}
	return policy
}

// sendSessionKeyID tells whether the peer sees the SessionKeyID: always where
// it is all that it gets.
func sendSessionKeyID(p joinery.Peer, policy joinery.AppSKeyPolicy) bool {
	return policy == joinery.AppSKeyByID || !p.OmitSessionKeyID
}

// wrapping is how the session keys of one answer travel.
type wrapping struct {
	ns, as             joinery.KEK
	clearNwk, clearApp bool
}

// chooseWrapping picks the KEKs that wrap now. Where one is missing, keys
// travel in the clear only if owner and operator both said so; else the
// keyring is never asked.
func (s *Service) chooseWrapping(p joinery.Peer, b joinery.Binding, policy joinery.AppSKeyPolicy) (w wrapping, err error) {
	var ok bool
	if w.ns, ok = s.peers.CurrentKEK(p.ID, joinery.KEKForNS); !ok {
		if !p.ClearKeys || !b.ClearNwkKeys {
			return w, joinery.Refuse(joinery.RefusedNSKEK, joinery.Errorf(joinery.CodeKEKMissing, "there is no KEK for this Network Server"))
		}
		w.clearNwk = true
	}
	switch policy {
	case joinery.AppSKeyClear:
		w.clearApp = true
	case joinery.AppSKeyWrapped:
		if w.as, ok = s.asKEKOf(b); !ok {
			err := joinery.Errorf(joinery.CodeKEKMissing, "there is no KEK for the Application Server of this device")
			return w, joinery.Refuse(s.whyNoASKEK(b.ASID), err)
		}
	case joinery.AppSKeyByID:
	}
	return w, nil
}

// frozenWrapping finds the KEKs under which a was answered. It fails where one
// of them is gone, or a consent was taken back: then the answer cannot be made
// again.
func (s *Service) frozenWrapping(p joinery.Peer, b joinery.Binding, a joinery.Activation) (w wrapping, ok bool) {
	if a.NSKEK != 0 {
		if w.ns, ok = s.peers.KEK(a.NSKEK); !ok {
			return w, false
		}
	} else {
		w.clearNwk = p.ClearKeys && b.ClearNwkKeys
	}
	switch a.Policy {
	case joinery.AppSKeyClear:
		w.clearApp = p.ClearKeys && b.Policy == joinery.AppSKeyClear
	case joinery.AppSKeyWrapped:
		if w.as, ok = s.peers.KEK(a.ASKEK); !ok {
			return w, false
		}
	case joinery.AppSKeyByID:
	}
	wrapped := !w.ns.IsZero() || w.clearNwk
	return w, wrapped && (a.Policy != joinery.AppSKeyClear || w.clearApp)
}

// asKEKOf is what wraps the AppSKey of a device that is bound so.
func (s *Service) asKEKOf(b joinery.Binding) (joinery.KEK, bool) {
	if b.ASID == "" {
		return joinery.KEK{}, false
	}
	peer, ok := s.peers.PeerByASID(b.ASID)
	if !ok {
		return joinery.KEK{}, false
	}
	return s.asKEK(peer.ID, b)
}

// asKEK is what wraps the AppSKey of b for as, the peer of its AS-ID: the KEK that
// came with the network's claim, if one did, and then no other; else the peer's
// current one. Where the AS-ID is another peer's by now, the claim's KEK is not
// that peer's.
func (s *Service) asKEK(as joinery.PeerID, b joinery.Binding) (joinery.KEK, bool) {
	if b.KEK == 0 {
		return s.peers.CurrentKEK(as, joinery.KEKForAS)
	}
	kek, ok := s.peers.KEK(b.KEK)
	return kek, ok && kek.Peer == as && kek.Role == joinery.KEKForAS
}
