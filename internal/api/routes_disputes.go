package api

import (
	"context"
	"encoding/hex"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
)

// DisputePath names a dispute in a path; see DevicePath.
type DisputePath struct {
	ID string `path:"id" pattern:"^dsp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dsp_ and 13 characters" doc:"The dispute's id"`
}

func (in DisputePath) parse() (joinery.DisputeID, error) {
	return parse[joinery.DisputeID](in.ID, "dispute")
}

func (s *Server) registerDisputes() {
	route(s, spec{method: http.MethodPost, path: "/challenges", id: "makeChallenge", call: "Challenge", tag: "devices", status: http.StatusCreated,
		summary:     "Something for a device's element to sign",
		description: "It is good for one dispute, within 15 minutes, and is given for devices that are not here, too."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewChallenge]) (*body[client.Challenge], error) {
			c, err := s.Disputes.Challenge(ctx, caller, in.Body.JoinEUI, in.Body.DevEUI)
			digest := claim.ChallengeDigest(c)
			return ok(client.Challenge{
				Challenge: c.Random[:], Organisation: c.Org, Digest: hex.EncodeToString(digest[:]), ExpiresAt: utc(c.ExpiresAt),
			}), err
		})
	route(s, spec{method: http.MethodPost, path: "/disputes", id: "openDispute", tag: "devices", status: http.StatusCreated,
		summary: "Dispute who holds a device, or the lock of the binding of one's own",
		description: "With a signature of its device key, which shows that it is at hand; or with its owner token. The lock of a binding ends at once " +
			"by such a signature; everything else the operator decides. An unknown device is answered like wrong evidence."},
		s.openDispute)
	route(s, spec{method: http.MethodGet, path: "/disputes", id: "listDisputes", tag: "devices",
		summary:     "Disputes, in the order of their opening",
		description: "To an organisation its own and those about its devices, to the operator all. No side learns who the other is."},
		s.listDisputes)
	route(s, spec{method: http.MethodGet, path: "/disputes/{id}", id: "getDispute", tag: "devices", summary: "One dispute"},
		func(ctx context.Context, caller joinery.Caller, in *DisputePath) (*body[client.Dispute], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			p, err := s.Disputes.OneDispute(ctx, caller, id)
			return ok(dispute(p)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/disputes/{id}", id: "withdrawDispute", tag: "devices", summary: "Withdraw a dispute"},
		func(ctx context.Context, caller joinery.Caller, in *DisputePath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Disputes.WithdrawDispute(ctx, caller, id)
		})
	route(s, spec{method: http.MethodPost, path: "/disputes/{id}/decision", id: "decideDispute", tag: "devices",
		summary: "Decide a dispute",
		description: "For the operator. A claimant who is granted a device becomes its owner, with a new owner token, and its binding ends, locked or not; " +
			"about a lock only the binding ends."},
		s.decideDispute)
}

func (s *Server) openDispute(ctx context.Context, caller joinery.Caller, in *body[client.NewDispute]) (*body[client.DisputeResult], error) {
	b := in.Body
	d, err := s.Disputes.Dispute(ctx, caller, claim.Case{
		JoinEUI: b.JoinEUI, DevEUI: b.DevEUI, Challenge: b.Challenge, Signature: b.Signature, OwnerToken: b.OwnerToken, Statement: b.Statement,
	})
	out := client.DisputeResult{Device: d.Device, Unlocked: d.Unlocked}
	if d.Dispute.ID != 0 {
		opened := dispute(d.Dispute)
		out.Dispute = &opened
	}
	return ok(out), err
}

type decisionInput struct {
	DisputePath
	Body client.Decision
}

func (s *Server) decideDispute(ctx context.Context, caller joinery.Caller, in *decisionInput) (*body[client.Dispute], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	p, err := s.Disputes.DecideDispute(ctx, caller, id, in.Body.Grant, in.Body.Note)
	return ok(dispute(p)), err
}

type disputesInput struct {
	Paging
	Open bool `query:"open" default:"false" doc:"Only those that are not decided"`
}

func (s *Server) listDisputes(ctx context.Context, caller joinery.Caller, in *disputesInput) (*body[client.Page[client.Dispute]], error) {
	const listing = "disputes"
	place, err := in.place(listing, 1)
	if err != nil {
		return nil, err
	}
	var after joinery.DisputeID
	if place != nil && after.UnmarshalText([]byte(place[0])) != nil {
		return nil, errCursor
	}
	list, err := s.Disputes.Disputes(ctx, caller, in.Open, after, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.Dispute]{Items: each(list, dispute)}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, list[n-1].ID.String())
	}
	return ok(p), nil
}

func dispute(p joinery.Dispute) client.Dispute {
	about := "ownership"
	if p.AboutLock {
		about = "lock"
	}
	return client.Dispute{
		ID: p.ID, Device: p.Device, JoinEUI: p.JoinEUI, DevEUI: p.DevEUI, Claimant: p.Claimant, Holder: p.Holder, About: about,
		Evidence: string(p.Evidence), Statement: p.Statement, State: string(p.State),
		OpenedAt: utc(p.OpenedAt), DecidedAt: utc(p.DecidedAt), Note: p.Note,
	}
}
