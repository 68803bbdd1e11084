package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
)

const description = `The management API of a Joinery server, a LoRaWAN Join Server.

On the operator socket root and the server's own user need no credential and act as the
server's operator. Everywhere else a request carries an API key, or the session of somebody who
signed in. What each operation needs stands with it. Who belongs to several organisations, and an
operator who acts for one, names it in the header ` + "`" + client.OrganisationHeader + "`" + `.

Listings are read page by page: ` + "`after`" + ` is the ` + "`next`" + ` of the page before, and a page without one is
the last. A page may be short and yet have a ` + "`next`" + `. A device and a peer have an ETag for If-Match; an
Idempotency-Key makes it safe to send a request again. Each answer says in RateLimit how many requests
the caller has left.

Identifiers are hexadecimal as LoRaWAN prints them (JoinEUI, DevEUI and NSID 16 digits, NetID
6, DevAddr 8), most significant digit first, upper case in answers, either case in requests.
Members that are not known are refused. Refusals are RFC 9457 problems; their ` + "`code`" + ` is a word
of a closed set, and they never repeat what was sent. No answer holds a key, but for those
that make an API key, an invitation, a session or the secret of a webhook, and the ones that
read owner tokens.`

// config is huma's configuration: the document's head, strict JSON, no pages of
// huma's own.
func (s *Server) config() huma.Config {
	version := s.version
	if version == "" {
		version = "0.0.0"
	}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Joinery management API", Version: version, Description: description, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
			Servers: []*huma.Server{{URL: "/", Description: "The server that this document came from"}},
			Tags: []*huma.Tag{
				{Name: "server", Description: "The server itself"},
				{Name: "organisations", Description: "Who holds devices and peers, and which JoinEUIs are theirs"},
				{Name: "peers", Description: "Network Servers and Application Servers, and the KEKs shared with them"},
				{Name: "devices", Description: "End-devices, their owners and their bindings"},
				{Name: "imports", Description: "Devices from signed manifests and sealed key lists"},
				{Name: "events", Description: "What happened, to be read or sent to an address"},
				{Name: "credentials", Description: "API keys"},
				{Name: "people", Description: "People who sign in, what they may do, and the programs that act for them"},
				{Name: "audit", Description: "The log of custody events"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"apiKey": {Type: "http", Scheme: "bearer", BearerFormat: "joinery_key_<id>_<secret>",
						Description: "An API key, or a session. On the operator socket root and the server's own user need none."},
				},
			},
			Security: []map[string][]string{{"apiKey": {}}},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat(), "json": jsonFormat()},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{s.replaceError},
	}
}

// Document is the OpenAPI document, for programs that are made from it.
func (s *Server) Document() *huma.OpenAPI { return s.huma.OpenAPI() }

// serveDocument fixes the document, once all routes are registered, and serves
// it to everybody: it holds nothing but what is in the source.
func (s *Server) serveDocument() error {
	// huma registers a schema for errors that never leave us.
	schemas := s.huma.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	documentHeaders(s.huma.OpenAPI())
	if err := leaveEntriesToDecoder(schemas); err != nil {
		return err
	}
	plain, err := json.Marshal(s.huma.OpenAPI())
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	var document bytes.Buffer
	if err := json.Indent(&document, plain, "", "  "); err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	s.mux.HandleFunc("GET "+full("/openapi.json"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document.Bytes()) // whoever went away needs no answer
	})
	return nil
}
