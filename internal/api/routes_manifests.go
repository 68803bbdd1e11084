package api

import (
	"context"
	"net/http"

	"joinery"
	"joinery/client"
)

func (s *Server) registerManifests() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/manifest-entry", id: "getManifestEntry", tag: "devices",
		summary:     "The signed manifest entry with which a device came in",
		description: "Byte for byte as its maker signed it. Without members for a device that came by a key list."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.ManifestEntry], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			entry, serial, err := s.Devices.ManifestEntry(ctx, caller, id)
			return ok(client.ManifestEntry{Serial: serial, Entry: entry}), err
		})
}
