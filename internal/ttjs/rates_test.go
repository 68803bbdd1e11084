package ttjs_test

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestRates: what peers and callers ask here counts against the quota that they
// have at the other doors, each device of a batch by itself.
func TestRates(t *testing.T) {
	f := startLimited(t, 20)
	ask := func(p party, method, path string) answer {
		t.Helper()
		return f.send(t, []tls.Certificate{p.cert}, method, path, "")
	}
	many := "/api/v2/devices/" + strings.TrimSuffix(strings.Repeat("0000000000000001,", 15), ",") + "/claims"
	if a := ask(f.here, http.MethodDelete, many); a.status != http.StatusBadRequest {
		t.Errorf("a batch: %d %s", a.status, a.body)
	}
	limited := ask(f.here, http.MethodDelete, many)
	if after, err := strconv.Atoi(limited.header.Get("Retry-After")); limited.status != http.StatusTooManyRequests || err != nil || after < 1 || after > 60 {
		t.Errorf("a batch more: %d %v %s", limited.status, limited.header, limited.body)
	}
	one := "/api/v2/devices/0000000000000001/claim"
	last := answer{}
	for range 6 {
		last = ask(f.here, http.MethodGet, one)
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("one after the other: %d %s", last.status, last.body)
	}
	if a := ask(f.there, http.MethodGet, one); a.status == http.StatusTooManyRequests {
		t.Error("another peer is limited, too")
	}
	for range 21 {
		last = f.by(t, f.key, http.MethodGet, "/api/v2/devices", "")
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("with an API key: %d %s", last.status, last.body)
	}
}
