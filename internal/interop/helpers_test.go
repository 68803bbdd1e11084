package interop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/backend"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// authority is a small CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serials atomic.Int64

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{sign(t, template, template, &key.PublicKey, key), key}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a certificate under the authority; change adapts the template.
func (a *authority) issue(t testing.TB, name string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, c := range change {
		c(template)
	}
	leaf := sign(t, template, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// registry is a Resolver: each peer has a CA of its own.
type registry struct {
	mu         sync.Mutex
	peers      map[*authority]joinery.Peer
	generation atomic.Uint64
	resolved   atomic.Int64
}

func newRegistry() *registry {
	r := &registry{peers: map[*authority]joinery.Peer{}}
	r.generation.Store(1)
	return r
}

func (r *registry) set(a *authority, p joinery.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers[a] = p
	r.generation.Add(1)
}

func (r *registry) remove(a *authority) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.peers, a)
	r.generation.Add(1)
}

func (r *registry) Generation() uint64 { return r.generation.Load() }

func (r *registry) Resolve(chain []*x509.Certificate, now time.Time) (joinery.Peer, error) {
	r.resolved.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, p := range r.peers {
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err == nil {
			return p, nil
		}
	}
	return joinery.Peer{}, joinery.Errorf(joinery.CodeUnauthenticated, "no peer has that certificate")
}

// joins is a Joiner that answers every request the same, unless a test says how.
type joins struct {
	calls  atomic.Int64
	join   func(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error)
	appS   func(ctx context.Context, r activation.AppSKeyRequest) (activation.Envelope, error)
	homeNS func(ctx context.Context, r activation.HomeNSRequest) (activation.HomeNSAnswer, error)
}

func (j *joins) Join(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
	j.calls.Add(1)
	if j.join != nil {
		return j.join(ctx, r)
	}
	a := activation.JoinAnswer{
		PHYPayload: make([]byte, 17), AppSKey: activation.Envelope{KEKLabel: "as-v1", AESKey: make([]byte, 24)}, SessionKeyID: make([]byte, 16),
	}
	key := activation.Envelope{KEKLabel: "ns-v1", AESKey: make([]byte, 24)}
	if r.DLSettings.OptNeg() {
		a.SNwkSIntKey, a.FNwkSIntKey, a.NwkSEncKey = key, key, key
	} else {
		a.NwkSKey = key
	}
	return a, nil
}

func (j *joins) Rejoin(ctx context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
	return j.Join(ctx, r)
}

func (j *joins) AppSKey(ctx context.Context, r activation.AppSKeyRequest) (activation.Envelope, error) {
	j.calls.Add(1)
	if j.appS != nil {
		return j.appS(ctx, r)
	}
	return activation.Envelope{KEKLabel: "as-v1", AESKey: make([]byte, 24)}, nil
}

func (j *joins) HomeNS(ctx context.Context, r activation.HomeNSRequest) (activation.HomeNSAnswer, error) {
	j.calls.Add(1)
	if j.homeNS != nil {
		return j.homeNS(ctx, r)
	}
	return activation.HomeNSAnswer{HNetID: lorawan.NetID{0, 0, 0x13}, HNSID: lorawan.EUI64{1}}, nil
}

// house is a door on 127.0.0.1 with everything around it.
type house struct {
	*Server
	addr      string
	serverCA  *authority
	registry  *registry
	joins     *joins
	log       *logBuffer
	stop      func() error
	nsCA      *authority // of the peer "ns": NetIDs 000013 and 42FFFF, NSID …01
	ns        tls.Certificate
	asCA      *authority // of the peer "as": AS-ID as.example.com
	as        tls.Certificate
	serverKey atomic.Pointer[tls.Certificate]
}

func nsPeer() joinery.Peer {
	return joinery.Peer{
		ID: 1, Name: "ns", NetIDs: []lorawan.NetID{{0, 0, 0x13}, {0x42, 0xFF, 0xFF}},
		NSIDs: []lorawan.EUI64{lorawan.EUI64FromUint64(0x70B3D57ED0000001)},
	}
}

func asPeer() joinery.Peer {
	return joinery.Peer{ID: 2, Name: "as", ASIDs: []string{"as.example.com"}}
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newHouse makes a door that is not open yet.
func newHouse(t testing.TB, change ...func(*Options)) *house {
	t.Helper()
	h := &house{
		serverCA: newAuthority(t, "server CA"), registry: newRegistry(), joins: &joins{}, log: &logBuffer{},
		nsCA: newAuthority(t, "NS CA"), asCA: newAuthority(t, "AS CA"),
	}
	h.ns, h.as = h.nsCA.issue(t, "ns"), h.asCA.issue(t, "as")
	h.registry.set(h.nsCA, nsPeer())
	h.registry.set(h.asCA, asPeer())
	cert := h.serverCA.issue(t, "joinery")
	h.serverKey.Store(&cert)
	opt := Options{
		Peers: h.registry, Joins: h.joins,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return h.serverKey.Load(), nil },
		Log:         slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&opt)
	}
	var err error
	if h.Server, err = New(opt); err != nil {
		t.Fatal(err)
	}
	return h
}

// openHouse makes a door and opens it.
func openHouse(t testing.TB, change ...func(*Options)) *house {
	t.Helper()
	h := newHouse(t, change...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	h.stop = sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			return err
		}
		return <-served
	})
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return h
}

// tlsConfig is a client's that presents certs.
func (h *house) tlsConfig(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(h.serverCA.cert)
	return &tls.Config{RootCAs: roots, Certificates: certs, ServerName: "localhost"}
}

// client is an HTTP client with kept-alive connections.
func (h *house) client(t testing.TB, config *tls.Config) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// post sends a body and gives status and body of the answer.
func (h *house) post(c *http.Client, body string) (status int, answer string, err error) {
	resp, err := c.Post("https://"+h.addr+"/any/path", "application/json; charset=utf-8", bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// mustPost is post for what must be answered; it reads the answer strictly.
func (h *house) mustPost(t testing.TB, c *http.Client, body string) backend.Answer {
	t.Helper()
	status, text, err := h.post(c, body)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: status %d, %v\n%s", body, status, err, text)
	}
	var a backend.Answer
	if err := a.Parse([]byte(text)); err != nil {
		t.Fatalf("%s\nwas answered with %s: %v", body, text, err)
	}
	return a
}

// Requests that the peers of a house may make.
const (
	joinReq10 = `{"ProtocolVersion":"1.0","TransactionID":7,"MessageType":"JoinReq","SenderID":"000013","ReceiverID":"70b3d57ed0000000",` +
		`"MACVersion":"1.0.3","PHYPayload":"00000000d07ed5b370080706050403020100003851f0b6","DevEUI":"0102030405060708",` +
		`"DevAddr":"01020304","DLSettings":"00","RxDelay":1,"CFList":"184f84e85684b85e84886684586e8400"}`
	joinReq11 = `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"JoinReq","SenderID":"42FFFF","ReceiverID":"70B3D57ED0000000",` +
		`"SenderNSID":"70B3D57ED0000001","SenderToken":"0A0B","MACVersion":"1.1","PHYPayload":"00000000D07ED5B370080706050403020100003851F0B6",` +
		`"DevEUI":"0102030405060708","DevAddr":"01020304","DLSettings":"80","RxDelay":5}`
	rejoinReq10 = `{"ProtocolVersion":"1.0","TransactionID":8,"MessageType":"RejoinReq","SenderID":"000013","ReceiverID":"70b3d57ed0000000",` +
		`"VSExtension":{},"MACVersion":"1.1.0","PHYPayload":"c000130000080706050403020100007b000000","DevEUI":"0102030405060708",` +
		`"DevAddr":"01020304","DLSettings":"80","RxDelay":0}`
	appSKeyReq10 = `{"ProtocolVersion":"1.0","TransactionID":9,"MessageType":"AppSKeyReq","SenderID":"as.example.com","ReceiverID":"70B3D57ED0000000",` +
		`"DevEUI":"0102030405060708","SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`
	homeNSReq11 = `{"ProtocolVersion":"1.1","TransactionID":10,"MessageType":"HomeNSReq","SenderID":"000013","ReceiverID":"70B3D57ED0000000",` +
		`"SenderNSID":"70B3D57ED0000001","DevEUI":"0102030405060708"}`
)

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
