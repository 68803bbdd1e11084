package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"joinery"
	"joinery/lorawan"
)

// get reads one thing.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	err = c.do(ctx, http.MethodGet, path, query, nil, &out)
	return out, err
}

// list reads a whole listing.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	l, err := get[List[T]](ctx, c, path, query)
	return l.Items, err
}

// send posts or puts in and reads what comes of it.
func send[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	err = c.do(ctx, method, path, nil, in, &out)
	return out, err
}

// act does something that has no answer but that it was done.
func (c *Client) act(ctx context.Context, method, path string, query url.Values, in any) error {
	return c.do(ctx, method, path, query, in, nil)
}

// Status reads what the server says of itself, and of the caller.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/status", nil)
}

// TransportKey reads the public key to which key lists and KEKs are sealed.
func (c *Client) TransportKey(ctx context.Context) (TransportKey, error) {
	return get[TransportKey](ctx, c, "/transport-key", nil)
}

// Organisations lists the organisations that the caller may see.
func (c *Client) Organisations(ctx context.Context) ([]Organisation, error) {
	return list[Organisation](ctx, c, "/organisations", nil)
}

// AddOrganisation adds an organisation.
func (c *Client) AddOrganisation(ctx context.Context, in NewOrganisation) (Organisation, error) {
	return send[Organisation](ctx, c, http.MethodPost, "/organisations", in)
}

// JoinEUIRanges lists the ranges that the server answers for.
func (c *Client) JoinEUIRanges(ctx context.Context) ([]JoinEUIRange, error) {
	return list[JoinEUIRange](ctx, c, "/join-eui-ranges", nil)
}

// AssignJoinEUIRange assigns a range to an organisation.
func (c *Client) AssignJoinEUIRange(ctx context.Context, in NewJoinEUIRange) (JoinEUIRange, error) {
	return send[JoinEUIRange](ctx, c, http.MethodPost, "/join-eui-ranges", in)
}

// ReleaseJoinEUIRange gives a range back; no device may lie in it.
func (c *Client) ReleaseJoinEUIRange(ctx context.Context, r EUIRange) error {
	q := url.Values{"first": {r.First.String()}, "last": {r.Last.String()}}
	return c.act(ctx, http.MethodDelete, "/join-eui-ranges", q, nil)
}

// Signers lists the pinned signers of manifests.
func (c *Client) Signers(ctx context.Context) ([]Signer, error) {
	return list[Signer](ctx, c, "/signers", nil)
}

// AddSigner pins a signer.
func (c *Client) AddSigner(ctx context.Context, in NewSigner) (Signer, error) {
	return send[Signer](ctx, c, http.MethodPost, "/signers", in)
}

// RemoveSigner unpins a signer; what it signed before stays.
func (c *Client) RemoveSigner(ctx context.Context, id joinery.SignerID) error {
	return c.act(ctx, http.MethodDelete, "/signers/"+id.String(), nil, nil)
}

// Peers lists the peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return list[Peer](ctx, c, "/peers", nil)
}

// Peer reads one peer.
func (c *Client) Peer(ctx context.Context, id joinery.PeerID) (Peer, error) {
	return get[Peer](ctx, c, "/peers/"+id.String(), nil)
}

// AddPeer adds a peer with its first KEKs.
func (c *Client) AddPeer(ctx context.Context, in NewPeer) (Peer, error) {
	return send[Peer](ctx, c, http.MethodPost, "/peers", in)
}

// ChangePeer replaces a peer's settings, effective at once.
func (c *Client) ChangePeer(ctx context.Context, id joinery.PeerID, in PeerChange) (Peer, error) {
	return send[Peer](ctx, c, http.MethodPut, "/peers/"+id.String(), in)
}

// RemovePeer removes a peer, also from connections that it has open.
func (c *Client) RemovePeer(ctx context.Context, id joinery.PeerID) error {
	return c.act(ctx, http.MethodDelete, "/peers/"+id.String(), nil, nil)
}

// KEKs lists the key encryption keys, retired ones too.
func (c *Client) KEKs(ctx context.Context) ([]KEK, error) {
	return list[KEK](ctx, c, "/keks", nil)
}

// AddKEK gives a peer a new version of a KEK, which wraps from now on.
func (c *Client) AddKEK(ctx context.Context, peer joinery.PeerID, in NewKEK) (KEK, error) {
	return send[KEK](ctx, c, http.MethodPost, "/peers/"+peer.String()+"/keks", in)
}

// RetireKEK makes a KEK wrap nothing new.
func (c *Client) RetireKEK(ctx context.Context, id joinery.KEKID) error {
	return c.act(ctx, http.MethodPost, "/keks/"+id.String()+"/retire", nil, nil)
}

// Claim makes the caller's organisation the owner of a device.
func (c *Client) Claim(ctx context.Context, in NewClaim) (Device, error) {
	return send[Device](ctx, c, http.MethodPost, "/claims", in)
}

// BeginImport begins an import, or finds the one of the same file.
func (c *Client) BeginImport(ctx context.Context, in NewImport) (Import, error) {
	return send[Import](ctx, c, http.MethodPost, "/imports", in)
}

// Import reads how far an import is.
func (c *Client) Import(ctx context.Context, id joinery.ImportID) (Import, error) {
	return get[Import](ctx, c, "/imports/"+id.String(), nil)
}

// ImportRows gives a run of rows.
func (c *Client) ImportRows(ctx context.Context, id joinery.ImportID, in ImportRows) (ImportProgress, error) {
	return send[ImportProgress](ctx, c, http.MethodPost, "/imports/"+id.String()+"/rows", in)
}

// Roaming lists the roaming rules of an organisation; zero for the caller's.
func (c *Client) Roaming(ctx context.Context, org joinery.OrgID) ([]RoamingRule, error) {
	q := url.Values{}
	if org != 0 {
		q.Set("organisation", org.String())
	}
	return list[RoamingRule](ctx, c, "/roaming", q)
}

// SetRoaming sets a roaming rule. Empty NetIDs let no network ask; nil NetIDs
// remove the rule.
func (c *Client) SetRoaming(ctx context.Context, in RoamingRule) error {
	return c.act(ctx, http.MethodPut, "/roaming", nil, in)
}

// APIKeys lists API keys, without their secrets.
func (c *Client) APIKeys(ctx context.Context) ([]APIKey, error) {
	return list[APIKey](ctx, c, "/api-keys", nil)
}

// MakeAPIKey makes an API key. Its text is in this answer and nowhere else.
func (c *Client) MakeAPIKey(ctx context.Context, in NewAPIKey) (MadeAPIKey, error) {
	return send[MadeAPIKey](ctx, c, http.MethodPost, "/api-keys", in)
}

// RevokeAPIKey revokes an API key, at once and for ever.
func (c *Client) RevokeAPIKey(ctx context.Context, id joinery.APIKeyID) error {
	return c.act(ctx, http.MethodDelete, "/api-keys/"+id.String(), nil, nil)
}

// Activations lists a device's newest activations, newest first. Limit 0 is the
// server's default.
func (c *Client) Activations(ctx context.Context, id joinery.DeviceID, limit int) ([]Activation, error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return list[Activation](ctx, c, devicePath(id)+"/activations", q)
}

// ExplainDevice reads why a device does not join.
func (c *Client) ExplainDevice(ctx context.Context, id joinery.DeviceID) (DeviceExplanation, error) {
	return get[DeviceExplanation](ctx, c, devicePath(id)+"/refusals", nil)
}

// PeerRefusals reads what a peer was refused, with at most limit devices. Limit
// 0 is the server's default.
func (c *Client) PeerRefusals(ctx context.Context, id joinery.PeerID, limit int) (PeerRefusals, error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return get[PeerRefusals](ctx, c, "/peers/"+id.String()+"/refusals", q)
}

// Device reads one device.
func (c *Client) Device(ctx context.Context, id joinery.DeviceID) (Device, error) {
	return get[Device](ctx, c, devicePath(id), nil)
}

// DeleteDevice deletes a device and its keys; its activations stay in the log.
func (c *Client) DeleteDevice(ctx context.Context, id joinery.DeviceID) error {
	return c.act(ctx, http.MethodDelete, devicePath(id), nil, nil)
}

// SuspendDevice refuses joins of a device until ResumeDevice.
func (c *Client) SuspendDevice(ctx context.Context, id joinery.DeviceID) error {
	return c.act(ctx, http.MethodPost, devicePath(id)+"/suspend", nil, nil)
}

// ResumeDevice ends a suspension.
func (c *Client) ResumeDevice(ctx context.Context, id joinery.DeviceID) error {
	return c.act(ctx, http.MethodPost, devicePath(id)+"/resume", nil, nil)
}

// ResetNonces lets one join within 24 hours set a new floor for the DevNonces.
func (c *Client) ResetNonces(ctx context.Context, id joinery.DeviceID, in NoncesReset) error {
	return c.act(ctx, http.MethodPost, devicePath(id)+"/reset-nonces", nil, in)
}

// OwnerToken reads the token that a device's first owner claims it with. Only
// its maker can, until the first claim, and the log records it.
func (c *Client) OwnerToken(ctx context.Context, id joinery.DeviceID) (OwnerToken, error) {
	return get[OwnerToken](ctx, c, devicePath(id)+"/owner-token", nil)
}

// Bind says which network may join a device.
func (c *Client) Bind(ctx context.Context, id joinery.DeviceID, in NewBinding) error {
	return c.act(ctx, http.MethodPut, devicePath(id)+"/binding", nil, in)
}

// Unbind lets no network join a device.
func (c *Client) Unbind(ctx context.Context, id joinery.DeviceID) error {
	return c.act(ctx, http.MethodDelete, devicePath(id)+"/binding", nil, nil)
}

func devicePath(id joinery.DeviceID) string { return "/devices/" + id.String() }

// DeviceFilter selects devices of a listing.
type DeviceFilter struct {
	JoinEUI       lorawan.EUI64 // zero: any
	DevEUIPrefix  string        // hexadecimal digits, "" any
	OnlySuspended bool
	PageSize      int // 0: the server's default
}

func (f DeviceFilter) query() url.Values {
	q := url.Values{}
	if !f.JoinEUI.IsZero() {
		q.Set("joinEUI", f.JoinEUI.String())
	}
	if f.DevEUIPrefix != "" {
		q.Set("devEUI", f.DevEUIPrefix)
	}
	if f.OnlySuspended {
		q.Set("suspended", "true")
	}
	if f.PageSize > 0 {
		q.Set("limit", strconv.Itoa(f.PageSize))
	}
	return q
}

// DevicesPage reads one page of devices, in order of their ids; after is the
// Next of the page before, "" for the first.
func (c *Client) DevicesPage(ctx context.Context, f DeviceFilter, after string) (Page[Device], error) {
	return page[Device](ctx, c, "/devices", f.query(), after)
}

// ImportErrorsPage reads one page of the rows of an import that were refused.
func (c *Client) ImportErrorsPage(ctx context.Context, id joinery.ImportID, after string) (Page[RowResult], error) {
	return page[RowResult](ctx, c, "/imports/"+id.String()+"/errors", url.Values{}, after)
}

// AuditPage reads one page of the audit log, oldest first.
func (c *Client) AuditPage(ctx context.Context, limit int, after string) (Page[AuditEntry], error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return page[AuditEntry](ctx, c, "/audit", q, after)
}

func page[T any](ctx context.Context, c *Client, path string, q url.Values, after string) (Page[T], error) {
	if after != "" {
		q.Set("after", after)
	}
	return get[Page[T]](ctx, c, path, q)
}

// WaitReady asks until the server answers and is ready, or ctx ends.
func (c *Client) WaitReady(ctx context.Context) error {
	for {
		s, err := c.Status(ctx)
		if err == nil && s.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("not ready: %s", s.Reason)
			}
			return fmt.Errorf("%w (%w)", ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
