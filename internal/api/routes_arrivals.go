package api

import (
	"context"
	"net/http"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
)

// Arrivals is what other Join Servers hand over, and what organisations expect of
// them.
type Arrivals interface {
	Arrivals(ctx context.Context, caller joinery.Caller, after joinery.ArrivalID, limit int) ([]joinery.Arrival, error)
	TakeFile(ctx context.Context, caller joinery.Caller, file []byte, b *joinery.Binding) (rekeyfile.Offered, error)
	RejectArrivals(ctx context.Context, caller joinery.Caller, ids []joinery.ArrivalID) (done int, err error)
	Expectations(ctx context.Context, caller joinery.Caller) ([]joinery.Expectation, error)
	Expect(ctx context.Context, caller joinery.Caller, x rekey.Expect) (joinery.Expectation, error)
	EndExpectation(ctx context.Context, caller joinery.Caller, id joinery.ExpectationID) error
}

// expectationPath names an expectation in a path.
type expectationPath struct {
	ID string `path:"id" pattern:"^xpc_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"xpc_ and 13 characters" doc:"The expectation's id"`
}

type arrivalsInput struct{ Paging }

func (s *Server) registerArrivals() {
	route(s, spec{method: http.MethodGet, path: "/arrivals", id: "listArrivals", tag: "rekey",
		summary: "Devices that other Join Servers handed over to the organisation", description: "Those that are parked wait for an expectation that accepts them."},
		s.listArrivals)
	route(s, spec{method: http.MethodPost, path: "/arrivals/files", id: "takeHandover", tag: "rekey",
		summary:     "Accept a hand-over that came as a file",
		description: "A pinned Join Server must have signed it, which may hand devices over into the JoinEUIs of the organisation. See docs/handover.md."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewHandoverFile]) (*body[client.HandoverResults], error) {
			b, err := bindingOf(in.Body.Bind)
			if err != nil {
				return nil, err
			}
			o, err := s.Arrivals.TakeFile(ctx, caller, in.Body.File, b)
			return ok(client.HandoverResults{Results: each(o.Results, func(t rekeyfile.Told) client.HandoverResult {
				return client.HandoverResult{Order: t.Order, State: t.State, Reason: t.Reason}
			})}), err
		})
	route(s, spec{method: http.MethodPost, path: "/arrivals/rejections", id: "rejectArrivals", tag: "rekey",
		summary:     "Reject devices that are parked",
		description: "Their sealed keys are forgotten, and the Join Server that handed them over is told. What is not parked any more is a conflict; those before it in the list are rejected."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.RejectedArrivals]) (*body[client.Rejected], error) {
			n, err := s.Arrivals.RejectArrivals(ctx, caller, in.Body.Arrivals)
			return ok(client.Rejected{Rejected: n}), err
		})
	route(s, spec{method: http.MethodGet, path: "/expectations", id: "listExpectations", tag: "rekey",
		summary: "Devices of other Join Servers that the organisation accepts"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Expectation]], error) {
			list, err := s.Arrivals.Expectations(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "expectations", list, func(x joinery.Expectation) string { return x.ID.String() }, expectation)
		})
	route(s, spec{method: http.MethodPost, path: "/expectations", id: "addExpectation", tag: "rekey", status: http.StatusCreated,
		summary:     "Accept devices of another Join Server",
		description: "Those that are parked are taken in at once, those that come as they come: under JoinEUIs that the organisation holds."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewExpectation]) (*body[client.Expectation], error) {
			b, err := bindingOf(in.Body.Bind)
			if err != nil {
				return nil, err
			}
			x, err := s.Arrivals.Expect(ctx, caller, rekey.Expect{
				From: in.Body.From, Devices: joinery.EUIRange(in.Body.Devices), Binding: b, Life: time.Duration(in.Body.Days) * 24 * time.Hour,
			})
			return ok(expectation(x)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/expectations/{id}", id: "removeExpectation", tag: "rekey",
		summary: "Accept nothing more by an expectation", description: "What was taken in stays."},
		func(ctx context.Context, caller joinery.Caller, in *expectationPath) (*none, error) {
			id, err := parse[joinery.ExpectationID](in.ID, "expectation")
			if err != nil {
				return nil, err
			}
			return nil, s.Arrivals.EndExpectation(ctx, caller, id)
		})
}

func (s *Server) listArrivals(ctx context.Context, caller joinery.Caller, in *arrivalsInput) (*body[client.Page[client.Arrival]], error) {
	const listing = "arrivals"
	after, err := placeID[joinery.ArrivalID](in.Paging, listing)
	if err != nil {
		return nil, err
	}
	list, err := s.Arrivals.Arrivals(ctx, caller, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	var p client.Page[client.Arrival]
	if len(list) > in.Limit {
		list = list[:in.Limit]
		p.Next = cursor(listing, list[in.Limit-1].ID.String())
	}
	p.Items = each(list, arrival)
	return ok(p), nil
}

func arrival(a joinery.Arrival) client.Arrival {
	return client.Arrival{
		ID: a.ID, From: a.From, Server: a.Server, Order: a.Ref, JoinEUI: a.JoinEUI, DevEUI: a.DevEUI, State: string(a.State), Reason: a.Reason,
		Device: a.Device, At: utc(a.At), ChangedAt: utc(a.ChangedAt),
	}
}

func expectation(x joinery.Expectation) client.Expectation {
	return client.Expectation{
		ID: x.ID, From: x.From, Server: x.Server, Devices: client.EUIRange(x.Devices), Bind: binding(x.Binding), By: x.By, At: utc(x.At), ExpiresAt: utc(x.ExpiresAt),
	}
}

func passage(p *joinery.Passage) *client.Passage {
	if p == nil {
		return nil
	}
	return &client.Passage{State: string(p.State), Said: p.Said, Tries: p.Tries, NextAt: p.NextAt, ChangedAt: utc(p.ChangedAt)}
}

func joinServer(j joinery.JoinServer) client.JoinServer {
	out := client.JoinServer{
		ID: j.ID, Name: j.Name, TransportKey: j.TransportKey, ReceiptKey: j.ReceiptKey, URL: j.URL, CreatedAt: j.CreatedAt,
		Theirs: each(j.Theirs, clientRange), Ours: each(j.Ours, clientRange),
	}
	if key, err := seal.ParsePublicKeyDER(j.TransportKey); err == nil {
		out.SHA1 = key.SHA1()
	}
	if j.Identity.Kind != "" {
		c := credential(j.Identity)
		out.Identity = &c
	}
	return out
}

func clientRange(r joinery.EUIRange) client.EUIRange { return client.EUIRange(r) }

func joinServerOf(in client.NewJoinServer) (joinery.JoinServer, error) {
	j := joinery.JoinServer{Name: in.Name, TransportKey: in.TransportKey, ReceiptKey: in.ReceiptKey, URL: in.URL}
	if in.SHA1 {
		key, err := seal.ParsePublicKeyDER(in.TransportKey)
		if err != nil {
			return j, joinery.Errorf(joinery.CodeInvalid, "transportKey: not a public key to which keys can be sealed")
		}
		j.TransportKey = key.WithSHA1().MarshalDER()
	}
	for _, r := range in.Theirs {
		j.Theirs = append(j.Theirs, joinery.EUIRange(r))
	}
	for _, r := range in.Ours {
		j.Ours = append(j.Ours, joinery.EUIRange(r))
	}
	if in.Identity == nil {
		return j, nil
	}
	var err error
	j.Identity, err = credentialOf(*in.Identity)
	return j, err
}
