package api

import (
	"context"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/internal/fleet"
	"joinery/internal/seal"
)

// PeerPath names a peer in a path. Its name is exported because huma looks past
// embedded types of other names.
type PeerPath struct {
	ID string `path:"id" pattern:"^peer_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"peer_ and 13 characters" doc:"The peer's id"`
}

type changePeerInput struct {
	PeerPath
	Body client.PeerChange
}

type addKEKInput struct {
	PeerPath
	Body client.NewKEK
}

func (in PeerPath) parse() (joinery.PeerID, error) { return parse[joinery.PeerID](in.ID, "peer") }

func (s *Server) registerPeers() {
	route(s, spec{method: http.MethodGet, path: "/peers", id: "listPeers", tag: "peers",
		summary: "Network Servers and Application Servers"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Peer]], error) {
			peers, err := s.Peers.Peers(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "peers", peers, func(p joinery.Peer) string { return p.ID.String() }, peer)
		})
	route(s, spec{method: http.MethodPost, path: "/peers", id: "addPeer", tag: "peers", status: http.StatusCreated,
		summary: "Add a peer with its first KEKs",
		description: "For the operator. A Network Server needs a KEK of role ns, or the consent to clear keys, confirmed by the peer's name. " +
			"Credentials that could be another peer's, an AS-ID or a KEK label in use are conflicts."},
		s.addPeer)
	route(s, spec{method: http.MethodGet, path: "/peers/{id}", id: "getPeer", tag: "peers", summary: "One peer"},
		func(ctx context.Context, caller joinery.Caller, in *PeerPath) (*tagged[client.Peer], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			p, err := s.Peers.Peer(ctx, caller, id)
			return taggedPeer(p), err
		})
	route(s, spec{method: http.MethodPut, path: "/peers/{id}", id: "changePeer", tag: "peers",
		summary: "Replace a peer's settings", description: "For the operator. Effective at once, also on connections that the peer has open."},
		s.changePeer)
	route(s, spec{method: http.MethodDelete, path: "/peers/{id}", id: "removePeer", tag: "peers",
		summary: "Remove a peer and retire its KEKs", description: "For the operator. Effective at once, also on connections that the peer has open."},
		func(ctx context.Context, caller joinery.Caller, in *PeerPath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Peers.RemovePeer(ctx, caller, id)
		})
}

func (s *Server) addPeer(ctx context.Context, caller joinery.Caller, in *body[client.NewPeer]) (*tagged[client.Peer], error) {
	p, err := peerOf(in.Body.PeerSettings)
	if err != nil {
		return nil, err
	}
	p.Org = in.Body.Organisation
	keks := each(in.Body.KEKs, newKEK)
	made, err := s.Peers.AddPeer(ctx, caller, p, keks, fleet.PeerConfirm{ClearKeysFor: in.Body.ConfirmClearKeys})
	return taggedPeer(made), err
}

func (s *Server) changePeer(ctx context.Context, caller joinery.Caller, in *changePeerInput) (*tagged[client.Peer], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	p, err := peerOf(in.Body.PeerSettings)
	if err != nil {
		return nil, err
	}
	p.ID = id
	made, err := s.Peers.ChangePeer(ctx, caller, p, fleet.PeerConfirm{ClearKeysFor: in.Body.ConfirmClearKeys})
	return taggedPeer(made), err
}

type kekInput struct {
	ID string `path:"id" pattern:"^kek_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"kek_ and 13 characters" doc:"The KEK's id"`
}

func (s *Server) registerKEKs() {
	route(s, spec{method: http.MethodGet, path: "/keks", id: "listKEKs", tag: "peers",
		summary: "Key encryption keys, retired ones too; never their values"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.KEK]], error) {
			keks, err := s.KEKs.KEKs(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "keks", keks, func(k joinery.KEK) string { return k.ID.String() }, kek)
		})
	route(s, spec{method: http.MethodPost, path: "/peers/{id}/keks", id: "addKEK", tag: "peers", status: http.StatusCreated,
		summary: "Give a peer a new version of a KEK", description: "For the operator. It wraps from now on; older versions stay until they are retired."},
		func(ctx context.Context, caller joinery.Caller, in *addKEKInput) (*body[client.KEK], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			made, err := s.KEKs.AddKEK(ctx, caller, id, newKEK(in.Body))
			return ok(kek(made)), err
		})
	route(s, spec{method: http.MethodPost, path: "/keks/{id}/retire", id: "retireKEK", tag: "peers",
		summary: "Wrap nothing under a KEK again", description: "For the operator. It cannot be undone."},
		func(ctx context.Context, caller joinery.Caller, in *kekInput) (*none, error) {
			id, err := parse[joinery.KEKID](in.ID, "KEK")
			if err != nil {
				return nil, err
			}
			return nil, s.KEKs.RetireKEK(ctx, caller, id)
		})
}

func newKEK(in client.NewKEK) fleet.NewKEK {
	return fleet.NewKEK{
		Role: joinery.KEKRole(in.Role), Label: in.Label, Header: seal.Header(in.Seal), Wrapped: in.Wrapped, MAC: in.MAC,
	}
}
