package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// serve runs h and gives a client of it.
func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{Server: s.URL, APIKey: "jk_test", UserAgent: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestWhereAKeyMayGo(t *testing.T) {
	for _, c := range []struct {
		opt  client.Options
		want string // part of the error, "" for none
	}{
		{client.Options{Socket: "/run/s"}, ""},
		{client.Options{Server: "https://js.example.com", APIKey: "k"}, ""},
		{client.Options{Server: "https://js.example.com/base/", APIKey: "k"}, ""},
		{client.Options{Server: "http://127.0.0.1:80", APIKey: "k"}, ""},
		{client.Options{Server: "http://[::1]:80", APIKey: "k"}, ""},
		{client.Options{Server: "http://localhost", APIKey: "k"}, ""},
		{client.Options{}, "give the server's address"},
		{client.Options{Socket: "/run/s", Server: "https://x", APIKey: "k"}, "not both"},
		{client.Options{Server: "https://js.example.com"}, "an API key is needed"},
		{client.Options{Server: "http://js.example.com", APIKey: "k"}, "use https"},
		{client.Options{Server: "http://127.0.0.1.example.com", APIKey: "k"}, "use https"},
		{client.Options{Server: "http://localhost.example.com", APIKey: "k"}, "use https"},
		{client.Options{Server: "ftp://js.example.com", APIKey: "k"}, "https://"},
		{client.Options{Server: "js.example.com", APIKey: "k"}, "base URL"},
		{client.Options{Server: "https://user:secret@js.example.com", APIKey: "k"}, "base URL"},
		{client.Options{Server: "https://js.example.com?x=y", APIKey: "k"}, "base URL"},
	} {
		_, err := client.New(c.opt)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.opt, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}

func TestRequestCarriesCredentialAndOrganisation(t *testing.T) {
	org := joinery.NewOrgID()
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = io.WriteString(w, `{"version":"1","ready":true,"transportKID":"x","caller":{"name":"n","operator":true}}`)
	}))
	defer s.Close()
	c, err := client.New(client.Options{Server: s.URL + "/base/", APIKey: "jk_test", Organisation: org, UserAgent: "test/1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Authorization": {"Bearer jk_test"}, "Joinery-Organisation": {org.String()}, "Accept": {"application/json"}, "User-Agent": {"test/1"}}
	for name, value := range want {
		if !reflect.DeepEqual(got.Header[name], value) {
			t.Errorf("%s: %q, want %q", name, got.Header[name], value)
		}
	}
	if got.URL.Path != "/base/api/v1/status" {
		t.Errorf("path %s", got.URL.Path)
	}
}

func TestProblem(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"type":"urn:joinery:problem:invalid","title":"Invalid request","status":400,"code":"invalid",
			"detail":"mend it","errors":[{"location":"body.name","message":"expected string"}],"requestId":"abc"}`)
	})
	_, err := c.Status(t.Context())
	p, ok := errors.AsType[*client.Problem](err)
	if !ok {
		t.Fatalf("%T %v", err, err)
	}
	want := client.Problem{Type: "urn:joinery:problem:invalid", Title: "Invalid request", Status: 422, Code: joinery.CodeInvalid,
		Detail: "mend it", Errors: []client.ProblemField{{Location: "body.name", Message: "expected string"}}, RequestID: "abc"}
	if !reflect.DeepEqual(*p, want) {
		t.Errorf("%+v, want %+v", *p, want)
	}
	if got := err.Error(); got != "Invalid request: mend it; body.name: expected string" {
		t.Errorf("says %q", got)
	}
}

// TestStrangers: something that is no Join Server answers.
func TestStrangers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a proxy": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>bad gateway", http.StatusBadGateway)
		},
		"other problem": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, `{"title":"teapot"}`)
		},
	} {
		_, err := serve(t, h).Status(t.Context())
		if p, ok := errors.AsType[*client.Problem](err); !ok || p.Code != joinery.CodeInternal || p.Status < 400 || !strings.Contains(p.Detail, "address") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "GET /status") {
		t.Errorf("success without JSON: %v", err)
	}
}

func TestRedirectIsRefused(t *testing.T) {
	reached := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer elsewhere.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	if _, err := c.Status(t.Context()); err == nil || reached {
		t.Errorf("a redirect was followed: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	c, err := client.New(client.Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Device(t.Context(), joinery.NewDeviceID())
	if !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hang := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, err := hang.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a credential was sent where none was given")
		}
		_, _ = io.WriteString(w, `{"items":[]}`)
	})}
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	c, err := client.New(client.Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	if peers, err := c.Peers(t.Context()); err != nil || len(peers) != 0 {
		t.Errorf("%v, %v", peers, err)
	}
}

// TestPages ranges over three pages, stops early, and ends with an error.
func TestPages(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		switch after := r.URL.Query().Get("after"); after {
		case "", "5":
			_, _ = io.WriteString(w, `{"items":[{"id":6,"at":"2026-01-01T00:00:00Z","event":"e","actor":"a"}],"next":"7"}`)
		case "7":
			_, _ = io.WriteString(w, `{"items":[],"next":"9"}`)
		case "9":
			_, _ = io.WriteString(w, `{"items":[{"id":10,"at":"2026-01-01T00:00:00Z","event":"e","actor":"a"}]}`)
		}
	})
	var ids []int64
	for e, err := range c.Audit(t.Context(), client.AuditQuery{After: "5"}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if fmt.Sprint(ids) != "[6 10]" || strings.Join(asked, " ") != "after=5 after=7 after=9" {
		t.Errorf("ids %v, asked %v", ids, asked)
	}
	asked = nil
	for _, err := range c.Audit(t.Context(), client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if len(asked) != 1 {
		t.Errorf("after a break %d pages were read", len(asked))
	}
	failing := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("after") != "" {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"items":[{}],"next":"x"}`)
	})
	n, last := 0, error(nil)
	for _, err := range failing.Devices(t.Context(), client.DevicesQuery{}) {
		n, last = n+1, err
	}
	if n != 2 || last == nil {
		t.Errorf("%d pairs, the last with %v", n, last)
	}
}

// TestFilterBecomesAQuery: what a filter says is asked for.
func TestFilterBecomesAQuery(t *testing.T) {
	joinEUI, err := lorawan.ParseEUI64("70B3D57ED0000000")
	if err != nil {
		t.Fatal(err)
	}
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.RawQuery
		_, _ = io.WriteString(w, `{"items":[]}`)
	})
	filter := client.DevicesQuery{JoinEUI: joinEUI, DevEUI: "0004", Status: "suspended", Limit: 9, After: "x"}
	if _, err := c.DevicesPage(t.Context(), filter); err != nil {
		t.Fatal(err)
	}
	if got != "after=x&devEUI=0004&joinEUI=70B3D57ED0000000&limit=9&status=suspended" {
		t.Errorf("query %s", got)
	}
}

func TestWaitReady(t *testing.T) {
	asked := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_ = json.NewEncoder(w).Encode(client.Status{Ready: asked > 2, Reason: "starting"})
	})
	if err := c.WaitReady(t.Context()); err != nil || asked != 3 {
		t.Errorf("%v after %d", err, asked)
	}
	never := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(client.Status{Reason: "keystore sealed"})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := never.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "keystore sealed") {
		t.Errorf("%v", err)
	}
}

// TestUnknownMembersOfAnswersAreIgnored: a newer server may say more.
func TestUnknownMembersOfAnswersAreIgnored(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kid":"k","pem":"p","madeIn":2031}`)
	})
	if k, err := c.TransportKey(t.Context()); err != nil || k.KID != "k" {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestZeroIdentifiersAreLeftOut: an identifier that was not given must not
// travel as one that is all zeros.
func TestZeroIdentifiersAreLeftOut(t *testing.T) {
	for _, v := range []any{
		client.NewBinding{AppSKey: "clear"}, client.RoamingRule{}, client.NewAPIKey{Name: "n"}, client.NewImport{},
		client.NewJoinEUIRange{}, client.SealedKeyRow{MACVersion: lorawan.MAC1_0_4, MAC: []byte{1}}, client.Status{},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, zero := range []string{`"nsid"`, `"organisation"`, `"device"`, `"expiresAt"`, `"binding"`, `"macVersion":"unknown"`, `null`} {
			if strings.Contains(string(b), zero) {
				t.Errorf("%T has %s: %s", v, zero, b)
			}
		}
	}
}
