package activation

import (
	"context"

	"joinery"
	"joinery/lorawan"
)

// Join answers a join-request (TS001-1.0.4 §6.2.5, TS001-1.1 §6.2.2). Its
// errors carry a joinery.Code; the order of the checks is who asks, whether the
// owner wants it, the service term, what the device has shown, MIC, nonces, commit (a party that cannot make a MIC learns
// nothing about nonces).
func (s *Service) Join(ctx context.Context, req JoinRequest) (JoinAnswer, error) {
	frame, err := s.readJoin(req)
	if err != nil {
		return JoinAnswer{}, err
	}
	return s.serialised(ctx, req, func(ctx context.Context, req JoinRequest) (JoinAnswer, error) {
		return s.tryJoin(ctx, req, frame)
	})
}

func (s *Service) tryJoin(ctx context.Context, req JoinRequest, frame lorawan.JoinRequest) (_ JoinAnswer, err error) {
	state, err := s.load(ctx, req)
	defer func() { err = explained(err, &state) }()
	if err != nil {
		return JoinAnswer{}, err
	}
	if state, err = s.settleRekeying(ctx, req, state); err != nil {
		return JoinAnswer{}, err
	}
	hash := frameHash(joinery.JoinTypeJoin, req)
	if answer, ok, err := s.answerAgain(ctx, req, state, hash, nil); ok || err != nil {
		return answer, err
	}
	if !isLetGo(state, s.now()) {
		if err := s.checkTerm(state.Device); err != nil {
			return JoinAnswer{}, err
		}
	}
	if !canInstruct(state, s.now()) { // whoever leaves is let go
		if err := s.checkAttested(state.Device); err != nil {
			return JoinAnswer{}, err
		}
	}
	accepted, refusal := s.takeNonces(state, req, frame)
	if refusal != nil {
		return JoinAnswer{}, s.refuseAfterMIC(ctx, state, req.PHYPayload, refusal)
	}
	state, instructed, err := s.instruct(ctx, req, state)
	if err != nil {
		return JoinAnswer{}, err
	}
	if instructed { // the device was read again
		if accepted, refusal = s.takeNonces(state, req, frame); refusal != nil {
			return JoinAnswer{}, refusal
		}
	}

	a := s.freeze(req, state, joinery.JoinTypeJoin, uint16(frame.DevNonce), hash)
	if instructed {
		// In the place of the network's list: the device does without these
		// channels for as long as it takes to leave.
		a.CFList = state.Rekeying.Order.Rekey.CFList()
	}
	return s.acceptAndCommit(ctx, req, state, nil, a, accepted)
}

// takeNonces judges the numbers of a join-request and gives the nonces after it.
func (s *Service) takeNonces(state joinery.ActivationState, req JoinRequest, frame lorawan.JoinRequest) (joinery.Nonces, error) {
	accepted, refusal := takeDevNonce(state, req.JoinEUI, frame.DevNonce, s.now())
	if refusal == nil {
		refusal = checkJoinNonce(state.KeySet.Nonces)
	}
	return accepted, refusal
}

// acceptAndCommit wraps, computes and commits: the part that every accepted
// request shares. nonces are those of the key set after this request, but for
// what the activation itself adds.
func (s *Service) acceptAndCommit(ctx context.Context, req JoinRequest, state joinery.ActivationState, session *joinery.Activation, a joinery.Activation, nonces joinery.Nonces) (JoinAnswer, error) {
	w, err := s.chooseWrapping(req.Peer, *state.Binding, a.Policy)
	if err != nil {
		return JoinAnswer{}, err
	}
	a.NSKEK, a.ASKEK = w.ns.ID, w.as.ID
	answer, err := s.compute(ctx, req.PHYPayload, state, session, a, w)
	if err != nil {
		return JoinAnswer{}, err
	}
	nonces.JoinNonce = a.JoinNonce
	var from joinery.ActivationID
	if session != nil {
		from = session.ID
	}
	nonces = nonces.WithActivation(joinery.RecentActivation{ID: a.ID, Tag: [8]byte(a.FrameHash[:8])}, from)
	if err := s.commit(ctx, state, nonces, a); err != nil {
		return JoinAnswer{}, err
	}
	// Whoever was removed while all this took its time gets nothing.
	if _, err := s.currentPeer(req.Peer.ID); err != nil {
		return JoinAnswer{}, err
	}
	return answer, nil
}

// load reads the device and decides whether this network may have it, in this
// version.
func (s *Service) load(ctx context.Context, req JoinRequest) (joinery.ActivationState, error) {
	state, err := s.store.LoadActivation(ctx, req.JoinEUI, req.DevEUI)
	if err != nil {
		if joinery.CodeOf(err) == joinery.CodeUnknownDevice {
			return state, explained(joinery.Refuse(joinery.RefusedUnknownDevice, unknownDevice()), &state)
		}
		return state, storeError(err)
	}
	if err := authorise(state, req.Requester); err != nil {
		return state, explained(err, &state)
	}
	if !state.Device.MACVersion.Serves(req.MACVersion) {
		err := joinery.Errorf(joinery.CodeJoinRefused,
			"the device is provisioned as LoRaWAN %s and cannot join as %s", state.Device.MACVersion, req.MACVersion)
		return state, explained(joinery.Refuse(joinery.RefusedMACVersion, err), &state)
	}
	return state, nil
}

// refuseAfterMIC gives the refusal only to who holds a frame that the device
// made; for every other frame the MIC is what is wrong.
func (s *Service) refuseAfterMIC(ctx context.Context, state joinery.ActivationState, frame []byte, refusal error) error {
	if err := s.keys.VerifyJoin(ctx, state.KeySet, frame); err != nil {
		return keyringError(err)
	}
	return refusal
}

// readJoin checks a JoinReq by itself, before anything is looked up.
func (s *Service) readJoin(req JoinRequest) (lorawan.JoinRequest, error) {
	frame, err := lorawan.ParseJoinRequest(req.PHYPayload)
	if err != nil {
		err = joinery.WrapError(joinery.CodeInvalid, err, "PHYPayload is not a join-request of %d bytes", lorawan.JoinRequestLen)
		return frame, joinery.Refuse(joinery.RefusedFrame, err)
	}
	if err := s.checkRequest(req, frame.DevEUI); err != nil {
		return frame, err
	}
	if frame.JoinEUI != req.JoinEUI {
		return frame, mismatch("JoinEUI in PHYPayload differs from ReceiverID")
	}
	return frame, nil
}

// checkRequest checks what JoinReq and RejoinReq share.
func (s *Service) checkRequest(req JoinRequest, frameDevEUI lorawan.EUI64) error {
	switch {
	case !s.peers.ServesJoinEUI(req.JoinEUI):
		return joinery.Errorf(joinery.CodeUnknownReceiver, "this Join Server does not serve JoinEUI %s", req.JoinEUI)
	case frameDevEUI != req.DevEUI:
		return mismatch("DevEUI in PHYPayload differs from DevEUI in the message")
	case req.CFList.IsRekey():
		// Only we tell devices to rekey. A list of that type from a network is an
		// attempt to lead one away, or it will be taken for one.
		err := joinery.Errorf(joinery.CodeInvalid, "CFList: type %02X is no list of channels", lorawan.CFListTypeRekey)
		return joinery.Refuse(joinery.RefusedCFList, err)
	case req.RxDelay > 15:
		return joinery.Errorf(joinery.CodeInvalid, "RxDelay: want 0 to 15")
	case !req.MACVersion.Valid():
		return joinery.Errorf(joinery.CodeInvalid, "MACVersion: unknown")
	case req.MACVersion.NegotiatesOptions() != req.DLSettings.OptNeg():
		// A device decides by the bit which keys it derives, a network by the
		// version which keys it asks for: they must say the same.
		err := joinery.Errorf(joinery.CodeInvalid, "OptNeg in DLSettings does not agree with MACVersion %s", req.MACVersion)
		return joinery.Refuse(joinery.RefusedOptNeg, err)
	}
	return nil
}
