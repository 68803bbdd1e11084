package webhook

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var loopback = Policy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, PlainHTTP: true}

// Nothing but the public Internet, whatever an address is dressed in.
func TestAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1111": true, "2a00:1450:4001::1": true, "64:ff9b::808:808": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "127.9.9.9": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.1": false, "192.0.2.1": false, "192.168.1.1": false,
		"198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::127.0.0.1": false, "fe80::1": false, "fe80::1%eth0": false,
		"fc00::1": false, "fd00:ec2::254": false, "fec0::1": false, "ff02::1": false, "2001::1": false, "2001:db8::1": false, "2002:7f00:1::": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::1": false, "100::1": false, "3fff::1": false, "5f00::1": false,
		"2606:4700::1%lo": false,
	} {
		if got := (Policy{}).allows(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	own := Policy{Networks: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("fd12::/16")}}
	for address, want := range map[string]bool{
		"10.20.3.4": true, "::ffff:10.20.3.4": true, "10.21.0.1": false, "127.0.0.1": false, "fd12::1": true, "fd13::1": false, "8.8.8.8": true,
	} {
		if got := own.allows(netip.MustParseAddr(address)); got != want {
			t.Errorf("with networks of one's own, %s: %v", address, got)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for text, want := range map[string]string{
		"https://example.com/joins?x=1": "", "https://example.com:8443/": "", "https://8.8.8.8/": "",
		"http://example.com/": "want https", "ftp://example.com/": "want https", "example.com": "absolute", "/x": "absolute", "https://": "absolute",
		"https:example.com": "absolute", "https://user:pass@example.com/": "password", "https://example.com/#x": "fragment", "https://%zz/": "absolute",
		"https://example.com:0/": "port", "https://example.com:65536/": "port", "https://example.com:65535/": "",
		"https://127.0.0.1/": "local", "https://[::1]/": "local", "https://169.254.169.254/latest": "local",
		"https://[::ffff:127.0.0.1]:1/": "local", "https://example.com/" + strings.Repeat("x", MaxURL): "at most",
	} {
		_, err := Policy{}.CheckURL(text)
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("%.40s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "pass") && !strings.Contains(err.Error(), "password") {
			t.Errorf("%v repeats the URL", err)
		}
	}
	if _, err := loopback.CheckURL("http://127.0.0.1:1/"); err != nil {
		t.Error(err)
	}
}

func send(t *testing.T, p Policy, url string) Answer {
	t.Helper()
	s := NewSender(p, "joinery/test", nil)
	defer s.Close()
	return s.Send(t.Context(), Message{URL: url, ID: "evt_1", At: time.Unix(1700000000, 0), Signatures: []string{"v1,a", "v1,b"}, Body: []byte("{}")})
}

func TestHeaders(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	if a := send(t, loopback, server.URL); a.Err != nil || a.Status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	for name, want := range map[string]string{
		"webhook-id": "evt_1", "webhook-timestamp": "1700000000", "webhook-signature": "v1,a v1,b",
		"Content-Type": "application/json", "User-Agent": "joinery/test",
	} {
		if have := got.Header.Get(name); have != want {
			t.Errorf("%s: %q, want %q", name, have, want)
		}
	}
	if string(body) != "{}" || string(Content("evt_1", time.Unix(1700000000, 0), []byte("{}"))) != "evt_1.1700000000.{}" {
		t.Errorf("body %s", body)
	}
}

// A name that leads to an address inside is found out when it is dialled, and so
// is a redirect to one: nobody inside hears anything.
func TestNobodyInsideIsReached(t *testing.T) {
	var heard atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(inside.URL, "http://"))
	for _, url := range []string{"http://localhost:" + port, inside.URL, "http://[::ffff:127.0.0.1]:" + port, "http://0x7f000001:" + port, "http://2130706433:" + port, "http://127.1:" + port} {
		a := send(t, Policy{PlainHTTP: true}, url)
		if a.Err == nil || strings.Contains(a.Err.Error(), port) {
			t.Errorf("%s: %+v", url, a)
		}
	}
	if a := send(t, Policy{PlainHTTP: true}, "http://localhost:"+port); !errors.Is(a.Err, ErrAddress) {
		t.Errorf("localhost: %v", a.Err)
	}
	lead := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	defer lead.Close()
	if a := send(t, loopback, lead.URL); a.Err == nil || a.Status != http.StatusTemporaryRedirect {
		t.Errorf("redirect: %+v", a)
	}
	t.Setenv("HTTP_PROXY", inside.URL)
	if a := send(t, Policy{PlainHTTP: true}, "http://localhost:1/"); a.Err == nil {
		t.Error("a proxy was used")
	}
	if n := heard.Load(); n != 0 {
		t.Errorf("somebody inside heard %d requests", n)
	}
}

// Answers that never end, or are huge, end.
func TestBounds(t *testing.T) {
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<16)
		for range 1 << 14 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	defer huge.Close()
	if a := send(t, loopback, huge.URL); a.Err != nil {
		t.Errorf("a long body: %v", a.Err)
	}
	head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", maxAnswerHead+1))
	}))
	defer head.Close()
	if a := send(t, loopback, head.URL); a.Err == nil {
		t.Error("a long head was read")
	}
	stuck := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer silent.Close()
	defer close(stuck)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	s := NewSender(loopback, "joinery/test", nil)
	if a := s.Send(ctx, Message{URL: silent.URL}); a.Err == nil || a.Status != 0 {
		t.Errorf("%+v", a)
	}
	s.client.Timeout = 20 * time.Millisecond
	if a := s.Send(t.Context(), Message{URL: silent.URL}); a.Err == nil || !strings.Contains(a.Err.Error(), "in time") {
		t.Errorf("%+v", a)
	}
}

// A certificate that nobody vouches for is refused, one of a given CA taken.
func TestCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = nil
	if a := send(t, loopback, server.URL); a.Err == nil || !strings.Contains(a.Err.Error(), "certificate") {
		t.Errorf("%+v", a)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	s := NewSender(loopback, "joinery/test", roots)
	if a := s.Send(t.Context(), Message{URL: server.URL}); a.Status != http.StatusNotFound || a.Err == nil {
		t.Errorf("%+v", a)
	}
}

func TestAnswers(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "9999999": maxRetryAfter, "Wed, 21 Oct 2026 07:28:00 GMT": 0} {
		if got := retryAfter(text); got != want {
			t.Errorf("Retry-After %q: %s", text, got)
		}
	}
	if !(Answer{Status: 410}).Gone() || (Answer{Status: 404}).Gone() {
		t.Error("gone is 410")
	}
}
