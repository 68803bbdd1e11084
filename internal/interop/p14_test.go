package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/backend"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// mustRefuse wants that a request gets no answer at all, and that the rules are
// not asked.
func (h *house) mustRefuse(t *testing.T, c *http.Client, body string) {
	t.Helper()
	before := h.joins.calls.Load()
	status, text, err := h.post(c, body)
	if n := h.joins.calls.Load() - before; n != 0 {
		t.Errorf("the rules were asked %d times", n)
	}
	if err == nil {
		t.Errorf("answered: %d %s", status, text)
	}
}

// P14: mutual TLS cannot be bypassed.
func TestP14MutualTLSCannotBeBypassed(t *testing.T) {
	h := openHouse(t)
	stranger := newAuthority(t, "stranger")
	selfKey := newKey(t)
	selfTemplate := &x509.Certificate{SerialNumber: h.ns.Leaf.SerialNumber, Subject: h.ns.Leaf.Subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	self := sign(t, selfTemplate, selfTemplate, &selfKey.PublicKey, selfKey)
	lookalike := &authority{key: newKey(t)}
	sameNames := *h.nsCA.cert
	sameNames.PublicKey = nil
	lookalike.cert = sign(t, &sameNames, &sameNames, &lookalike.key.PublicKey, lookalike.key)

	for _, tt := range []struct {
		name  string
		certs []tls.Certificate
	}{
		{"no certificate", nil},
		{"self-signed", []tls.Certificate{{Certificate: [][]byte{self.Raw}, PrivateKey: selfKey}}},
		{"expired", []tls.Certificate{h.nsCA.issue(t, "ns", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}},
		{"not valid yet", []tls.Certificate{h.nsCA.issue(t, "ns", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })}},
		{"other CA", []tls.Certificate{stranger.issue(t, "ns")}},
		{"other CA of the same name", []tls.Certificate{lookalike.issue(t, "ns")}},
		{"other CA, with the right one in the chain", []tls.Certificate{withChain(stranger.issue(t, "ns"), h.nsCA.cert)}},
		{"certificate of the server's CA", []tls.Certificate{h.serverCA.issue(t, "ns")}},
		{"not for client authentication", []tls.Certificate{h.nsCA.issue(t, "ns", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})}},
		{"a peer's certificate without its key", []tls.Certificate{{Certificate: h.ns.Certificate, PrivateKey: selfKey}}},
	} {
		for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				config := h.tlsConfig(tt.certs...)
				config.MaxVersion = version
				h.mustRefuse(t, h.client(t, config), joinReq10)
			})
		}
	}

	t.Run("right certificate, TLS 1.1", func(t *testing.T) {
		config := h.tlsConfig(h.ns)
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		h.mustRefuse(t, h.client(t, config), joinReq10)
	})
	t.Run("right CA and wrong NetID", func(t *testing.T) {
		body := strings.Replace(joinReq10, "000013", "000042", 1)
		before := h.joins.calls.Load()
		if a := h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), body); a.Result.Code != backend.UnknownSender || h.joins.calls.Load() != before {
			t.Errorf("result %+v", a.Result)
		}
	})
	t.Run("forged proxy headers", func(t *testing.T) { testForgedHeaders(t, h) })
	t.Run("plain HTTP on the TLS port", func(t *testing.T) { testPlainHTTP(t, h) })
	t.Run("control: the right certificate", func(t *testing.T) {
		if a := h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), joinReq10); a.Result.Code != backend.Success {
			t.Errorf("result %+v", a.Result)
		}
	})
}

func withChain(c tls.Certificate, more *x509.Certificate) tls.Certificate {
	c.Certificate = append(c.Certificate, more.Raw)
	return c
}

// testForgedHeaders: what proxies write about clients opens nothing, neither to
// who has no certificate nor to who has another peer's.
func testForgedHeaders(t *testing.T, h *house) {
	pem := "-----BEGIN CERTIFICATE-----"
	forge := func(c *http.Client) (*http.Response, error) {
		req, err := http.NewRequest(http.MethodPost, "https://"+h.addr, strings.NewReader(joinReq10))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"X-Forwarded-Client-Cert": "Hash=00;Subject=\"CN=ns\"", "X-Forwarded-Tls-Client-Cert": pem, "X-SSL-Client-Cert": pem,
			"X-SSL-Client-Verify": "SUCCESS", "X-Client-Verify": "SUCCESS", "X-SSL-Client-S-DN": "CN=ns", "X-Client-CN": "ns",
			"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Forwarded-Proto": "https",
			"Client-Cert": ":AAAA:", "Authorization": "Bearer 000013", "X-ARR-ClientCert": "AAAA", "SSL-Client-Cert": pem,
		} {
			req.Header.Set(name, value)
		}
		return c.Do(req)
	}
	before := h.joins.calls.Load()
	resp, err := forge(h.client(t, h.tlsConfig()))
	if err == nil {
		_ = resp.Body.Close()
		t.Errorf("without a certificate: %s", resp.Status)
	}
	resp, err = forge(h.client(t, h.tlsConfig(h.as)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	var a backend.Answer
	if err := a.Parse(body); err != nil || a.Result.Code != backend.UnknownSender {
		t.Errorf("with another peer's certificate: %s", body)
	}
	if h.joins.calls.Load() != before {
		t.Error("the rules were asked")
	}
}

func testPlainHTTP(t *testing.T, h *house) {
	before := h.joins.calls.Load()
	resp, err := http.Post("http://"+h.addr, "application/json", strings.NewReader(joinReq10))
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("status %s", resp.Status)
		}
	}
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(conn); bytes.Contains(answer, []byte("200")) {
		t.Errorf("answer %q", answer)
	}
	if h.joins.calls.Load() != before {
		t.Error("the rules were asked")
	}
}

// TestP14ResumptionAfterRemoval: a session ticket is no credential. While the
// peer is there its sessions resume; once its CA is removed they do not.
func TestP14ResumptionAfterRemoval(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			h := openHouse(t)
			config := h.tlsConfig(h.ns)
			config.MaxVersion = version
			config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			var resumed atomic.Bool
			config.VerifyConnection = func(s tls.ConnectionState) error { resumed.Store(s.DidResume); return nil }
			once := func() error { // one request on a connection of its own
				c := h.client(t, config)
				defer c.CloseIdleConnections()
				_, _, err := h.post(c, joinReq10)
				return err
			}
			if err := once(); err != nil || resumed.Load() {
				t.Fatalf("first handshake: %v, resumed %t", err, resumed.Load())
			}
			if err := once(); err != nil || !resumed.Load() {
				t.Fatalf("second handshake: %v, resumed %t: the test would show nothing", err, resumed.Load())
			}
			h.registry.remove(h.nsCA)
			before := h.joins.calls.Load()
			for range 3 {
				if err := once(); err == nil || h.joins.calls.Load() != before {
					t.Errorf("after removal: answered, resumed %t", resumed.Load())
				}
			}
			h.registry.set(h.nsCA, nsPeer())
			if err := once(); err != nil {
				t.Errorf("peer added again: %v", err)
			}
		})
	}
}

// TestP14LivingConnections: what happens to a peer happens to its connections,
// with the next request.
func TestP14LivingConnections(t *testing.T) {
	var clock atomic.Int64 // seconds by which the server's clock is ahead
	h := openHouse(t, func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load()) * time.Second) }
	})
	post := func(c *http.Client) (int, string) {
		status, text, err := h.post(c, joinReq10)
		if err != nil {
			t.Fatal(err)
		}
		return status, text
	}
	for _, tt := range []struct {
		name    string
		change  func()
		status  int
		want    string
		closing bool
	}{
		{"another NetID", func() {
			p := nsPeer()
			p.NetIDs = []lorawan.NetID{{0, 0, 0x42}}
			h.registry.set(h.nsCA, p)
		}, http.StatusOK, "UnknownSender", false},
		{"removed", func() { h.registry.remove(h.nsCA) }, http.StatusForbidden, "UnknownSender", true},
		{"its certificate ended", func() { clock.Store(3601) }, http.StatusForbidden, "UnknownSender", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock.Store(0)
			h.registry.set(h.nsCA, nsPeer())
			// One connection: dialled once, whatever happens.
			var dials atomic.Int64
			c := h.client(t, h.tlsConfig(h.ns))
			c.Transport = &http.Transport{TLSClientConfig: h.tlsConfig(h.ns), DialContext: countDials(&dials)}
			defer c.CloseIdleConnections()
			for range 2 {
				if status, text := post(c); status != http.StatusOK || !strings.Contains(text, "Success") {
					t.Fatalf("before: %d %s", status, text)
				}
			}
			tt.change()
			before := h.joins.calls.Load()
			status, text := post(c)
			if status != tt.status || !strings.Contains(text, tt.want) || h.joins.calls.Load() != before {
				t.Errorf("after: %d %s", status, text)
			}
			if dials.Load() != 1 {
				t.Fatalf("%d connections: the test shows nothing", dials.Load())
			}
			if tt.closing { // the next request needs a connection, which it does not get
				if _, _, err := h.post(c, joinReq10); err == nil || dials.Load() != 2 {
					t.Errorf("the connection was kept: %d dialled, %v", dials.Load(), err)
				}
			}
		})
	}
}

func countDials(n *atomic.Int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

// TestResolverIsAskedOncePerGeneration: an answer is used again while nothing
// changed, and never for longer than a minute, a jump of the clock included.
func TestResolverIsAskedOncePerGeneration(t *testing.T) {
	var clock atomic.Int64
	h := openHouse(t, func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load()) * time.Second) }
	})
	c := h.client(t, h.tlsConfig(h.ns))
	asked := func(n int) int64 {
		before := h.registry.resolved.Load()
		for range n {
			h.mustPost(t, c, joinReq10)
		}
		return h.registry.resolved.Load() - before
	}
	if n := asked(50); n != 2 { // handshake and first request
		t.Errorf("50 requests asked %d times", n)
	}
	h.registry.set(h.nsCA, nsPeer())
	if n := asked(10); n != 1 {
		t.Errorf("after a change: asked %d times", n)
	}
	clock.Store(61)
	if n := asked(10); n != 1 {
		t.Errorf("after a minute: asked %d times", n)
	}
	clock.Store(0)
	if n := asked(10); n != 1 {
		t.Errorf("after the clock went back: asked %d times", n)
	}
	h.registry.generation.Store(0)
	if n := asked(10); n != 10 {
		t.Errorf("without a generation: asked %d times for 10 requests", n)
	}
}

func TestIgnoreNSID(t *testing.T) {
	h := openHouse(t)
	c := h.client(t, h.tlsConfig(h.ns))
	body := strings.Replace(joinReq11, "70B3D57ED0000001", "70B3D57ED0000009", 1)
	if a := h.mustPost(t, c, body); a.Result.Code != backend.UnknownSender {
		t.Errorf("foreign NSID: %+v", a.Result)
	}
	p := nsPeer()
	p.IgnoreNSID = true
	h.registry.set(h.nsCA, p)
	var asked activation.Requester
	h.joins.join = func(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
		asked = r.Requester
		return (&joins{}).Join(ctx, r)
	}
	if a := h.mustPost(t, c, body); a.Result.Code != backend.Success || a.ReceiverNSID != "70B3D57ED0000009" {
		t.Errorf("ignored: %+v", a)
	}
	if !asked.NSID.IsZero() || asked.NetID != (lorawan.NetID{0x42, 0xFF, 0xFF}) {
		t.Errorf("the rules are told of NetID %s and NSID %s, which is another network's", asked.NetID, asked.NSID)
	}
	if h.mustPost(t, c, joinReq11); asked.NSID != p.NSIDs[0] {
		t.Errorf("its own NSID became %s", asked.NSID)
	}
	h.registry.set(h.nsCA, joinery.Peer{Name: "nobody"})
	if a := h.mustPost(t, c, joinReq10); a.Result.Code != backend.UnknownSender {
		t.Errorf("a peer without a name: %+v", a.Result)
	}
}
