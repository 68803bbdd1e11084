package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
)

// Rekeying has devices derive new root keys and join at another Join Server.
type Rekeying interface {
	Status(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (rekey.Status, error)
	SetProfile(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, p joinery.RekeyProfile) error
	Arm(ctx context.Context, caller joinery.Caller, a rekey.Arm) (joinery.RekeyOrder, error)
	Cancel(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error
	Confirm(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error
}

// RekeyApprovals is orders that wait for another person.
type RekeyApprovals interface {
	Requests(ctx context.Context, caller joinery.Caller, after joinery.RekeyID, limit int) ([]rekey.Request, joinery.RekeyID, error)
	Approve(ctx context.Context, caller joinery.Caller, a rekey.Approval) ([]joinery.RekeyOrder, error)
	Reject(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID) (done int, err error)
}

// RekeyFiles is what goes to the bench and to other Join Servers, and comes back.
type RekeyFiles interface {
	Ticket(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID, leaveOut bool) (rekey.File, error)
	Results(ctx context.Context, caller joinery.Caller, list []rekeyfile.Result) (done int, err error)
	Handover(ctx context.Context, caller joinery.Caller, to joinery.JoinServerID, devices []joinery.DeviceID, leaveOut bool) (rekey.File, error)
	Disclose(ctx context.Context, caller joinery.Caller, to joinery.RecipientID, devices []joinery.DeviceID, leaveOut bool) (rekey.File, error)
	Receipts(ctx context.Context, caller joinery.Caller, list []rekey.HandedOver) ([]byte, error)
	TakeReceipts(ctx context.Context, caller joinery.Caller, file []byte) (done int, err error)
}

// JoinServers is the pinned Join Servers, and what this one is to them.
type JoinServers interface {
	Servers(ctx context.Context) ([]joinery.JoinServer, error)
	Pin(ctx context.Context, caller joinery.Caller, j joinery.JoinServer) (joinery.JoinServer, error)
	ChangePin(ctx context.Context, caller joinery.Caller, j joinery.JoinServer) (joinery.JoinServer, error)
	Unpin(ctx context.Context, caller joinery.Caller, id joinery.JoinServerID) error
	StatementKey(ctx context.Context) (public []byte, err error)
}

type rekeyProfileInput struct {
	DevicePath
	Body client.RekeyProfile
}

type armInput struct {
	DevicePath
	Body client.NewRekeyOrder
}

func (s *Server) registerRekeying() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/rekey", id: "getRekeying", tag: "rekey",
		summary: "How the rekeying of a device stands"},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.Rekeying], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			st, err := s.Rekeying.Status(ctx, caller, id)
			if err != nil {
				return nil, err
			}
			word := ""
			if st.Device.Rekey != 0 {
				word = st.Device.RekeyWord.String()
			}
			return ok(client.Rekeying{
				Profile: st.Device.Rekey.String(), Word: word, Generation: uint32(st.Generation), Candidates: uint32(st.Candidates),
				Exposed: st.Device.Disclosed, Orders: each(st.Orders, rekeyOrder),
			}), nil
		})
	route(s, spec{method: http.MethodPut, path: "/devices/{id}/rekey/profile", id: "setRekeyProfile", tag: "rekey",
		summary: "Say how a device rekeys",
		description: "By its owner's word, where neither its manifest nor who imported it says how. A device that is told to rekey and cannot ignores it; " +
			"an order is sent three times by this word alone."},
		func(ctx context.Context, caller joinery.Caller, in *rekeyProfileInput) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			p, err := rekeyProfile(in.Body.Profile)
			if err != nil {
				return nil, err
			}
			return nil, s.Rekeying.SetProfile(ctx, caller, id, p)
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/rekey", id: "armRekey", tag: "rekey", status: http.StatusCreated,
		summary: "Have a device derive new root keys and join at another Join Server",
		description: "The instruction goes with each of its join-accepts until the order ends, in the place of the network's list of channels. " +
			"Hand its new root keys over before it obeys. Where an export would need another person, the order waits for one."},
		func(ctx context.Context, caller joinery.Caller, in *armInput) (*body[client.RekeyOrder], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			o, err := s.Rekeying.Arm(ctx, caller, rekey.Arm{
				Device: id, JoinEUI: in.Body.NewJoinEUI, To: in.Body.To, Recipient: in.Body.Recipient, Life: time.Duration(in.Body.Days) * 24 * time.Hour,
				RekeyKey: in.Body.RekeyKey,
			})
			return ok(rekeyOrder(o)), err
		})
	s.deviceAct(spec{method: http.MethodDelete, path: "/devices/{id}/rekey", id: "cancelRekey",
		summary: "Send the instruction no more", description: "What was sent may still be obeyed; the device is served all the same."},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Rekeying.Cancel(ctx, caller, id)
		})
	s.deviceAct(spec{method: http.MethodPost, path: "/devices/{id}/rekey/confirm", id: "confirmRekey",
		summary:     "Take the owner's word that the device joined at the other Join Server",
		description: "Its joins are refused here from then on, until it is ordered anew. A receipt of that Join Server says it better."},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Rekeying.Confirm(ctx, caller, id)
		})
}

// rekeyProfile reads none, S or M; "" is none.
func rekeyProfile(text string) (p joinery.RekeyProfile, err error) {
	if text == "" {
		return 0, nil
	}
	if err := p.UnmarshalText([]byte(text)); err != nil {
		return 0, joinery.Errorf(joinery.CodeInvalid, "rekeying profile: want none, S or M")
	}
	return p, nil
}

func (s *Server) registerRekeyApprovals() {
	route(s, spec{method: http.MethodGet, path: "/rekey/requests", id: "listRekeyRequests", tag: "rekey",
		summary: "Orders to rekey that wait for another person"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.Page[client.RekeyRequest]], error) {
			const listing = "rekey-requests"
			after, err := placeID[joinery.RekeyID](*in, listing)
			if err != nil {
				return nil, err
			}
			list, next, err := s.RekeyApprovals.Requests(ctx, caller, after, in.Limit)
			if err != nil {
				return nil, err
			}
			p := client.Page[client.RekeyRequest]{Items: each(list, func(r rekey.Request) client.RekeyRequest {
				return client.RekeyRequest{Device: r.Device.ID, JoinEUI: r.Device.JoinEUI, DevEUI: r.Device.DevEUI, Order: rekeyOrder(r.RekeyOrder)}
			})}
			if next != 0 {
				p.Next = cursor(listing, next.String())
			}
			return ok(p), nil
		})
	route(s, spec{method: http.MethodPost, path: "/rekey/approvals", id: "approveRekey", tag: "rekey",
		summary: "Approve, as another person, orders to rekey",
		description: "What is named is what was looked at: exactly these devices, the JoinEUI at which they are to join and the key to which their new root keys go. " +
			"All are armed, or none."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.RekeyApproval]) (*body[client.RekeyOrders], error) {
			orders, err := s.RekeyApprovals.Approve(ctx, caller, rekey.Approval{Devices: in.Body.Devices, JoinEUI: in.Body.NewJoinEUI, Thumbprint: in.Body.Thumbprint, RekeyKey: in.Body.RekeyKey})
			return ok(client.RekeyOrders{Orders: each(orders, rekeyOrder)}), err
		})
	route(s, spec{method: http.MethodPost, path: "/rekey/rejections", id: "rejectRekey", tag: "rekey",
		summary: "Reject orders to rekey that wait for another person"},
		func(ctx context.Context, caller joinery.Caller, in *body[client.RekeyDevices]) (*body[client.Rejected], error) {
			n, err := s.RekeyApprovals.Reject(ctx, caller, in.Body.Devices)
			return ok(client.Rejected{Rejected: n}), err
		})
}

func rekeyOrder(o joinery.RekeyOrder) client.RekeyOrder {
	return client.RekeyOrder{
		ID: o.ID, State: string(o.State), NewJoinEUI: o.Rekey.JoinEUI, Cookie: o.Rekey.Cookie, Server: o.Server, To: o.To, Recipient: o.Recipient, Thumbprint: o.Thumbprint,
		By: o.By, At: o.At, DecidedBy: o.DecidedBy, ArmedAt: o.ArmedAt, ExpiresAt: o.ExpiresAt,
		Sent: o.Sent, FirstSentAt: o.FirstSentAt, LastSentAt: o.LastSentAt, EndedAt: o.EndedAt,
		RekeyKey: o.RekeyKey, Passage: passage(o.Passage),
	}
}

func rekeyFile(f rekey.File) client.RekeyFile {
	return client.RekeyFile{File: f.Content, Devices: f.Devices, LeftOut: each(f.LeftOut, func(l rekey.LeftOut) client.RekeyLeftOut {
		return client.RekeyLeftOut{Device: l.Device, Code: l.Code, Reason: l.Reason}
	})}
}

func (s *Server) registerRekeyFiles() {
	route(s, spec{method: http.MethodPost, path: "/rekey/tickets", id: "makeRekeyTicket", tag: "rekey",
		summary:     "Write orders into a signed ticket for the bench",
		description: "Each device needs an open order. From then on each may have been obeyed. See docs/handover.md."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewRekeyTicket]) (*body[client.RekeyFile], error) {
			f, err := s.RekeyFiles.Ticket(ctx, caller, in.Body.Devices, in.Body.LeaveOut)
			s.attemptedLeftOut("makeRekeyTicket", caller, f)
			return ok(rekeyFile(f)), err
		})
	route(s, spec{method: http.MethodPost, path: "/rekey/results", id: "takeRekeyResults", tag: "rekey",
		summary: "Take in what the bench made of a ticket", description: "Orders that were obeyed are confirmed."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.RekeyResults]) (*body[client.Confirmed], error) {
			n, err := s.RekeyFiles.Results(ctx, caller, each(in.Body.Results, func(r client.RekeyResult) rekeyfile.Result {
				return rekeyfile.Result{Order: r.Order.String(), DevEUI: r.DevEUI, Rekeyed: r.Rekeyed, Error: r.Error}
			}))
			return ok(client.Confirmed{Confirmed: n}), err
		})
	route(s, spec{method: http.MethodPost, path: "/rekey/handovers", id: "makeHandover", tag: "rekey",
		summary: "Seal the new root keys of devices to the Join Server, or the recipient, that their orders name",
		description: "They open there and nowhere else. It is recorded in the audit log, and can be asked for again. See docs/handover.md. " +
			"To a recipient they are disclosed: the devices say so for ever."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewHandover]) (*body[client.RekeyFile], error) {
			if (in.Body.To == 0) == (in.Body.Recipient == 0) {
				return nil, joinery.Errorf(joinery.CodeInvalid, "to: name a pinned Join Server or a recipient, one of the two")
			}
			var f rekey.File
			var err error
			if in.Body.Recipient != 0 {
				f, err = s.RekeyFiles.Disclose(ctx, caller, in.Body.Recipient, in.Body.Devices, in.Body.LeaveOut)
			} else {
				f, err = s.RekeyFiles.Handover(ctx, caller, in.Body.To, in.Body.Devices, in.Body.LeaveOut)
			}
			s.attemptedLeftOut("makeHandover", caller, f)
			return ok(rekeyFile(f)), err
		})
	route(s, spec{method: http.MethodPost, path: "/rekey/receipts", id: "makeReceipts", tag: "rekey",
		summary:     "Sign that devices which were handed over joined here",
		description: "Those that did not yet are left out."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.ArrivedDevices]) (*body[client.RekeyFile], error) {
			file, err := s.RekeyFiles.Receipts(ctx, caller, each(in.Body.Devices, func(d client.ArrivedDevice) rekey.HandedOver {
				return rekey.HandedOver{Device: d.Device, Order: d.Order, Cookie: d.Cookie}
			}))
			return ok(client.RekeyFile{File: file}), err
		})
	route(s, spec{method: http.MethodPost, path: "/rekey/confirmations", id: "takeReceipts", tag: "rekey",
		summary: "Confirm orders by another Join Server's receipts", description: "The Join Server that each order names must have signed them."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.RekeyFile]) (*body[client.Confirmed], error) {
			n, err := s.RekeyFiles.TakeReceipts(ctx, caller, in.Body.File)
			return ok(client.Confirmed{Confirmed: n}), err
		})
}

// JoinServerPath names a pinned Join Server in a path.
type JoinServerPath struct {
	ID string `path:"id" pattern:"^jsv_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"jsv_ and 13 characters" doc:"The Join Server's id"`
}

type changeJoinServerInput struct {
	JoinServerPath
	Body client.NewJoinServer
}

func (s *Server) registerJoinServers() {
	route(s, spec{method: http.MethodGet, path: "/join-servers", id: "listJoinServers", tag: "rekey",
		summary: "Other Join Servers to which new root keys may go"},
		s.listJoinServers)
	route(s, spec{method: http.MethodPost, path: "/join-servers", id: "pinJoinServer", tag: "rekey", status: http.StatusCreated,
		summary: "Pin a Join Server", description: "For the operator, who got its keys from its operator by a way that both trust."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewJoinServer]) (*body[client.JoinServer], error) {
			j, err := joinServerOf(in.Body)
			if err != nil {
				return nil, err
			}
			j, err = s.JoinServers.Pin(ctx, caller, j)
			return ok(joinServer(j)), err
		})
	route(s, spec{method: http.MethodPut, path: "/join-servers/{id}", id: "changeJoinServer", tag: "rekey",
		summary: "Change what is pinned of a Join Server",
		description: "All of it: its name, where it is reached, its certificate, transport key and JoinEUIs. Its statement key says that it is the same, and cannot change. " +
			"Orders that name another transport key are handed over no more."},
		func(ctx context.Context, caller joinery.Caller, in *changeJoinServerInput) (*body[client.JoinServer], error) {
			id, err := parse[joinery.JoinServerID](in.ID, "Join Server")
			if err != nil {
				return nil, err
			}
			j, err := joinServerOf(in.Body)
			if err != nil {
				return nil, err
			}
			j.ID = id
			j, err = s.JoinServers.ChangePin(ctx, caller, j)
			return ok(joinServer(j)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/join-servers/{id}", id: "unpinJoinServer", tag: "rekey", summary: "Forget a pinned Join Server"},
		func(ctx context.Context, caller joinery.Caller, in *JoinServerPath) (*none, error) {
			id, err := parse[joinery.JoinServerID](in.ID, "Join Server")
			if err != nil {
				return nil, err
			}
			return nil, s.JoinServers.Unpin(ctx, caller, id)
		})
	route(s, spec{method: http.MethodGet, path: "/statement-key", id: "getStatementKey", tag: "rekey",
		summary: "The key that verifies this server's tickets, hand-overs and receipts"},
		func(ctx context.Context, _ joinery.Caller, _ *none) (*body[client.StatementKey], error) {
			public, err := s.JoinServers.StatementKey(ctx)
			return ok(client.StatementKey{PublicKey: public}), err
		})
}

type joinServersInput struct{ Paging }

func (s *Server) listJoinServers(ctx context.Context, _ joinery.Caller, in *joinServersInput) (*body[client.Page[client.JoinServer]], error) {
	const listing = "join-servers"
	after, err := placeID[joinery.JoinServerID](in.Paging, listing)
	if err != nil {
		return nil, err
	}
	list, err := s.JoinServers.Servers(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b joinery.JoinServer) int { return cmp.Compare(a.ID, b.ID) })
	list = slices.DeleteFunc(list, func(j joinery.JoinServer) bool { return j.ID <= after })
	var p client.Page[client.JoinServer]
	if len(list) > in.Limit {
		list = list[:in.Limit]
		p.Next = cursor(listing, list[in.Limit-1].ID.String())
	}
	p.Items = each(list, joinServer)
	return ok(p), nil
}
