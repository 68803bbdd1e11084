package api

import (
	"context"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
)

// DevicePath names a device in a path. Its name is exported because huma looks past
// embedded types of other names.
type DevicePath struct {
	ID string `path:"id" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device's id"`
}

func (in DevicePath) parse() (joinery.DeviceID, error) {
	return parse[joinery.DeviceID](in.ID, "device")
}

func (s *Server) registerDevices() {
	route(s, spec{method: http.MethodGet, path: "/devices", id: "listDevices", tag: "devices",
		summary: "Devices",
		description: "To the operator all, or those of the organisation for which it acts; else the caller's own. All that is asked for must hold at once. " +
			"A page looks at so many devices and no more: where few are what is asked for, it may be short or empty and yet have a 'next'."},
		s.listDevices)
	route(s, spec{method: http.MethodGet, path: "/devices/{id}", id: "getDevice", tag: "devices", summary: "One device"},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*tagged[client.Device], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			state, err := s.Devices.Device(ctx, caller, id)
			return taggedDevice(state), err
		})
	s.deviceAct(spec{method: http.MethodDelete, path: "/devices/{id}", id: "deleteDevice",
		summary: "Delete a device and its keys", description: "It cannot be undone. What the device did stays in the audit log."},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Devices.Delete(ctx, caller, id)
		})
	s.deviceAct(spec{method: http.MethodPost, path: "/devices/{id}/suspend", id: "suspendDevice",
		summary: "Refuse joins of a device"},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Devices.Suspend(ctx, caller, id, true)
		})
	s.deviceAct(spec{method: http.MethodPost, path: "/devices/{id}/resume", id: "resumeDevice",
		summary: "End a suspension"},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Devices.Suspend(ctx, caller, id, false)
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/reset-nonces", id: "resetNonces", tag: "devices",
		summary: "Let one join within 24 hours set a new floor for the DevNonces",
		description: "For the operator. While it is open, a recorded join-request of the device could be replayed once. " +
			"JoinNonce can be raised and is never lowered."},
		func(ctx context.Context, caller joinery.Caller, in *resetInput) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Nonces.OpenReset(ctx, caller, id, in.Body.JoinNonceAtLeast)
		})
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/activations", id: "listActivations", tag: "devices",
		summary: "Accepted joins and rejoins of a device, newest first"},
		s.listActivations)
}

type resetInput struct {
	DevicePath
	Body client.NoncesReset
}

type activationsInput struct {
	DevicePath
	Paging
}

func (s *Server) listActivations(ctx context.Context, caller joinery.Caller, in *activationsInput) (*body[client.Page[client.Activation]], error) {
	const listing = "activations"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	place, err := in.place(listing, 1)
	if err != nil {
		return nil, err
	}
	var before joinery.ActivationID
	if place != nil && before.UnmarshalText([]byte(place[0])) != nil {
		return nil, errCursor
	}
	activations, err := s.Nonces.Activations(ctx, caller, id, before, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.Activation]{Items: each(activations, activation)}
	if n := len(activations); n > 0 && n == in.Limit {
		p.Next = cursor(listing, activations[n-1].ID.String())
	}
	return ok(p), nil
}

// deviceAct registers a route that does one thing to one device.
func (s *Server) deviceAct(sp spec, do func(context.Context, joinery.Caller, joinery.DeviceID) error) {
	sp.tag = "devices"
	route(s, sp, func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*none, error) {
		id, err := in.parse()
		if err != nil {
			return nil, err
		}
		return nil, do(ctx, caller, id)
	})
}

func (s *Server) registerOwnership() {
	route(s, spec{method: http.MethodPost, path: "/claims", id: "claimDevice", call: "Claim", tag: "devices", status: http.StatusCreated,
		summary: "Become the owner of a device",
		description: "With the owner token from its label. An unknown device and a wrong token are answered alike; " +
			"that a device has an owner already is told only to who has the right token."},
		s.claimDevice)
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/owner-token", id: "getOwnerToken", secret: true, tag: "devices",
		summary:     "The token with which a device is claimed first",
		description: "For the device's maker, until its first claim. Reading it is recorded in the audit log."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.OwnerToken], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			token, err := s.Ownership.OwnerToken(ctx, caller, id)
			return ok(client.OwnerToken{Device: id, OwnerToken: token}), err
		})
	route(s, spec{method: http.MethodPut, path: "/devices/{id}/binding", id: "bindDevice", call: "Bind", tag: "devices",
		summary: "Say which network may join a device", description: "It takes effect with the next join."},
		func(ctx context.Context, caller joinery.Caller, in *bindInput) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			b, err := bindingOf(&in.Body)
			if err != nil {
				return nil, err
			}
			return nil, s.Ownership.Bind(ctx, caller, id, *b)
		})
	s.deviceAct(spec{method: http.MethodDelete, path: "/devices/{id}/binding", id: "unbindDevice", call: "Unbind",
		summary: "Let no network join a device"},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Ownership.Unbind(ctx, caller, id)
		})
}

type bindInput struct {
	DevicePath
	Body client.NewBinding
}

func (s *Server) claimDevice(ctx context.Context, caller joinery.Caller, in *body[client.NewClaim]) (*tagged[client.Device], error) {
	b, err := bindingOf(in.Body.Binding)
	if err != nil {
		return nil, err
	}
	claimed, err := s.Ownership.Claim(ctx, caller, claim.Request{
		JoinEUI: in.Body.JoinEUI, DevEUI: in.Body.DevEUI, OwnerToken: in.Body.OwnerToken, Binding: b,
	})
	if err != nil {
		return nil, err
	}
	// What was claimed is done; only its description is read again.
	state, err := s.Devices.Device(context.WithoutCancel(ctx), caller, claimed.ID)
	return taggedDevice(state), err
}
