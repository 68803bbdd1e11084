package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"joinery"
)

// Release lets go of a device. The answer has the new owner token, once: whoever
// gets it can claim the device.
func (c *Client) Release(ctx context.Context, id joinery.DeviceID) (HandedOver, error) {
	return send[HandedOver](ctx, c, http.MethodPost, devicePath(id)+"/release", nil)
}

// RegenerateOwnerToken gives a device a new owner token. The one before is dead.
func (c *Client) RegenerateOwnerToken(ctx context.Context, id joinery.DeviceID) (OwnerToken, error) {
	return send[OwnerToken](ctx, c, http.MethodPost, devicePath(id)+"/owner-token/regenerate", nil)
}

// OfferTransfer offers a device to another organisation.
func (c *Client) OfferTransfer(ctx context.Context, id joinery.DeviceID, in NewTransfer) (Transfer, error) {
	return send[Transfer](ctx, c, http.MethodPut, devicePath(id)+"/transfer", in)
}

// Transfer reads the offer of a device.
func (c *Client) Transfer(ctx context.Context, id joinery.DeviceID) (Transfer, error) {
	return get[Transfer](ctx, c, devicePath(id)+"/transfer", nil)
}

// CancelTransfer takes an offer back, or declines it.
func (c *Client) CancelTransfer(ctx context.Context, id joinery.DeviceID) error {
	return c.act(ctx, http.MethodDelete, devicePath(id)+"/transfer", nil, nil)
}

// AcceptTransfer makes the caller's organisation the owner of a device that is
// offered to it.
func (c *Client) AcceptTransfer(ctx context.Context, id joinery.DeviceID, in Acceptance) (HandedOver, error) {
	return send[HandedOver](ctx, c, http.MethodPost, devicePath(id)+"/transfer/accept", in)
}

// TransfersPage reads one page of offers made and got.
func (c *Client) TransfersPage(ctx context.Context, after string) (Page[Transfer], error) {
	return page[Transfer](ctx, c, "/transfers", url.Values{}, after)
}

// Transfers ranges over all offers made and got.
func (c *Client) Transfers(ctx context.Context) iter.Seq2[Transfer, error] {
	return pages(func(after string) (Page[Transfer], error) { return c.TransfersPage(ctx, after) })
}

// ChangeOwnership does many acts, at most MaxOwnershipBatch.
func (c *Client) ChangeOwnership(ctx context.Context, in OwnershipBatch) (OwnershipResults, error) {
	return send[OwnershipResults](ctx, c, http.MethodPost, "/ownership", in)
}

// Challenge asks for something that a device's element can sign.
func (c *Client) Challenge(ctx context.Context, in NewChallenge) (Challenge, error) {
	return send[Challenge](ctx, c, http.MethodPost, "/challenges", in)
}

// OpenDispute disputes who holds a device, or the lock of the binding of one's own.
func (c *Client) OpenDispute(ctx context.Context, in NewDispute) (DisputeResult, error) {
	return send[DisputeResult](ctx, c, http.MethodPost, "/disputes", in)
}

// Dispute reads a dispute.
func (c *Client) Dispute(ctx context.Context, id joinery.DisputeID) (Dispute, error) {
	return get[Dispute](ctx, c, "/disputes/"+id.String(), nil)
}

// DecideDispute is the operator's.
func (c *Client) DecideDispute(ctx context.Context, id joinery.DisputeID, in Decision) (Dispute, error) {
	return send[Dispute](ctx, c, http.MethodPost, "/disputes/"+id.String()+"/decision", in)
}

// WithdrawDispute ends a dispute of the caller's organisation.
func (c *Client) WithdrawDispute(ctx context.Context, id joinery.DisputeID) error {
	return c.act(ctx, http.MethodDelete, "/disputes/"+id.String(), nil, nil)
}

// DisputesPage reads one page of disputes, in the order of their opening.
func (c *Client) DisputesPage(ctx context.Context, onlyOpen bool, after string) (Page[Dispute], error) {
	q := url.Values{}
	if onlyOpen {
		q.Set("open", "true")
	}
	return page[Dispute](ctx, c, "/disputes", q, after)
}

// Disputes ranges over the disputes that the caller may see.
func (c *Client) Disputes(ctx context.Context, onlyOpen bool) iter.Seq2[Dispute, error] {
	return pages(func(after string) (Page[Dispute], error) { return c.DisputesPage(ctx, onlyOpen, after) })
}
