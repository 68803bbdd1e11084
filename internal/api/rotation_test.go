package api_test

import (
	"net/http"
	"strings"
	"testing"
)

// Custody blobs, and what is made of them, pass over the operator socket alone: an
// operator's key sees how far a rotation is, and no more.
func TestCustodyBlobsStayOnTheMachine(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	if a := f.send(t, w.operatorKey, http.MethodGet, "/api/v1/rotation", ""); a.status != http.StatusOK {
		t.Errorf("progress: %d %s", a.status, a.body)
	}
	rewrap := `{"seal":{"format":"joinery-seal/1","kid":"` + strings.Repeat("A", 43) + `","alg":"RSA-OAEP-256","wrap":"A256KW","key":"` + strings.Repeat("A", 512) + `"},"rows":[]}`
	for _, call := range []struct{ method, body string }{{http.MethodGet, ""}, {http.MethodPost, rewrap}} {
		a := f.send(t, w.operatorKey, call.method, "/api/v1/rotation/roots", call.body)
		if a.status != http.StatusForbidden || !strings.Contains(a.body, "operator socket") {
			t.Errorf("%s with an operator's key: %d %s", call.method, a.status, a.body)
		}
	}
	if a := f.sendOnSocket(t, http.MethodGet, "/api/v1/rotation/roots"); a.status != http.StatusOK {
		t.Errorf("on the socket: %d %s", a.status, a.body)
	}
}
