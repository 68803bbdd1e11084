package api

import (
	"context"
	"net/http"
	"strconv"

	"joinery"
	"joinery/client"
)

func (s *Server) registerLabels() {
	route(s, spec{method: http.MethodPost, path: "/owner-tokens", id: "readOwnerTokens", call: "OwnerTokens", secret: true, tag: "devices",
		summary: "The owner tokens of many devices, for their labels",
		description: "As for one device: for its maker, until its first claim, and each reading is recorded in the audit log. " +
			"Each device has its own result, in the order of the request; one that cannot be read has a code and costs only itself."},
		s.readOwnerTokens)
	route(s, spec{method: http.MethodGet, path: "/imports/{id}/devices", id: "listImportedDevices", tag: "imports",
		summary:     "The devices of an import, in the file's order",
		description: "New ones and those that were there already; some may be deleted by now. An import that was made by an older server has none."},
		s.listImportedDevices)
}

func (s *Server) listImportedDevices(ctx context.Context, caller joinery.Caller, in *importErrorsInput) (*body[client.Page[client.ImportedDevice]], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	const listing = "import-devices"
	place, err := in.place(listing, 1)
	if err != nil {
		return nil, err
	}
	var from uint64
	if place != nil {
		if from, err = strconv.ParseUint(place[0], 10, 53); err != nil {
			return nil, errCursor
		}
	}
	devices, next, err := s.Imports.Imported(ctx, caller, id, from, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.ImportedDevice]{Items: each(devices, func(d joinery.ImportedDevice) client.ImportedDevice { return client.ImportedDevice(d) })}
	if next != 0 {
		p.Next = cursor(listing, strconv.FormatUint(next, 10))
	}
	return ok(p), nil
}

func (s *Server) readOwnerTokens(ctx context.Context, caller joinery.Caller, in *body[client.OwnerTokensRequest]) (*body[client.OwnerTokens], error) {
	refs := each(in.Body.Devices, deviceRef)
	tokens, err := s.Ownership.LabelTokens(ctx, caller, refs)
	if err != nil {
		return nil, err
	}
	var tried []joinery.Attempt
	for i, t := range tokens {
		tried = append(tried, attemptAt("readOwnerTokens", caller, t.Err, refs[i])...)
	}
	s.attemptedAll(tried)
	out := client.OwnerTokens{Results: each(tokens, labelToken)}
	for i := range out.Results {
		out.Results[i].Index = i
	}
	return ok(out), nil
}

func deviceRef(r client.DeviceRef) joinery.DeviceRef {
	return joinery.DeviceRef{ID: r.Device, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI}
}

func labelToken(t joinery.LabelToken) client.LabelToken {
	if t.Err != nil {
		return client.LabelToken{Code: joinery.CodeOf(t.Err), Detail: joinery.MessageOf(t.Err)}
	}
	d := t.Device
	return client.LabelToken{Device: d.ID, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, Serial: t.Serial, OwnerToken: t.OwnerToken}
}
