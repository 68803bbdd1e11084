package rekeylink

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"joinery"
	"joinery/internal/rekey"
	"joinery/internal/rekeyfile"
)

// rules note who was let in; what is done there is tried with package rekey.
type rules struct {
	list  []joinery.JoinServer
	from  []joinery.JoinServerID
	looks int // at the database
}

func (r *rules) Known(context.Context) ([]joinery.JoinServer, error) { return r.list, nil }

func (r *rules) Servers(context.Context) ([]joinery.JoinServer, error) {
	r.looks++
	return r.list, nil
}

func (r *rules) TakeOffer(_ context.Context, from joinery.JoinServer, _ []byte) (rekeyfile.Offered, error) {
	r.from = append(r.from, from.ID)
	return rekeyfile.Offered{Format: rekeyfile.FormatOffered, Results: []rekeyfile.Told{}}, nil
}

func (r *rules) Tell(_ context.Context, from joinery.JoinServer, after joinery.ReceiptPlace) ([]byte, error) {
	r.from = append(r.from, from.ID)
	if after.N > 5 || after.N > 0 && after.Epoch != 9 {
		return nil, rekey.ErrAhead
	}
	return []byte("receipts"), nil
}

type rates struct{ left int }

func (r *rates) SpendPeer(http.Header, joinery.PeerID, int) error {
	if r.left--; r.left < 0 {
		return joinery.Errorf(joinery.CodeRateLimited, "too many calls")
	}
	return nil
}

// authority is a CA of a test's.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	made := a.issue(func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	})
	a.cert, a.key = made.Leaf, made.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue makes a certificate, signed by itself as long as there is no CA yet.
func (a *authority) issue(change func(*x509.Certificate)) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: serial.String()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	change(c)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pinOf(c *tls.Certificate) joinery.Credential {
	return joinery.Credential{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)}
}

// Who is called and who calls prove that they are the ones pinned, each time; nobody
// else gets as far as the rules.
func TestIdentities(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	as := func(c *x509.Certificate) {}
	serverCert, mine, stranger := ca.issue(as), ca.issue(as), other.issue(as)
	named := ca.issue(func(c *x509.Certificate) { c.DNSNames = []string{"old.example.com"} })
	old := ca.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	onlyServer := ca.issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })

	r, spend := &rules{}, &rates{left: 1000}
	door := NewDoor(r, spend, slog.New(slog.DiscardHandler), time.Now)
	s := httptest.NewUnstartedServer(door)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{*serverCert}}
	s.StartTLS()
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	there := joinery.JoinServer{ID: 7, Name: "there", URL: "https://localhost:" + u.Port(), Identity: pinOf(serverCert)}
	byCA := joinery.Credential{Kind: joinery.CredentialCA, CA: ca.cert.Raw}
	bySAN := joinery.Credential{Kind: joinery.CredentialCASAN, CA: ca.cert.Raw, SAN: "old.example.com"}
	call := func(show *tls.Certificate, to joinery.JoinServer) error {
		c := NewClient(func() (*tls.Certificate, error) { return show, nil }, time.Now)
		defer c.Close()
		_, err := c.Offer(t.Context(), to, []byte("{}"))
		return err
	}
	for name, x := range map[string]struct {
		pinned []joinery.Credential
		show   *tls.Certificate
		want   joinery.Code
	}{
		"by its pin":               {[]joinery.Credential{pinOf(mine)}, mine, ""},
		"by its CA":                {[]joinery.Credential{byCA}, mine, ""},
		"by CA and name":           {[]joinery.Credential{bySAN}, named, ""},
		"nobody is pinned":         {nil, mine, joinery.CodeForbidden},
		"a stranger":               {[]joinery.Credential{pinOf(mine), byCA}, stranger, joinery.CodeForbidden},
		"the CA, another name":     {[]joinery.Credential{bySAN}, mine, joinery.CodeForbidden},
		"no certificate":           {[]joinery.Credential{byCA}, &tls.Certificate{}, joinery.CodeForbidden},
		"an expired one":           {[]joinery.Credential{pinOf(old), byCA}, old, joinery.CodeForbidden},
		"one for servers alone":    {[]joinery.Credential{byCA}, onlyServer, joinery.CodeForbidden},
		"two whom it belongs to":   {[]joinery.Credential{pinOf(mine), byCA}, mine, joinery.CodeForbidden},
		"pinned without identity":  {[]joinery.Credential{{}}, mine, joinery.CodeForbidden},
		"a CA that signed another": {[]joinery.Credential{{Kind: joinery.CredentialCA, CA: other.cert.Raw}}, mine, joinery.CodeForbidden},
	} {
		r.list, r.from, r.looks = nil, nil, 0
		for i, c := range x.pinned {
			r.list = append(r.list, joinery.JoinServer{ID: joinery.JoinServerID(i + 1), Identity: c})
		}
		err := call(x.show, there)
		if joinery.CodeOf(err) != x.want || (len(r.from) == 1) != (x.want == "") {
			t.Errorf("%s: %v; let in: %v", name, err, r.from)
		}
		if x.want != "" && r.looks > 0 {
			t.Errorf("%s: a stranger had the database looked at", name)
		}
	}

	// Who is called.
	r.list = []joinery.JoinServer{{ID: 1, Identity: pinOf(mine)}}
	for name, x := range map[string]struct {
		identity joinery.Credential
		ok       bool
	}{
		"by its pin":      {pinOf(serverCert), true},
		"by its CA":       {byCA, true},
		"another's pin":   {pinOf(stranger), false},
		"another CA":      {joinery.Credential{Kind: joinery.CredentialCA, CA: other.cert.Raw}, false},
		"another name":    {bySAN, false},
		"by nothing":      {joinery.Credential{}, false},
		"a name it bears": {joinery.Credential{Kind: joinery.CredentialCASAN, CA: ca.cert.Raw, SAN: "localhost"}, true},
	} {
		to := there
		to.Identity, r.from = x.identity, nil
		if err := call(mine, to); (err == nil) != x.ok || (len(r.from) == 1) != x.ok {
			t.Errorf("it proves itself %s: %v; let in: %v", name, err, r.from)
		}
	}
}

// What is no call of the protocol is refused in its words, and without the rules.
func TestDoorRefuses(t *testing.T) {
	mine := newAuthority(t).issue(func(*x509.Certificate) {})
	r := &rules{list: []joinery.JoinServer{{ID: 1, Identity: pinOf(mine)}}}
	spend := &rates{left: 1000}
	door := NewDoor(r, spend, slog.New(slog.DiscardHandler), time.Now)
	ask := func(method, path, media string, body []byte, chain ...*x509.Certificate) *httptest.ResponseRecorder {
		q := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
		q.Header.Set("Content-Type", media)
		q.TLS = &tls.ConnectionState{PeerCertificates: chain}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, q)
		return w
	}
	for name, x := range map[string]struct {
		w    *httptest.ResponseRecorder
		code int
		word string
	}{
		"another version":     {ask("POST", "/handover/v2/offers", typeFile, nil, mine.Leaf), http.StatusNotFound, codeNoSuch},
		"another method":      {ask("PUT", pathOffers, typeFile, nil, mine.Leaf), http.StatusNotFound, codeNoSuch},
		"no certificate":      {ask("POST", pathOffers, typeFile, nil), http.StatusForbidden, codeIdentity},
		"another media type":  {ask("POST", pathOffers, "text/plain", nil, mine.Leaf), http.StatusBadRequest, codeInvalid},
		"too long":            {ask("POST", pathOffers, typeFile, make([]byte, MaxBody+1), mine.Leaf), http.StatusRequestEntityTooLarge, codeTooLarge},
		"no place":            {ask("GET", pathReceipts, "", nil, mine.Leaf), http.StatusBadRequest, codeInvalid},
		"a place below zero":  {ask("GET", pathReceipts+"?after=-1", "", nil, mine.Leaf), http.StatusBadRequest, codeInvalid},
		"a word for an epoch": {ask("GET", pathReceipts+"?after=1&epoch=x", "", nil, mine.Leaf), http.StatusBadRequest, codeInvalid},
		"another epoch":       {ask("GET", pathReceipts+"?after=1&epoch=8", "", nil, mine.Leaf), http.StatusConflict, codeAhead},
		"ahead":               {ask("GET", pathReceipts+"?after=6", "", nil, mine.Leaf), http.StatusConflict, codeAhead},
	} {
		if x.w.Code != x.code || !bytes.Contains(x.w.Body.Bytes(), []byte(`"`+x.word+`"`)) {
			t.Errorf("%s: %d %s", name, x.w.Code, x.w.Body)
		}
		if err := refusal(x.w.Code, x.w.Body.Bytes()); (x.word == codeAhead) != errors.Is(err, rekey.ErrAhead) {
			t.Errorf("%s is read as %v", name, err)
		}
	}
	spend.left = 0
	if w := ask("GET", pathReceipts+"?after=0", "", nil, mine.Leaf); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("too often: %d", w.Code)
	}
}

// A pin that is changed holds for the next call, on whatever connection.
func TestChangedPin(t *testing.T) {
	a := newAuthority(t)
	first, second, mine := a.issue(func(*x509.Certificate) {}), a.issue(func(*x509.Certificate) {}), a.issue(func(*x509.Certificate) {})
	shown := first
	r := &rules{list: []joinery.JoinServer{{ID: 1, Identity: pinOf(mine)}}}
	s := httptest.NewUnstartedServer(NewDoor(r, &rates{left: 1000}, slog.New(slog.DiscardHandler), time.Now))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{*shown}}, nil
	}}
	s.StartTLS()
	defer s.Close()
	c := NewClient(func() (*tls.Certificate, error) { return mine, nil }, time.Now)
	defer c.Close()
	there := joinery.JoinServer{ID: 7, URL: s.URL, Identity: pinOf(first)}
	call := func(want bool) {
		t.Helper()
		if _, err := c.Offer(t.Context(), there, []byte("{}")); (err == nil) != want {
			t.Errorf("called: %v", err)
		}
	}
	call(true)
	there.Identity = pinOf(second) // while the connection of the first is open
	call(false)
	shown = second // its certificate is the one that was announced by now
	call(true)
	there.Identity = pinOf(first)
	call(false)
}
