package activation

import (
	"context"
	"time"

	"joinery"
)

// AppSKey gives the AppSKey of a session to the Application Server for which
// that session was made, wrapped under the KEK of its binding now, as long as
// the binding under which it was made stands (TS002-1.0 §10). Whoever else asks
// learns only that there is no such device for them.
func (s *Service) AppSKey(ctx context.Context, req AppSKeyRequest) (_ Envelope, err error) {
	a, err := s.findSession(ctx, req)
	if err != nil {
		return Envelope{}, err
	}
	defer func() { err = explainedOf(err, a) }()
	state, err := s.store.LoadActivation(ctx, req.JoinEUI, req.DevEUI)
	if err != nil {
		if joinery.CodeOf(err) == joinery.CodeUnknownDevice {
			return Envelope{}, joinery.Refuse(joinery.RefusedSessionEnded, unknownSession())
		}
		return Envelope{}, storeError(err)
	}
	if !sessionStands(a, state) {
		return Envelope{}, joinery.Refuse(joinery.RefusedSessionEnded, unknownSession())
	}
	if state.Device.Suspended {
		return Envelope{}, joinery.Errorf(joinery.CodeSuspended, "the device is suspended")
	}
	kek, ok := s.asKEK(req.Peer.ID, *state.Binding)
	if !ok {
		return Envelope{}, joinery.Refuse(joinery.RefusedASKEK, joinery.Errorf(joinery.CodeKEKMissing, "there is no KEK for this Application Server"))
	}
	envelope, err := s.keys.AppSKey(ctx, state.KeySet, a, kek)
	if err != nil {
		return Envelope{}, keyringError(err)
	}
	if _, err := s.currentPeer(req.Peer.ID); err != nil {
		return Envelope{}, err
	}
	if err := s.fetched(ctx, s.fetchEntry(req, a, state, kek)); err != nil {
		return Envelope{}, storeError(err)
	}
	return envelope, nil
}

// fetchEntry says that an AppSKey leaves: whose, to whom, of which session, under
// which KEK.
func (s *Service) fetchEntry(req AppSKeyRequest, a joinery.Activation, state joinery.ActivationState, kek joinery.KEK) joinery.AuditEntry {
	return joinery.AuditEntry{
		At: s.now().UTC().Truncate(time.Millisecond), Event: joinery.AuditAppSKeyFetched, Actor: "peer " + req.Peer.ID.String(),
		Org: state.Device.Ownership.Org, Device: state.Device.ID, Peer: req.Peer.ID,
		Detail: map[string]string{"activation": a.ID.String(), "asID": a.ASID, "kek": kek.Label},
	}
}

// findSession finds the activation that SessionKeyID names, if it is this
// Application Server's and this device's.
func (s *Service) findSession(ctx context.Context, req AppSKeyRequest) (joinery.Activation, error) {
	if !s.peers.ServesJoinEUI(req.JoinEUI) {
		return joinery.Activation{}, joinery.Errorf(joinery.CodeUnknownReceiver, "this Join Server does not serve JoinEUI %s", req.JoinEUI)
	}
	if len(req.SessionKeyID) != len(joinery.SessionKeyID{}) {
		return joinery.Activation{}, joinery.Refuse(joinery.RefusedSessionUnknown, unknownSession())
	}
	id := joinery.SessionKeyID(req.SessionKeyID)
	a, err := s.store.Activation(ctx, id.ActivationID())
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		return joinery.Activation{}, joinery.Refuse(joinery.RefusedSessionUnknown, unknownSession())
	}
	if err != nil {
		return joinery.Activation{}, storeError(err)
	}
	if a.SessionKeyID != id || a.JoinEUI != req.JoinEUI || a.DevEUI != req.DevEUI {
		return joinery.Activation{}, joinery.Refuse(joinery.RefusedSessionUnknown, unknownSession())
	}
	if a.ASID == "" || a.ASID != req.ASID {
		return joinery.Activation{}, explainedOf(joinery.Refuse(joinery.RefusedOtherAS, unknownSession()), a)
	}
	return a, nil
}

func sessionStands(a joinery.Activation, state joinery.ActivationState) bool {
	return state.Binding != nil &&
		a.Device == state.Device.ID &&
		a.KeySet == state.KeySet.ID &&
		a.BindingEpoch == state.Binding.Epoch &&
		a.ASID == state.Binding.ASID
}

func unknownSession() error {
	return joinery.Errorf(joinery.CodeUnknownDevice, "no such session of this device for this Application Server")
}

// HomeNS names the home network of a device to its home itself and to networks
// on its roaming list (TS002-1.0 §12). To every other network it says the same,
// whether the device exists or not.
func (s *Service) HomeNS(ctx context.Context, req HomeNSRequest) (_ HomeNSAnswer, err error) {
	if !s.peers.ServesJoinEUI(req.JoinEUI) {
		return HomeNSAnswer{}, joinery.Errorf(joinery.CodeUnknownReceiver, "this Join Server does not serve JoinEUI %s", req.JoinEUI)
	}
	state, err := s.store.LoadActivation(ctx, req.JoinEUI, req.DevEUI)
	defer func() { err = explained(err, &state) }()
	if err != nil {
		if joinery.CodeOf(err) == joinery.CodeUnknownDevice {
			return HomeNSAnswer{}, noRoaming(req)
		}
		return HomeNSAnswer{}, storeError(err)
	}
	home := state.Binding != nil && isHome(*state.Binding, req.Requester)
	if !home {
		allowed, err := s.store.RoamingAllowed(ctx, state.Device.Ownership.Org, state.Device.ID, req.NetID)
		if err != nil {
			return HomeNSAnswer{}, storeError(err)
		}
		if !allowed {
			return HomeNSAnswer{}, noRoaming(req)
		}
	}
	if state.Binding == nil {
		return HomeNSAnswer{}, joinery.Refuse(joinery.RefusedNotBound, joinery.Errorf(joinery.CodeUnknownDevice, "the device is bound to no network"))
	}
	return HomeNSAnswer{HNetID: state.Binding.NetID, HNSID: state.Binding.NSID}, nil
}

func noRoaming(req HomeNSRequest) error {
	return joinery.Errorf(joinery.CodeNoRoaming, "network %s is not on the roaming list of such a device", req.NetID)
}
