package ttjs_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/fleet"
	"joinery/lorawan"
)

type certificate = tls.Certificate

func certs(p party) []certificate { return []certificate{p.cert} }

// Who makes claims is told by the client certificate, and by nothing else.
func TestClaimsNeedTheirCertificate(t *testing.T) {
	f := start(t)
	d, token := f.device(t)
	path := "/api/v2/devices/" + d.DevEUI.String() + "/claim"
	body := `{"ownerToken":"` + token + `","homeNetID":"000013","asID":"here.example.com"}`

	other := newAuthority(t)
	underCA := newAuthority(t)
	f.newParty(t, "by ca", func(p *joinery.Peer) {
		p.ASIDs = []string{"ca.example.com"}
		p.Credentials = []joinery.Credential{{Kind: joinery.CredentialCA, CA: underCA.cert.Raw}}
	})
	network := f.ca.leaf(t)
	if _, err := f.fleet.AddPeer(t.Context(), operator, joinery.Peer{Org: f.org, Name: "network", ClearKeys: true, NetIDs: []lorawan.NetID{netID},
		Credentials: []joinery.Credential{{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256(network.Leaf.RawSubjectPublicKeyInfo)}}}, nil,
		fleet.PeerConfirm{ClearKeysFor: "network"}); err != nil {
		t.Fatal(err)
	}
	suspended := f.newParty(t, "suspended")
	suspended.Suspended = true
	if _, err := f.fleet.ChangePeer(t.Context(), operator, suspended.Peer, fleet.PeerConfirm{}); err != nil {
		t.Fatal(err)
	}
	expired := underCA.leaf(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	forServers := underCA.leaf(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	forged := url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.here.cert.Certificate[0]})))
	for name, tc := range map[string]struct {
		certs  []certificate
		header []string
	}{
		"none":                  {nil, nil},
		"of another CA":         {[]certificate{other.leaf(t)}, nil},
		"expired":               {[]certificate{expired}, nil},
		"for servers":           {[]certificate{forServers}, nil},
		"a network's":           {[]certificate{network}, nil},
		"a suspended peer's":    {certs(suspended), nil},
		"an API key":            {nil, []string{"Authorization", "Bearer " + f.key}},
		"a forged proxy header": {nil, []string{"X-Forwarded-Tls-Client-Cert", forged, "X-Ssl-Cert", forged, "Forwarded", "for=127.0.0.1"}},
		"of a relay":            {nil, []string{"Joinery-Relay-Chain", forged, "Joinery-Relay-Door", "api"}},
	} {
		for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodDelete} {
			if a := f.send(t, tc.certs, method, path, body, tc.header...); a.status != http.StatusUnauthorized || a.message(t) == "" {
				t.Errorf("%s, %s: %d %s", name, method, a.status, a.body)
			}
		}
		if a := f.send(t, tc.certs, http.MethodDelete, path+"s", "", tc.header...); a.status != http.StatusUnauthorized {
			t.Errorf("%s, batch: %d %s", name, a.status, a.body)
		}
	}
	if a := f.sendBy(t, http.DefaultTransport, f.plain, http.MethodPut, path, body); a.status != http.StatusUnauthorized {
		t.Errorf("on the listener without TLS: %d %s", a.status, a.body)
	}
	if f.state(t, d).Binding != nil {
		t.Fatal("it was claimed all the same")
	}
	ca := strings.Replace(body, "here.", "ca.", 1)
	if a := f.send(t, []certificate{underCA.leaf(t)}, http.MethodPut, path, ca); a.status != http.StatusCreated {
		t.Errorf("under its CA: %d %s", a.status, a.body)
	}
}

// What was changed about a peer holds for connections that it has, resumed ones
// included.
func TestCertificatesAreJudgedAgain(t *testing.T) {
	f := start(t)
	d, _ := f.device(t)
	path := "/api/v2/devices/" + d.DevEUI.String() + "/claim"
	config := f.config(f.here.cert)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	kept := &http.Transport{TLSClientConfig: config}
	t.Cleanup(kept.CloseIdleConnections)
	status := func(by http.RoundTripper) int { return f.sendBy(t, by, f.url, http.MethodGet, path, "").status }
	if got := status(kept); got != http.StatusNotFound {
		t.Fatalf("before: %d", got)
	}
	if err := f.fleet.RemovePeer(t.Context(), operator, f.here.ID); err != nil {
		t.Fatal(err)
	}
	if got := status(kept); got != http.StatusUnauthorized {
		t.Errorf("on its connection: %d", got)
	}
	resumed := &http.Transport{TLSClientConfig: config}
	t.Cleanup(resumed.CloseIdleConnections)
	if got := status(resumed); got != http.StatusUnauthorized {
		t.Errorf("resumed: %d", got)
	}
}

// The rest of the API over TLS needs no certificate, and one means nothing there.
func TestOtherPathsOverTLS(t *testing.T) {
	f := start(t)
	for _, tc := range []struct {
		name, path string
		certs      []certificate
		header     []string
		status     int
	}{
		{"key", "/api/v2/devices", nil, []string{"Authorization", "Bearer " + f.key}, 200},
		{"key and certificate", "/api/v2/devices", certs(f.here), []string{"Authorization", "Bearer " + f.key}, 200},
		{"certificate alone", "/api/v2/devices", certs(f.here), nil, 401},
		{"certificate alone, v1", "/api/v1/devices", certs(f.here), nil, 401},
		{"nothing", "/api/v2/devices", nil, nil, 401},
		{"document", "/api/v2/openapi.json", nil, nil, 200},
		{"document of v1", "/api/v1/openapi.json", nil, nil, 200},
		{"any other path", "/", certs(f.here), nil, 404},
		{"Backend Interfaces", "/api/v2/", certs(f.here), nil, 404},
	} {
		a := f.send(t, tc.certs, http.MethodGet, tc.path, "", tc.header...)
		if a.status != tc.status {
			t.Errorf("%s: %d %s", tc.name, a.status, a.body)
		}
	}
	if a := f.send(t, certs(f.here), http.MethodPost, "/", `{"ProtocolVersion":"1.0"}`); a.status != http.StatusNotFound {
		t.Errorf("Backend Interfaces are answered here: %d %s", a.status, a.body)
	}
	// Plain HTTP on the TLS port.
	a := f.sendBy(t, http.DefaultTransport, strings.Replace(f.url, "https", "http", 1), http.MethodGet, "/api/v2/openapi.json", "")
	if a.status != http.StatusBadRequest {
		t.Errorf("plain HTTP: %d %s", a.status, a.body)
	}
	// TLS 1.1 is not spoken.
	old := f.config()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := tls.Dial("tcp", strings.TrimPrefix(f.url, "https://"), old); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// The server's certificate can be replaced while it runs.
func TestServersCertificateIsReplaced(t *testing.T) {
	f := start(t)
	serial := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(f.url, "https://"), f.config())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	next := f.ca.leaf(t, func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	f.server.Store(&next)
	if serial() == before {
		t.Error("it is the old one still")
	}
}
