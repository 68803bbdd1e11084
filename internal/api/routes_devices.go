package api

import (
	"context"
	"net/http"
	"strings"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
	"joinery/lorawan"
)

// DevicePath names a device in a path. Its name is exported because huma looks past
// embedded types of other names.
type DevicePath struct {
	ID string `path:"id" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"The device's id"`
}

func (in DevicePath) parse() (joinery.DeviceID, error) {
	return parse[joinery.DeviceID](in.ID, "device")
}

type devicesInput struct {
	After     string `query:"after" pattern:"^dev_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"dev_ and 13 characters" doc:"Only devices behind this one ('next' of the page before)"`
	Limit     int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"At most this many"`
	JoinEUI   string `query:"joinEUI" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Only devices with this JoinEUI"`
	DevEUI    string `query:"devEUI" pattern:"^[0-9A-Fa-f]{1,16}$" patternDescription:"1 to 16 hexadecimal digits" doc:"Only devices whose DevEUI begins so"`
	Suspended bool   `query:"suspended" doc:"Only devices that are suspended"`
}

func (s *Server) registerDevices() {
	route(s, spec{method: http.MethodGet, path: "/devices", id: "listDevices", tag: "devices",
		summary: "Devices, in order of their ids", description: "To the operator all, or those of the organisation for which it acts; else the caller's own."},
		s.listDevices)
	route(s, spec{method: http.MethodGet, path: "/devices/{id}", id: "getDevice", tag: "devices", summary: "One device"},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.Device], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			state, err := s.Devices.Device(ctx, caller, id)
			return ok(device(state)), err
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
		func(ctx context.Context, caller joinery.Caller, in *activationsInput) (*body[client.List[client.Activation]], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			activations, err := s.Nonces.Activations(ctx, caller, id, in.Limit)
			return list(activations, activation), err
		})
}

type resetInput struct {
	DevicePath
	Body client.NoncesReset
}

type activationsInput struct {
	DevicePath
	Limit int `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"At most this many"`
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

func (s *Server) listDevices(ctx context.Context, caller joinery.Caller, in *devicesInput) (*body[client.Page[client.Device]], error) {
	q := joinery.DeviceQuery{
		Org: caller.Org, Limit: in.Limit, DevEUIPrefix: strings.ToUpper(in.DevEUI), OnlySuspended: in.Suspended,
	}
	var err error
	if in.After != "" {
		if q.After, err = joinery.ParseDeviceID(in.After); err != nil {
			return nil, joinery.WrapError(joinery.CodeInvalid, err, "after: want 'next' of the page before")
		}
	}
	if in.JoinEUI != "" {
		if q.JoinEUI, err = lorawan.ParseEUI64(in.JoinEUI); err != nil {
			return nil, joinery.WrapError(joinery.CodeInvalid, err, "joinEUI: want 16 hexadecimal digits")
		}
	}
	states, err := s.Devices.Devices(ctx, caller, q)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.Device]{Items: each(states, device)}
	if n := len(states); n > 0 && n == in.Limit {
		p.Next = states[n-1].Device.ID.String()
	}
	return ok(p), nil
}

func (s *Server) registerOwnership() {
	route(s, spec{method: http.MethodPost, path: "/claims", id: "claimDevice", tag: "devices", status: http.StatusCreated,
		summary: "Become the owner of a device",
		description: "With the owner token from its label. An unknown device and a wrong token are answered alike; " +
			"that a device has an owner already is told only to who has the right token."},
		s.claimDevice)
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/owner-token", id: "getOwnerToken", tag: "devices",
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
	route(s, spec{method: http.MethodPut, path: "/devices/{id}/binding", id: "bindDevice", tag: "devices",
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
	s.deviceAct(spec{method: http.MethodDelete, path: "/devices/{id}/binding", id: "unbindDevice",
		summary: "Let no network join a device"},
		func(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
			return s.Ownership.Unbind(ctx, caller, id)
		})
}

type bindInput struct {
	DevicePath
	Body client.NewBinding
}

func (s *Server) claimDevice(ctx context.Context, caller joinery.Caller, in *body[client.NewClaim]) (*body[client.Device], error) {
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
	return ok(device(state)), err
}
