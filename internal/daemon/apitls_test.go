package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/config"
)

// withTLS adds the API's TLS listener, with a certificate of its own.
func withTLS(t *testing.T, c config.Config) config.Config {
	t.Helper()
	dir := filepath.Dir(c.Interop.Certificate)
	c.API.TLS = config.APITLS{Address: "127.0.0.1:0", Certificate: filepath.Join(dir, "api.crt"), Key: filepath.Join(dir, "api.key")}
	writeCertificate(t, config.Interop{Certificate: c.API.TLS.Certificate, Key: c.API.TLS.Key}, "api first", time.Now().Add(time.Hour))
	must(t, c.Check())
	must(t, c.CheckFiles(time.Now()))
	return c
}

// clientCertificate makes a certificate that nobody vouches for.
func clientCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// claimStatus asks for the claim of a device that is not there: 404 to an
// Application Server that is known, 401 to everybody else. It gives the name of the
// server's certificate, too.
func claimStatus(t *testing.T, by *http.Client, p *Program) (status int, server string) {
	t.Helper()
	resp, err := by.Get("https://" + p.APITLSAddr().String() + client.BasePathV2 + "/devices/0000000000000001/claim")
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	must(t, err)
	return resp.StatusCode, resp.TLS.PeerCertificates[0].DNSNames[0]
}

func tlsClient(t *testing.T, certs ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}} // its name is looked at
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// The API speaks TLS, knows Application Servers by their certificates there, and
// goes on to on connections from before a hand-over.
func TestAPIOverTLS(t *testing.T) {
	c := withTLS(t, installation(t))
	first := start(t, c, nil)
	waitFor(t, func() bool { return first.health.Load() != nil })
	operator, err := client.New(client.Options{Socket: c.API.Socket})
	must(t, err)
	cert := clientCertificate(t)
	pin := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
	_, err = operator.AddPeer(t.Context(), client.NewPeer{PeerSettings: client.PeerSettings{
		Name: "app", ASIDs: []string{"as.example.com"}, ClaimKEKs: true,
		Credentials: []client.Credential{{Kind: "spki", SPKI: hex.EncodeToString(pin[:])}},
	}})
	must(t, err)
	operator.Close() // or the server waits for it, later

	known, stranger := tlsClient(t, cert), tlsClient(t, clientCertificate(t))
	if status, server := claimStatus(t, known, first.Program); status != http.StatusNotFound || server != "api first" {
		t.Errorf("%d from %s", status, server)
	}
	if status, _ := claimStatus(t, stranger, first.Program); status != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", status)
	}
	// Both pairs are read anew.
	writeCertificate(t, config.Interop{Certificate: c.API.TLS.Certificate, Key: c.API.TLS.Key}, "api second", time.Now().Add(time.Hour))
	hangUp(t)
	waitFor(t, func() bool {
		by := tlsClient(t)
		defer by.CloseIdleConnections()
		_, server := claimStatus(t, by, first.Program)
		return server == "api second"
	})

	second, err := Open(t.Context(), c, Options{Successor: true})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	waitFor(t, func() bool { return second.health.Load() != nil && first.retired() })
	if first.APITLSAddr().String() != second.APITLSAddr().String() {
		t.Errorf("%v became %v", first.APITLSAddr(), second.APITLSAddr())
	}
	// On the connections to the old server, by way of the new one.
	if status, server := claimStatus(t, known, first.Program); status != http.StatusNotFound || server != "api first" {
		t.Errorf("after the hand-over: %d from %s", status, server)
	}
	if status, _ := claimStatus(t, stranger, first.Program); status != http.StatusUnauthorized {
		t.Errorf("a stranger after the hand-over: %d", status)
	}
	if status, server := claimStatus(t, tlsClient(t, cert), second); status != http.StatusNotFound || server != "api second" {
		t.Errorf("a new connection: %d from %s", status, server)
	}
	must(t, first.stopped(10*time.Second)) // each connection ended with that answer
	stop()
	must(t, errors.Join(<-ended, second.Close()))
}
