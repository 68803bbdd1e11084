package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestReadyFollowsTheParts(t *testing.T) {
	var broken atomic.Bool
	o := &ops{
		gatherer: newRegistry(),
		checks: []check{
			{"database", func(context.Context) error { return nil }},
			{"keyring", func(context.Context) error {
				if broken.Load() {
					return errors.New("detail for the log only")
				}
				return nil
			}},
		},
	}
	server := httptest.NewServer(o.handler())
	defer server.Close()

	want := func(path string, status int, body string) {
		t.Helper()
		if gotStatus, got := get(t, server.URL+path); gotStatus != status || got != body {
			t.Errorf("GET %s: %d %q, want %d %q", path, gotStatus, got, status, body)
		}
	}
	want("/livez", 200, "ok\n")
	want("/readyz", 200, "ok\n")
	want("/readyz?verbose", 200, "database ok\nkeyring ok\nserving ok\nok\n")
	broken.Store(true)
	want("/livez", 200, "ok\n")
	want("/readyz", 503, "not ready\n")
	want("/readyz?verbose", 503, "database ok\nkeyring failed\nserving ok\nnot ready\n")
	broken.Store(false)
	want("/readyz", 200, "ok\n")
	o.setStopping()
	want("/readyz?verbose", 503, "database ok\nkeyring ok\nserving stopping\nnot ready\n")
}

// While joins are fenced off, a server is up and not ready, and says so.
func TestReadyTellsOfTheFence(t *testing.T) {
	o := &ops{gatherer: newRegistry(), checks: []check{{checkFence, func(context.Context) error { return errors.New("detail") }}}}
	server := httptest.NewServer(o.handler())
	defer server.Close()
	const want = "joins are refused until joinery restore confirm; the log says why\nnot ready\n"
	if status, body := get(t, server.URL+"/readyz"); status != 503 || body != want {
		t.Errorf("%d %q, want 503 %q", status, body, want)
	}
}

// A part that hangs is a part that does not answer: 503 within two seconds.
func TestReadyDoesNotWaitForAStalledPart(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	o := &ops{gatherer: newRegistry(), checks: []check{{"database", func(context.Context) error {
		<-release // deaf to its context, as a stuck system call is
		return nil
	}}}}
	server := httptest.NewServer(o.handler())
	defer server.Close()
	start := time.Now()
	status, body := get(t, server.URL+"/readyz?verbose")
	if took := time.Since(start); status != 503 || took > 2*time.Second {
		t.Errorf("answered %d after %v, want 503 within 2s", status, took)
	}
	if !strings.Contains(body, "database failed") {
		t.Errorf("body: %q", body)
	}
}

func TestMetricsTellTheBuild(t *testing.T) {
	server := httptest.NewServer((&ops{gatherer: newRegistry()}).handler())
	defer server.Close()
	status, body := get(t, server.URL+"/metrics")
	for _, want := range []string{"joinery_build_info{", "go_goroutines", "process_resident_memory_bytes"} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics (%d) lacks %s", status, want)
		}
	}
}

// What waiting does not mend is said to whoever asks.
func TestReadyTellsWhatToDoAboutKeys(t *testing.T) {
	hint := "do this"
	o := &ops{
		gatherer: newRegistry(),
		checks:   []check{{checkKeyring, func(context.Context) error { return errors.New("detail for the log only") }}},
		keysHint: func() string { return hint },
	}
	server := httptest.NewServer(o.handler())
	defer server.Close()
	if status, body := get(t, server.URL+"/readyz"); status != 503 || body != "do this\nnot ready\n" {
		t.Errorf("%d %q", status, body)
	}
	hint = ""
	if status, body := get(t, server.URL+"/readyz"); status != 503 || body != "not ready\n" {
		t.Errorf("%d %q", status, body)
	}
}
