package api_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"testing"
)

// TestDocumentPackedOrNot: the document is the same for clients that unpack and
// for those that cannot, and is an eighth of its size on the way at most.
func TestDocumentPackedOrNot(t *testing.T) {
	f := start(t)
	get := func(encoding string) ([]byte, http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/api/v1/openapi.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", encoding) // so that the client leaves it as it comes
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%d, %v", resp.StatusCode, err)
		}
		return body, resp.Header
	}
	plain, h := get("identity")
	if h.Get("Content-Encoding") != "" || len(plain) < 100_000 || plain[0] != '{' {
		t.Fatalf("%d bytes, %v", len(plain), h)
	}
	packed, h := get("br, gzip")
	if h.Get("Content-Encoding") != "gzip" || h.Get("Content-Type") != "application/openapi+json" || 8*len(packed) > len(plain) {
		t.Fatalf("%d bytes of %d, %v", len(packed), len(plain), h)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := io.ReadAll(r); err != nil || string(unpacked) != string(plain) {
		t.Errorf("unpacked it is another document: %d bytes, %v", len(unpacked), err)
	}
}
