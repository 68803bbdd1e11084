package api

import (
	"context"
	"errors"
	"net/http"

	"joinery"
	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
)

func (s *Server) registerManifests() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/manifest-entry", id: "getManifestEntry", tag: "devices",
		summary:     "The signed manifest entry with which a device came in",
		description: "What its maker signed, letter by letter: payload, protected header and signature. What stood beside them unsigned is not kept. Without members for a device that came by a key list."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.ManifestEntry], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			entry, serial, err := s.Devices.ManifestEntry(ctx, caller, id)
			return ok(client.ManifestEntry{Serial: serial, Entry: entry}), err
		})
}

// leaveEntriesToDecoder has the document say that entries of manifests are base64,
// and the schema not look: it would by a regular expression, which takes half as
// long as a signature, and the decoder refuses what is none anyway.
func leaveEntriesToDecoder(schemas map[string]*huma.Schema) error {
	rows := schemas["ImportRows"]
	if rows == nil || rows.Properties["entries"] == nil || rows.Properties["entries"].Items == nil {
		return errors.New("the OpenAPI document has no entries of ImportRows")
	}
	entry := rows.Properties["entries"].Items
	entry.Extensions = map[string]any{"contentEncoding": entry.ContentEncoding}
	entry.ContentEncoding = ""
	return nil
}
