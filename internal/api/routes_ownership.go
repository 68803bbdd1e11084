package api

import (
	"context"
	"net/http"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
	"joinery/lorawan"
)

// HandOver moves devices from owner to owner, one by one and many at once.
type HandOver interface {
	// Do does one act; its outcome has the error.
	Do(ctx context.Context, caller joinery.Caller, a claim.Act) claim.Outcome
	// Batch gives one outcome for each act.
	Batch(ctx context.Context, caller joinery.Caller, acts []claim.Act, dryRun bool) []claim.Outcome
	Transfer(ctx context.Context, caller joinery.Caller, device joinery.DeviceID) (joinery.Transfer, error)
	Transfers(ctx context.Context, caller joinery.Caller, after joinery.DeviceID, limit int) ([]joinery.Transfer, error)
}

// Disputes is about who should hold a device, and about locked bindings.
type Disputes interface {
	Challenge(ctx context.Context, caller joinery.Caller, joinEUI, devEUI lorawan.EUI64) (joinery.Challenge, error)
	Dispute(ctx context.Context, caller joinery.Caller, c claim.Case) (claim.Disputed, error)
	DecideDispute(ctx context.Context, caller joinery.Caller, id joinery.DisputeID, grant bool, note string) (joinery.Dispute, error)
	WithdrawDispute(ctx context.Context, caller joinery.Caller, id joinery.DisputeID) error
	DisputeReader
}

// DisputeReader shows disputes to their sides.
type DisputeReader interface {
	OneDispute(ctx context.Context, caller joinery.Caller, id joinery.DisputeID) (joinery.Dispute, error)
	Disputes(ctx context.Context, caller joinery.Caller, onlyOpen bool, after joinery.DisputeID, limit int) ([]joinery.Dispute, error)
}

// batchBody is 10,000 items with owner token and binding.
const batchBody = 6 << 20

func (s *Server) registerHandOver() {
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/release", id: "releaseDevice", call: "Release", secret: true, tag: "devices",
		summary: "Let go of a device",
		description: "Nobody holds it afterwards, and its binding ends, unless its network locked it. The answer has the new owner token, " +
			"once: whoever gets it can claim the device."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.HandedOver], error) {
			return s.handOver(ctx, caller, *in, claim.Act{Kind: claim.Releasing})
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/owner-token/regenerate", id: "regenerateOwnerToken", secret: true, tag: "devices",
		summary: "A new owner token for a device", description: "The one before is dead at once, also on labels."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.OwnerToken], error) {
			out, err := s.handOver(ctx, caller, *in, claim.Act{Kind: claim.Regenerating})
			if err != nil {
				return nil, err
			}
			return ok(client.OwnerToken{Device: out.Body.Device, OwnerToken: out.Body.OwnerToken}), nil
		})
	route(s, spec{method: http.MethodPost, path: "/ownership", id: "changeOwnership", secret: true, tag: "devices", maxBody: batchBody,
		summary: "Claim, release, offer, accept, bind: many at once",
		description: "At most 10,000 items, done in their order; each has a result of its own, and one that fails spoils no other. " +
			"The same request again does nothing twice. Without the right `devices:bind` none may have a binding, " +
			"bind or unbind."},
		s.changeOwnership)
	s.registerTransfers()
}

// handOver does one act to the device of a path.
func (s *Server) handOver(ctx context.Context, caller joinery.Caller, in DevicePath, a claim.Act) (*body[client.HandedOver], error) {
	var err error
	if a.Device, err = in.parse(); err != nil {
		return nil, err
	}
	o := s.Ownership.Do(ctx, caller, a)
	if o.Err != nil {
		return nil, o.Err
	}
	return ok(client.HandedOver{Device: o.Device.ID, OwnerToken: o.OwnerToken}), nil
}

// allowBinding refuses callers who may own devices but not say who gets them: for
// an act that may bind, the table of needs names the lesser right.
func allowBinding(caller joinery.Caller, a claim.Act) error {
	binds := a.Binding != nil || a.Kind == claim.Binding || a.Kind == claim.Unbinding
	if !binds || caller.May(joinery.RightDevicesBind) {
		return nil
	}
	return joinery.Errorf(joinery.CodeForbidden, "to bind or unbind a device needs the right %s, which you do not have here; nothing was done",
		joinery.RightDevicesBind)
}

func (s *Server) changeOwnership(ctx context.Context, caller joinery.Caller, in *body[client.OwnershipBatch]) (*body[client.OwnershipResults], error) {
	acts := make([]claim.Act, len(in.Body.Items))
	for i, item := range in.Body.Items {
		b, err := bindingOf(item.Binding)
		if err != nil {
			return nil, err // the schema knows the words, so this is the whole request's fault
		}
		acts[i] = claim.Act{
			Kind: claim.Kind(item.Action), Device: item.Device, JoinEUI: item.JoinEUI, DevEUI: item.DevEUI,
			OwnerToken: item.OwnerToken, Binding: b, To: item.Recipient, ExpiresAt: item.ExpiresAt,
		}
		if err := allowBinding(caller, acts[i]); err != nil {
			return nil, err // it is about the caller, not about this item
		}
	}
	out := client.OwnershipResults{Results: make([]client.OwnershipResult, len(acts))}
	var tried []joinery.Attempt
	for i, o := range s.Ownership.Batch(ctx, caller, acts, in.Body.DryRun) {
		r := client.OwnershipResult{
			Index: i, Status: "done", Device: o.Device.ID, JoinEUI: o.Device.JoinEUI, DevEUI: o.Device.DevEUI, OwnerToken: o.OwnerToken,
		}
		switch {
		case o.Err != nil:
			s.logFailure(ctx, "changeOwnership", o.Err)
			tried = append(tried, actAt(caller, acts[i], o)...)
			r.Status, r.Code, r.Reason = "failed", joinery.CodeOf(o.Err), joinery.MessageOf(o.Err)
			out.Failed++
		case o.Unchanged:
			r.Status = "unchanged"
			out.Unchanged++
		default:
			out.Done++
		}
		out.Results[i] = r
	}
	s.attemptedAll(tried)
	return ok(out), nil
}

func (s *Server) registerTransfers() {
	route(s, spec{method: http.MethodPut, path: "/devices/{id}/transfer", id: "offerTransfer", tag: "devices",
		summary: "Offer a device to another organisation", description: "Nothing changes until it accepts."},
		func(ctx context.Context, caller joinery.Caller, in *transferInput) (*body[client.Transfer], error) {
			_, err := s.handOver(ctx, caller, in.DevicePath, claim.Act{Kind: claim.Offering, To: in.Body.Recipient, ExpiresAt: in.Body.ExpiresAt})
			if err != nil {
				return nil, err
			}
			return s.getTransfer(context.WithoutCancel(ctx), caller, &in.DevicePath)
		})
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/transfer", id: "getTransfer", tag: "devices",
		summary: "The offer of a device, for either side"},
		s.getTransfer)
	s.deviceAct(spec{method: http.MethodDelete, path: "/devices/{id}/transfer", id: "cancelTransfer",
		summary: "Take an offer back, or decline it", description: "It changes nothing else."},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Ownership.Do(ctx, caller, claim.Act{Kind: claim.Cancelling, Device: id}).Err
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/transfer/accept", id: "acceptTransfer", secret: true, tag: "devices",
		summary: "Become the owner of a device that is offered",
		description: "The owner token that the former owner knew is dead from then on, and its binding ends, unless its network locked it. " +
			"The new owner token is in the answer; it can be read later, too. With a binding this needs the right `devices:bind` as well."},
		func(ctx context.Context, caller joinery.Caller, in *acceptInput) (*body[client.HandedOver], error) {
			b, err := bindingOf(in.Body.Binding)
			if err != nil {
				return nil, err
			}
			act := claim.Act{Kind: claim.Accepting, Binding: b}
			if err := allowBinding(caller, act); err != nil {
				return nil, err
			}
			return s.handOver(ctx, caller, in.DevicePath, act)
		})
	route(s, spec{method: http.MethodGet, path: "/transfers", id: "listTransfers", tag: "devices",
		summary:     "Offers that the organisation makes and gets, in order of their devices",
		description: "Those that ended without being accepted are kept for 90 days. To the operator all, or those of the organisation for which it acts."},
		s.listTransfers)
}

type transferInput struct {
	DevicePath
	Body client.NewTransfer
}

type acceptInput struct {
	DevicePath
	Body client.Acceptance
}

func (s *Server) getTransfer(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.Transfer], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	t, err := s.Ownership.Transfer(ctx, caller, id)
	return ok(transfer(t)), err
}

func transfer(t joinery.Transfer) client.Transfer {
	return client.Transfer{
		Device: t.Device, JoinEUI: t.JoinEUI, DevEUI: t.DevEUI, From: t.From, Recipient: t.To,
		OfferedAt: utc(t.OfferedAt), ExpiresAt: utc(t.ExpiresAt), Expired: !t.Open(time.Now()),
	}
}

func (s *Server) listTransfers(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.Page[client.Transfer]], error) {
	const listing = "transfers"
	place, err := in.place(listing, 1)
	if err != nil {
		return nil, err
	}
	var after joinery.DeviceID
	if place != nil && after.UnmarshalText([]byte(place[0])) != nil {
		return nil, errCursor
	}
	list, err := s.Ownership.Transfers(ctx, caller, after, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.Transfer]{Items: each(list, transfer)}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, list[n-1].Device.String())
	}
	return ok(p), nil
}
