package api

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/rekey"
)

// RekeyBatches is orders to rekey many devices.
type RekeyBatches interface {
	// RequestBatch and AddToBatch give the places of devices that the organisation
	// does not hold.
	RequestBatch(ctx context.Context, caller joinery.Caller, n rekey.NewBatch) (b joinery.RekeyBatch, absent []int, err error)
	AddToBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, refs []joinery.DeviceRef, more bool) (b joinery.RekeyBatch, absent []int, err error)
	WithdrawBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error)
	RekeyBatchDecisions
	RekeyBatchReader
}

// RekeyBatchDecisions is the part of another person.
type RekeyBatchDecisions interface {
	ApproveBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, a rekey.BatchApproval) (joinery.RekeyBatch, error)
	RejectBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, note string) (joinery.RekeyBatch, error)
}

// RekeyBatchReader shows batches.
type RekeyBatchReader interface {
	Batch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error)
	Batches(ctx context.Context, caller joinery.Caller, before joinery.RekeyBatchID, limit int) ([]joinery.RekeyBatch, error)
	BatchItems(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, from uint64, limit int) ([]joinery.RekeyBatchItem, error)
}

// RekeyBatchPath names a batch in a path; see DevicePath.
type RekeyBatchPath struct {
	ID string `path:"id" pattern:"^rkb_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rkb_ and 13 characters" doc:"The batch's id"`
}

func (in RekeyBatchPath) parse() (joinery.RekeyBatchID, error) {
	return parse[joinery.RekeyBatchID](in.ID, "batch")
}

type moreRekeyDevicesInput struct {
	RekeyBatchPath
	Body client.MoreRekeyDevices
}

type rekeyBatchApprovalInput struct {
	RekeyBatchPath
	Body client.RekeyBatchApproval
}

type rekeyBatchRejectionInput struct {
	RekeyBatchPath
	Body client.RekeyBatchRejection
}

type rekeyBatchListInput struct {
	RekeyBatchPath
	Paging
}

func (s *Server) registerRekeyBatches() {
	route(s, spec{method: http.MethodPost, path: "/rekey/batches", id: "requestRekeyBatch", tag: "rekey", status: http.StatusCreated, maxBody: batchBody,
		summary: "Have many devices derive new root keys and join at another Join Server",
		description: "Of devices that the organisation holds, 100,000 at most; with `more` the batch waits for further ones. Each gets an order of its own, as armRekey gives it, " +
			"or a reason why not; none keeps another out. Where an export would need another person, the batch waits for one. " +
			"A device that has such an order already keeps it, so the same batch can be requested again."},
		s.requestRekeyBatch)
	route(s, spec{method: http.MethodPost, path: "/rekey/batches/{id}/devices", id: "addRekeyBatchDevices", tag: "rekey", maxBody: batchBody,
		summary: "Add devices to a batch that was requested with more"},
		func(ctx context.Context, caller joinery.Caller, in *moreRekeyDevicesInput) (*body[client.RekeyBatch], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			refs := each(in.Body.Devices, deviceRef)
			b, absent, err := s.RekeyBatches.AddToBatch(ctx, caller, id, refs, in.Body.More)
			s.attemptedAbsent("addRekeyBatchDevices", caller, refs, absent)
			return ok(rekeyBatch(b, absent)), err
		})
	route(s, spec{method: http.MethodGet, path: "/rekey/batches", id: "listRekeyBatches", tag: "rekey", summary: "Batches of the organisation, newest first"}, s.listRekeyBatches)
	s.rekeyBatchRoute(spec{method: http.MethodGet, path: "/rekey/batches/{id}", id: "getRekeyBatch", summary: "One batch, and how far it is"},
		func(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
			return s.RekeyBatches.Batch(ctx, caller, id)
		})
	route(s, spec{method: http.MethodGet, path: "/rekey/batches/{id}/devices", id: "listRekeyBatchDevices", tag: "rekey",
		summary: "The devices of a batch, in their order, and what became of each"}, s.listRekeyBatchDevices)
	route(s, spec{method: http.MethodPost, path: "/rekey/batches/{id}/approve", id: "approveRekeyBatch", tag: "rekey",
		summary:     "Approve a batch as another person",
		description: "An admin of the organisation who is signed in and did not ask for it; no API key. Digest, JoinEUI and thumbprint have to be those that were looked at."},
		s.approveRekeyBatch)
	route(s, spec{method: http.MethodPost, path: "/rekey/batches/{id}/reject", id: "rejectRekeyBatch", tag: "rekey", summary: "Reject a batch that waits for approval"},
		func(ctx context.Context, caller joinery.Caller, in *rekeyBatchRejectionInput) (*body[client.RekeyBatch], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			b, err := s.RekeyBatches.RejectBatch(ctx, caller, id, in.Body.Note)
			return ok(rekeyBatch(b, nil)), err
		})
	s.rekeyBatchRoute(spec{method: http.MethodPost, path: "/rekey/batches/{id}/withdraw", id: "withdrawRekeyBatch", summary: "End a batch before it is done",
		description: "Devices that were armed stay so; cancelRekey ends the order of each."},
		func(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
			return s.RekeyBatches.WithdrawBatch(ctx, caller, id)
		})
}

// rekeyBatchRoute is a route about one batch that answers with it.
func (s *Server) rekeyBatchRoute(sp spec, do func(context.Context, joinery.Caller, joinery.RekeyBatchID) (joinery.RekeyBatch, error)) {
	sp.tag = "rekey"
	route(s, sp, func(ctx context.Context, caller joinery.Caller, in *RekeyBatchPath) (*body[client.RekeyBatch], error) {
		id, err := in.parse()
		if err != nil {
			return nil, err
		}
		b, err := do(ctx, caller, id)
		return ok(rekeyBatch(b, nil)), err
	})
}

func (s *Server) requestRekeyBatch(ctx context.Context, caller joinery.Caller, in *body[client.NewRekeyBatch]) (*body[client.RekeyBatch], error) {
	n := rekey.NewBatch{
		Arm: rekey.Arm{
			JoinEUI: in.Body.NewJoinEUI, To: in.Body.To, Recipient: in.Body.Recipient, Life: time.Duration(in.Body.Days) * 24 * time.Hour, RekeyKey: in.Body.RekeyKey,
		},
		Devices: each(in.Body.Devices, deviceRef), More: in.Body.More,
	}
	if q := in.Body.Select; q != nil {
		n.Select = &joinery.DeviceQuery{JoinEUI: q.JoinEUI, DevEUIPrefix: q.DevEUI, Status: joinery.DeviceStatus(q.Status)}
	}
	b, absent, err := s.RekeyBatches.RequestBatch(ctx, caller, n)
	s.attemptedAbsent("requestRekeyBatch", caller, n.Devices, absent)
	return ok(rekeyBatch(b, absent)), err
}

func (s *Server) approveRekeyBatch(ctx context.Context, caller joinery.Caller, in *rekeyBatchApprovalInput) (*body[client.RekeyBatch], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	a := rekey.BatchApproval{JoinEUI: in.Body.NewJoinEUI, Thumbprint: in.Body.Thumbprint, RekeyKey: in.Body.RekeyKey}
	if n, err := hex.Decode(a.Digest[:], []byte(in.Body.Digest)); err != nil || n != len(a.Digest) {
		return nil, joinery.Errorf(joinery.CodeInvalid, "digest: want 64 hexadecimal digits")
	}
	b, err := s.RekeyBatches.ApproveBatch(ctx, caller, id, a)
	return ok(rekeyBatch(b, nil)), err
}

func (s *Server) listRekeyBatches(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.Page[client.RekeyBatch]], error) {
	const listing = "rekey-batches"
	before, err := placeID[joinery.RekeyBatchID](*in, listing)
	if err != nil {
		return nil, err
	}
	list, err := s.RekeyBatches.Batches(ctx, caller, before, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.RekeyBatch]{Items: each(list, func(b joinery.RekeyBatch) client.RekeyBatch { return rekeyBatch(b, nil) })}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, list[n-1].ID.String())
	}
	return ok(p), nil
}

func (s *Server) listRekeyBatchDevices(ctx context.Context, caller joinery.Caller, in *rekeyBatchListInput) (*body[client.Page[client.RekeyBatchItem]], error) {
	const listing = "rekey-batch-devices"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	from, err := placeNumber(in.Paging, listing, 0)
	if err != nil {
		return nil, err
	}
	list, err := s.RekeyBatches.BatchItems(ctx, caller, id, uint64(from), in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.RekeyBatchItem]{Items: each(list, func(i joinery.RekeyBatchItem) client.RekeyBatchItem {
		return client.RekeyBatchItem{
			Index: int64(i.Index), Device: i.Device, JoinEUI: i.JoinEUI, DevEUI: i.DevEUI, State: i.State.String(), Order: i.Order, Code: i.Code, Reason: i.Reason,
		}
	})}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, strconv.FormatUint(list[n-1].Index+1, 10))
	}
	return ok(p), nil
}

func rekeyBatch(b joinery.RekeyBatch, absent []int) client.RekeyBatch {
	out := client.RekeyBatch{
		ID: b.ID, State: string(b.State), NewJoinEUI: b.JoinEUI, To: b.To, Recipient: b.Recipient, Thumbprint: b.Thumbprint, RekeyKey: b.RekeyKey,
		Days: uint32(b.Life / (24 * time.Hour)), Devices: b.Devices, Armed: b.Armed, Failed: b.Failed, NeedsApproval: b.NeedsApproval,
		RequestedBy: b.RequestedBy, RequestedAt: utc(b.RequestedAt), DecidedBy: b.DecidedBy, DecidedAt: utc(b.DecidedAt), Note: b.Note, EndedAt: utc(b.EndedAt),
		Absent: absent,
	}
	if b.Digest != ([32]byte{}) {
		out.Digest = hex.EncodeToString(b.Digest[:])
	}
	if b.State == joinery.BatchCollecting || b.State == joinery.BatchRequested {
		out.ExpiresAt = utc(b.ExpiresAt)
	}
	return out
}
