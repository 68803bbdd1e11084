package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
)

// loginServer answers a program that waits for its person with what answers
// says, in turn, and the last of them from then on.
func loginServer(t *testing.T, lasts time.Duration, answers ...func(http.ResponseWriter)) profile {
	t.Helper()
	t.Setenv("DISPLAY", "") // no browser is opened
	t.Setenv("WAYLAND_DISPLAY", "")
	polls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("it sent a credential that nobody has yet")
		}
		if strings.HasSuffix(r.URL.Path, "/login") {
			_ = json.NewEncoder(w).Encode(client.Login{
				Secret: "s", Code: "BCDF-GHJK", URL: "https://js.example.com/sign-in#login=BCDF-GHJK",
				PollEvery: 1, ExpiresAt: time.Now().Add(lasts),
			})
			return
		}
		answers[min(polls, len(answers)-1)](w)
		polls++
	}))
	t.Cleanup(s.Close)
	return profile{Server: s.URL}
}

func TestSignInByBrowser(t *testing.T) {
	session := joinery.NewSessionID()
	pending := func(w http.ResponseWriter) { _ = json.NewEncoder(w).Encode(client.FinishedLogin{}) }
	agreed := func(w http.ResponseWriter) {
		_ = json.NewEncoder(w).Encode(client.FinishedLogin{Done: true, Token: "joinery_session_x", Session: session})
	}
	var said bytes.Buffer
	a := &app{err: &said}
	got, err := a.signInByBrowser(t.Context(), loginServer(t, time.Minute, pending, refuse(429, joinery.CodeRateLimited), agreed))
	if err != nil || got.Token != "joinery_session_x" || got.Session != session {
		t.Errorf("%+v, %v", got, err)
	}
	if s := said.String(); !strings.Contains(s, "https://js.example.com/sign-in") || !strings.Contains(s, "BCDF-GHJK") || strings.Contains(s, "joinery_session") {
		t.Errorf("said %q", s)
	}
	if _, err := a.signInByBrowser(t.Context(), loginServer(t, time.Second/2, pending)); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("nobody came: %v", err)
	}
	if _, err := a.signInByBrowser(t.Context(), loginServer(t, time.Minute, refuse(404, joinery.CodeNotFound))); err == nil {
		t.Error("a login that ended was waited for")
	}
	without := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(404, joinery.CodeNotFound)(w) }))
	defer without.Close()
	if _, err := a.signInByBrowser(t.Context(), profile{Server: without.URL}); !errors.Is(err, errNoBrowser) {
		t.Errorf("a server without sign-in: %v", err)
	}
}
