package api

import (
	"net/http"
	"strconv"

	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
)

// documentHeaders puts the headers that answers have into a document.
func documentHeaders(d *huma.OpenAPI) {
	text := func(doc string) *huma.Header {
		return &huma.Header{Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	d.Components.Headers = map[string]*huma.Header{
		client.RequestIDHeader: text("Finds the request in the server's log"),
		"RateLimit":            text("How many requests the credential has left (r), and in how many seconds it has all of them again (t)"),
		"RateLimit-Policy":     text("How many requests a credential has (q) in so many seconds (w)"),
		"Retry-After":          {Description: "Seconds to wait before asking again", Schema: &huma.Schema{Type: huma.TypeInteger}},
		replayed:               text("true: the request was done before, and this is the answer that it got then"),
	}
	refer := func(r *huma.Response, name string) {
		if r.Headers == nil {
			r.Headers = map[string]*huma.Header{}
		}
		r.Headers[name] = &huma.Header{Ref: "#/components/headers/" + name}
	}
	for _, item := range d.Paths {
		for _, op := range operationsOf(item) {
			for text, r := range op.Responses {
				refer(r, client.RequestIDHeader)
				status, _ := strconv.Atoi(text)
				switch {
				case status == http.StatusUnauthorized:
					continue // whose limit would it be
				case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
					refer(r, "Retry-After")
				case status < 300 && op.Method != http.MethodGet:
					refer(r, replayed)
				}
				refer(r, "RateLimit")
				refer(r, "RateLimit-Policy")
			}
		}
	}
}
