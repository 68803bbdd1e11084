package api

import (
	"context"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/internal/refusal"
	"joinery/lorawan"
)

type peerRefusalsInput struct {
	PeerPath
	Limit int `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"At most this many devices"`
}

func (s *Server) registerRefusals() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/refusals", id: "explainDevice", tag: "devices",
		summary: "Why a device does not join",
		description: "What was refused while the caller's organisation held it, by peer and reason: what the last request said, the state that decided, " +
			"and what to do. Not every request is kept: see the bounds in docs/explain.md."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.DeviceExplanation], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			d, err := s.Refusals.Device(ctx, caller, id)
			return ok(client.DeviceExplanation{
				Device: device(d.State), Summary: each(d.Summary, same), Refusals: each(d.Refusals, refused),
				Joins: each(d.Joins, activation), NotKept: d.NotKept,
			}), err
		})
	route(s, spec{method: http.MethodGet, path: "/peers/{id}/refusals", id: "listPeerRefusals", tag: "peers",
		summary: "What a peer was refused",
		description: "To the operator, with the devices. To the organisation that holds the peer only totals, for the reasons that the peer was told: " +
			"which devices are here, and whose, is not for it to know."},
		func(ctx context.Context, caller joinery.Caller, in *peerRefusalsInput) (*body[client.PeerRefusals], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			p, err := s.Refusals.Peer(ctx, caller, id, in.Limit)
			return ok(client.PeerRefusals{
				Totals: each(p.Totals, refused), Devices: each(p.Devices, refused), Unknown: each(p.Unknown, refused), NotKept: p.NotKept,
			}), err
		})
}

func refused(e refusal.Explained) client.Refusal {
	out := client.Refusal{
		Reason: string(e.Reason), Count: e.Count, First: utc(e.First), Last: utc(e.At), Peer: e.Peer, Device: e.Device,
		Received: received(e.Received), What: e.What, Remedy: e.Remedy, Settled: e.Settled,
	}
	if e.Decided != (joinery.Decided{}) {
		out.Decided = decided(e.Decided)
	}
	return out
}

func received(r joinery.Received) client.Received {
	return client.Received{
		Message: r.Message, ProtocolVersion: r.ProtocolVersion, TransactionID: r.TransactionID,
		SenderID: r.SenderID, ReceiverID: r.ReceiverID, NetID: r.NetID, NSID: r.NSID, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI,
		MACVersion: macText(r.MACVersion), OptNeg: r.OptNeg, Frame: r.Frame, Count: r.Count, Problem: r.Problem,
	}
}

func decided(d joinery.Decided) *client.Decided {
	return &client.Decided{
		Bound: d.Bound, NetID: d.NetID, NSID: d.NSID, ASID: d.ASID,
		MACVersion: macText(d.MACVersion), Root10: d.Root10.String(), Next: d.Next, ServiceEnd: d.ServiceEnd,
		AttestLevel: d.AttestLevel, AttestWanted: d.AttestWanted,
	}
}

// macText is empty for no version.
func macText(v lorawan.MACVersion) string {
	if !v.Valid() {
		return ""
	}
	return v.String()
}
