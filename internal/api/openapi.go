package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

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
				{Name: "service", Description: "The activation service: until when joins are answered, on what terms, and reports"},
				{Name: "exports", Description: "Root keys on their way to the owner of their devices"},
				{Name: "attestation", Description: "What devices show of their element and firmware, what it is held against, and what owners want"},
				{Name: "rekey", Description: "New root keys, derived inside devices, and other Join Servers where devices go with them"},
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

// Document makes the OpenAPI document, for programs that are made from it.
func (s *Server) Document() (*huma.OpenAPI, error) {
	t, err := s.newTable()
	if err != nil {
		return nil, err
	}
	return t.huma.OpenAPI(), nil
}

// packedDocument makes the document as it is served.
func (s *Server) packedDocument() ([]byte, error) {
	d, err := s.Document()
	if err != nil {
		return nil, err
	}
	return packDocument(d)
}

// serveDocument serves the document to everybody: it holds nothing but what is in
// the source.
func (s *Server) serveDocument() {
	s.made.mux.HandleFunc("GET "+full("/openapi.json"), func(w http.ResponseWriter, r *http.Request) {
		packed, err := s.document()
		if err != nil {
			s.logFailure(r.Context(), "openapi.json", err)
			s.write(w, s.problemOf(err, requestID(r.Context())))
			return
		}
		sendDocument(w, r, packed)
	})
}

// fixDocument ends the document, once all routes are registered.
func fixDocument(d *huma.OpenAPI) error {
	// huma registers a schema for errors that never leave us.
	schemas := d.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	documentHeaders(d)
	return leaveEntriesToDecoder(schemas)
}

// packDocument writes the document as people read it, and packs it: it is a
// megabyte that is seldom asked for.
func packDocument(d *huma.OpenAPI) ([]byte, error) {
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	var indented, packed bytes.Buffer
	if err := json.Indent(&indented, plain, "", "  "); err != nil {
		return nil, err
	}
	w := gzip.NewWriter(&packed)
	_, err = w.Write(indented.Bytes())
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return bytes.Clone(packed.Bytes()), nil
}

// sendDocument answers with the packed document, unpacked for who cannot.
func sendDocument(w http.ResponseWriter, r *http.Request, packed []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/openapi+json")
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed) // whoever went away needs no answer
		return
	}
	if plain, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
		_, _ = io.Copy(w, plain)
	}
}

// operationsOf lists the operations of a path.
func operationsOf(item *huma.PathItem) []*huma.Operation {
	all := []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete}
	return slices.DeleteFunc(all, func(op *huma.Operation) bool { return op == nil })
}
