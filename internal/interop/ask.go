package interop

import (
	"context"
	"slices"

	"joinery/backend"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// ask puts a well-formed request of a proven sender to the Joiner and takes its
// answer into x.answer.
func (s *Server) ask(ctx context.Context, x *exchange) error {
	r := &x.request
	switch r.MessageType {
	case backend.TypeJoinReq:
		answer, err := s.opt.Joins.Join(ctx, x.joinRequest())
		return x.takeJoin(&answer, err)
	case backend.TypeRejoinReq:
		answer, err := s.opt.Joins.Rejoin(ctx, x.joinRequest())
		return x.takeJoin(&answer, err)
	case backend.TypeAppSKeyReq:
		envelope, err := s.opt.Joins.AppSKey(ctx, activation.AppSKeyRequest{
			Peer: x.peer, ASID: r.SenderID, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, SessionKeyID: r.SessionKeyID,
		})
		if err == nil {
			x.answer.AppSKey = backend.KeyEnvelope(envelope)
		}
		return err
	case backend.TypeHomeNSReq:
		answer, err := s.opt.Joins.HomeNS(ctx, activation.HomeNSRequest{
			Requester: x.requester(), JoinEUI: r.JoinEUI, DevEUI: r.DevEUI,
		})
		if err == nil {
			x.answer.HNetID, x.answer.HNSID = answer.HNetID, answer.HNSID
		}
		return err
	}
	return errInternal // Parse lets no other type through
}

// requester is who asks, as far as the certificate proves it. IgnoreNSID lets a
// peer send any NSID, but not be taken for the network that has it: where the
// NSID is not the peer's own, it counts as none.
func (x *exchange) requester() activation.Requester {
	r := activation.Requester{Peer: x.peer, NetID: x.request.NetID, NSID: x.request.NSID}
	if !slices.Contains(x.peer.NSIDs, r.NSID) {
		r.NSID = lorawan.EUI64{}
	}
	return r
}

func (x *exchange) joinRequest() activation.JoinRequest {
	r := &x.request
	return activation.JoinRequest{
		Requester:  x.requester(),
		JoinEUI:    r.JoinEUI,
		DevEUI:     r.DevEUI,
		MACVersion: r.MACVersion,
		PHYPayload: r.PHYPayload,
		DevAddr:    r.DevAddr,
		DLSettings: r.DLSettings,
		RxDelay:    r.RxDelay,
		CFList:     r.CFList,
	}
}

func (x *exchange) takeJoin(answer *activation.JoinAnswer, err error) error {
	if err != nil {
		return err
	}
	a := &x.answer
	a.PHYPayload = answer.PHYPayload
	a.Lifetime = answer.Lifetime
	a.NwkSKey = backend.KeyEnvelope(answer.NwkSKey)
	a.SNwkSIntKey = backend.KeyEnvelope(answer.SNwkSIntKey)
	a.FNwkSIntKey = backend.KeyEnvelope(answer.FNwkSIntKey)
	a.NwkSEncKey = backend.KeyEnvelope(answer.NwkSEncKey)
	a.AppSKey = backend.KeyEnvelope(answer.AppSKey)
	a.SessionKeyID = answer.SessionKeyID
	return nil
}
