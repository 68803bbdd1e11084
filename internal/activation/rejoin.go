package activation

import (
	"context"
	"errors"

	"joinery"
	"joinery/internal/keyring"
	"joinery/lorawan"
)

// Rejoin answers a rejoin-request of type 0, 1 or 2 (TS001-1.1 §6.2.4). Types 0
// and 2 are signed with SNwkSIntKey of a session, so the newest activations are
// tried; type 1 is signed with JSIntKey. Only 1.1 devices rejoin, and only into
// a 1.1 session.
func (s *Service) Rejoin(ctx context.Context, req JoinRequest) (JoinAnswer, error) {
	frame, err := s.readRejoin(req)
	if err != nil {
		return JoinAnswer{}, err
	}
	return s.serialised(ctx, req, func(ctx context.Context, req JoinRequest) (JoinAnswer, error) {
		return s.tryRejoin(ctx, req, frame)
	})
}

func (s *Service) tryRejoin(ctx context.Context, req JoinRequest, frame lorawan.RejoinRequest) (_ JoinAnswer, err error) {
	state, err := s.load(ctx, req)
	defer func() { err = explained(err, &state) }()
	if err != nil {
		return JoinAnswer{}, err
	}
	if hasMoved(state) {
		return JoinAnswer{}, moved()
	}
	sessions, err := s.sessionsOf(ctx, state, frame)
	if err != nil {
		return JoinAnswer{}, err
	}
	session, err := s.verifyRejoin(ctx, state, req.PHYPayload, frame, sessions)
	if err != nil {
		return JoinAnswer{}, err
	}
	typ := joinery.JoinType(frame.Type)
	hash := frameHash(typ, req)
	if answer, ok, err := s.answerAgain(ctx, req, state, hash, session); ok || err != nil {
		return answer, err
	}
	// Nobody leaves by a rejoin: its accept never carries an instruction to rekey.
	if err := s.checkAttested(state.Device); err != nil {
		return JoinAnswer{}, err
	}
	accepted, refusal := takeRJCount(state.KeySet.Nonces, req.JoinEUI, frame, session)
	if refusal == nil {
		refusal = checkJoinNonce(state.KeySet.Nonces)
	}
	if refusal != nil {
		return JoinAnswer{}, refusal
	}

	a := s.freeze(req, state, typ, uint16(frame.RJCount), hash)
	return s.acceptAndCommit(ctx, req, state, session, a, accepted)
}

// sessionsOf reads the sessions from which the device may be speaking, newest
// first. A session qualifies if it is a 1.1 session under this JoinEUI in the
// network that the frame names. Erased activations are no sessions any more.
func (s *Service) sessionsOf(ctx context.Context, state joinery.ActivationState, frame lorawan.RejoinRequest) ([]joinery.Activation, error) {
	if frame.Type == lorawan.Rejoin1 {
		return nil, nil
	}
	// TS001-1.1 §6.2.4.1: the NetID is that of the session; it has to be the
	// device's home still.
	if frame.NetID != state.Binding.NetID {
		err := joinery.Errorf(joinery.CodeJoinRefused, "NetID in the rejoin-request is not the device's home network")
		return nil, joinery.Refuse(joinery.RefusedRejoinNetID, err)
	}
	var sessions []joinery.Activation
	for _, recent := range state.KeySet.Nonces.Recent {
		a, err := s.store.Activation(ctx, recent.ID)
		switch {
		case joinery.CodeOf(err) == joinery.CodeNotFound:
		case err != nil:
			return nil, storeError(err)
		case a.OptNeg && a.NetID == frame.NetID && a.KeySet == state.KeySet.ID:
			sessions = append(sessions, a)
		}
	}
	return sessions, nil
}

// verifyRejoin checks the MIC and gives the session whose key made it; nil for
// type 1.
func (s *Service) verifyRejoin(ctx context.Context, state joinery.ActivationState, phy []byte, frame lorawan.RejoinRequest, sessions []joinery.Activation) (*joinery.Activation, error) {
	if frame.Type != lorawan.Rejoin1 && len(sessions) == 0 {
		return nil, joinery.Refuse(joinery.RefusedNoSession, keyringError(keyring.ErrMIC))
	}
	i, err := s.keys.VerifyRejoin(ctx, state.KeySet, phy, sessions)
	if err != nil {
		return nil, keyringError(err)
	}
	if frame.Type == lorawan.Rejoin1 {
		return nil, nil //nolint:nilnil // type 1 speaks from no session
	}
	return &sessions[i], nil
}

// readRejoin checks a RejoinReq by itself, before anything is looked up.
func (s *Service) readRejoin(req JoinRequest) (lorawan.RejoinRequest, error) {
	frame, err := lorawan.ParseRejoinRequest(req.PHYPayload)
	if err != nil {
		err = joinery.WrapError(joinery.CodeInvalid, err, "PHYPayload is not a rejoin-request of type 0, 1 or 2")
		return frame, joinery.Refuse(joinery.RefusedFrame, err)
	}
	if err := s.checkRequest(req, frame.DevEUI); err != nil {
		return frame, err
	}
	switch {
	case !req.MACVersion.Rejoins():
		return frame, joinery.Errorf(joinery.CodeInvalid, "MACVersion %s has no rejoin-request", req.MACVersion)
	case frame.Type == lorawan.Rejoin1 && frame.JoinEUI != req.JoinEUI:
		return frame, mismatch("JoinEUI in PHYPayload differs from ReceiverID")
	}
	return frame, nil
}

// keyringError gives an error of custody its code. What is wrong inside our own
// house is for the log only.
func keyringError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrMIC):
		return joinery.WrapError(joinery.CodeMIC, err, "the MIC does not match the device's key")
	case errors.Is(err, keyring.ErrNoKEK):
		return joinery.WrapError(joinery.CodeKEKMissing, err, "there is no KEK to wrap a session key under")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return joinery.WrapError(joinery.CodeUnavailable, err, "the request took too long")
	case errors.Is(err, keyring.ErrToken):
		return joinery.WrapError(joinery.CodeUnavailable, err, "the device's keys cannot be used right now; try again")
	default:
		return joinery.WrapError(joinery.CodeInternal, err, "the device's keys cannot be used")
	}
}

// storeError gives an error of state its code, if it has none.
func storeError(err error) error {
	var coded *joinery.Error
	switch {
	case errors.Is(err, joinery.ErrSwapLost), errors.As(err, &coded):
		return err
	default:
		return joinery.WrapError(joinery.CodeUnavailable, err, "the state cannot be reached; try again")
	}
}
