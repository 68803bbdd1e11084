package auth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
)

// A provider that hangs keeps nobody longer than they mean to wait, and all who
// ask meanwhile share one request.
func TestProviderThatHangs(t *testing.T) {
	release := make(chan struct{})
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-release
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	p := NewProvider(server.URL, "joinery", "", nil)
	p.rest = time.Hour
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		_, err := p.discover(ended)
		if wantCode(t, err, joinery.CodeUnavailable); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	waiting := make(chan error)
	go func() { _, err := p.discover(t.Context()); waiting <- err }()
	close(release)
	wantCode(t, <-waiting, joinery.CodeUnavailable)
	// What failed a moment ago is told again without asking.
	_, err := p.discover(t.Context())
	wantCode(t, err, joinery.CodeUnavailable)
	if n := asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// A provider that comes back is found, and asked no more.
func TestProviderThatComesBack(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(nil)
	defer server.Close()
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": server.URL, "authorization_endpoint": server.URL + "/authorize", "token_endpoint": server.URL + "/token",
			"jwks_uri": server.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	p := NewProvider(server.URL, "joinery", "", nil)
	p.rest = 0
	_, err := p.discover(t.Context())
	wantCode(t, err, joinery.CodeUnavailable)
	for range 3 {
		d, err := p.discover(t.Context())
		if err != nil || d.oauth.Endpoint.TokenURL != server.URL+"/token" {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// An address counts as verified by true and "true" alone, and nothing that stands
// there instead keeps anybody out.
func TestVerifiedAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		`true`: true, `"true"`: true, `false`: false, `"false"`: false, `"True"`: false, `1`: false, `"1"`: false, `null`: false, `{}`: false, `["true"]`: false,
	} {
		var c claims
		if err := json.Unmarshal([]byte(`{"name":"Ann","email":"ann@example.com","email_verified":`+text+`}`), &c); err != nil || bool(c.EmailVerified) != want || c.Name != "Ann" {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	var none claims
	if err := json.Unmarshal([]byte(`{"email":"ann@example.com"}`), &none); err != nil || none.EmailVerified {
		t.Errorf("without the claim: %+v, %v", none, err)
	}
}
