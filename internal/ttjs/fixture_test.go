package ttjs_test

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
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/internal/api"
	"joinery/internal/auth"
	"joinery/internal/claim"
	"joinery/internal/fleet"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/provisioning"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/internal/ttjs"
	"joinery/lorawan"
)

const master = "test-master"

var keys *keyring.Keyring

func TestMain(m *testing.M) { os.Exit(keyringtest.Main(m, master, &keys)) }

var (
	operator = joinery.Caller{Operator: true, Name: "socket uid 0", Rights: joinery.AllRights(), Socket: true}
	netID    = lorawan.NetID{0, 0, 0x13}
	joinEUI  = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}
)

// fixture is the door over real rules, store and keyring, behind the management
// API's own TLS listener.
type fixture struct {
	perMinute int

	db       *store.DB
	fleet    *fleet.Service
	claim    *claim.Service
	auth     *auth.Service
	log      *syncBuffer
	ca       authority
	server   atomic.Pointer[tls.Certificate]
	url      string // of the TLS listener
	plain    string // of the loopback listener
	socket   string
	org      joinery.OrgID
	key      string // API key of org
	here     party
	there    party
	imported int
	attempts attempts
}

// attempts remembers what was refused: act, reason, who and which device.
type attempts struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (a *attempts) Attempt(x *joinery.Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[string]bool{}
	}
	who, _, _ := strings.Cut(x.By, " ")
	a.seen[fmt.Sprintf("%s: %s by %s of %s", x.Act, x.Reason, who, x.DevEUI)] = true
}

func (a *attempts) want(t testing.TB, line string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.seen[line] {
		t.Errorf("nothing tells of %q: %v", line, a.seen)
	}
}

// party is an Application Server with its certificate.
type party struct {
	joinery.Peer
	cert tls.Certificate
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *syncBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func start(t testing.TB) *fixture {
	t.Helper()
	return startLimited(t, 0)
}

// startLimited is start with so many requests a minute for each; 0 is as always.
func startLimited(t testing.TB, perMinute int) *fixture {
	t.Helper()
	ctx := t.Context()
	f := &fixture{perMinute: perMinute, db: sqlitetest.New(t), log: new(syncBuffer), ca: newAuthority(t)}
	log := slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.fleet = fleet.New(f.db, keys, fleet.Options{Log: log})
	if err := f.fleet.Directory().Reload(ctx); err != nil {
		t.Fatal(err)
	}
	f.claim = claim.New(f.db, f.db, keys, claim.Options{AnswerAfter: -1})
	f.auth = auth.New(f.db, nil)
	imports := provisioning.New(f.db, f.db, keys)
	door := must[*api.Server](t)(api.New(api.Options{Log: log, PerMinute: f.perMinute}))
	v2 := must[*ttjs.Server](t)(ttjs.New(ttjs.Options{
		Rates: door, Attempts: &f.attempts,
		Peers: f.fleet.Directory(), Claims: claim.NewNetworks(f.db, keys, f.fleet, claim.NetworkOptions{AnswerAfter: -1}),
		Devices: f.fleet, Tokens: f.claim, Imports: imports, Local: api.LocalCaller, TransportKey: keys.TransportKey, Version: "1.2.3", Log: log,
		Authenticate: func(ctx context.Context, bearer string) (joinery.Caller, error) {
			return f.auth.Authenticate(ctx, bearer, 0)
		},
	}))
	t.Cleanup(func() {
		if err := v2.Close(); err != nil {
			t.Error(err)
		}
	})
	door.Attach(api.Services{V2: v2, Keys: f.auth})
	f.serve(t, door)

	f.org = must[joinery.Organisation](t)(f.fleet.AddOrg(ctx, operator, "Acme", nil)).ID
	f.key = f.newKey(t, f.org)
	span := joinery.EUIRange{First: joinEUI, Last: lorawan.EUI64FromUint64(joinEUI.Uint64() + 0xFF)}
	must[joinery.JoinEUIRange](t)(f.fleet.AssignRange(ctx, operator, joinery.JoinEUIRange{EUIRange: span, Org: f.org}))
	f.here, f.there = f.newParty(t, "here"), f.newParty(t, "there")
	return f
}

// newKey makes an API key of org; without rights it may do all that org may.
func (f *fixture) newKey(t testing.TB, org joinery.OrgID, rights ...joinery.Right) string {
	t.Helper()
	text, _, err := f.auth.Make(t.Context(), operator, auth.NewKey{Name: "script", Org: org, Rights: rights})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (f *fixture) serve(t testing.TB, s *api.Server) {
	t.Helper()
	server := f.ca.leaf(t, func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	f.server.Store(&server)
	secure := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	plain := must[net.Listener](t)(api.ListenLoopback("127.0.0.1:0"))
	f.socket = filepath.Join(t.TempDir(), "s")
	socket := must[net.Listener](t)(api.ListenSocket(f.socket))
	f.url, f.plain = "https://"+secure.Addr().String(), "http://"+plain.Addr().String()
	done := make(chan error, 3)
	go func() {
		done <- s.ServeTLS(secure, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.server.Load(), nil })
	}()
	go func() { done <- s.Serve(plain) }()
	go func() { done <- s.Serve(socket) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
}

// newParty adds an Application Server whose certificate is pinned.
func (f *fixture) newParty(t testing.TB, name string, edit ...func(*joinery.Peer)) party {
	t.Helper()
	cert := f.ca.leaf(t)
	// It consents to clear keys only to be added without a KEK.
	p := joinery.Peer{Org: f.org, Name: name, ASIDs: []string{name + ".example.com"}, ClearKeys: true,
		Credentials: []joinery.Credential{{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)}}}
	for _, e := range edit {
		e(&p)
	}
	confirm := fleet.PeerConfirm{}
	if p.ClearKeys {
		confirm.ClearKeysFor = name
	}
	return party{must[joinery.Peer](t)(f.fleet.AddPeer(t.Context(), operator, p, nil, confirm)), cert}
}

// config is the TLS of a client that trusts the fixture's server.
func (f *fixture) config(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(f.ca.cert)
	return &tls.Config{RootCAs: roots, Certificates: certs}
}

// as gives a claiming client.
func (f *fixture) as(t testing.TB, p party) *claimClient {
	t.Helper()
	c := newClaimClient(f.url, f.config(p.cert))
	c.netID, c.asID = netID, p.ASIDs[0]
	t.Cleanup(c.http.CloseIdleConnections)
	c.http.Transport = judged{t, c.http.Transport}
	return c
}

// device imports a device of org, and gives it with its owner token.
func (f *fixture) device(t testing.TB) (joinery.Device, string) {
	t.Helper()
	f.imported++
	return f.deviceAt(t, joinEUI, lorawan.EUI64FromUint64(0x0004A31000000000+uint64(f.imported)))
}

func (f *fixture) deviceAt(t testing.TB, joinEUI, devEUI lorawan.EUI64) (joinery.Device, string) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	i := joinery.Import{Org: f.org, Kind: joinery.ImportManifest, MACVersion: lorawan.MAC1_0_4, CreatedAt: now}
	rand.Read(i.SHA256[:])
	i = must[joinery.Import](t)(f.db.BeginImport(ctx, i))
	d := joinery.Device{ID: joinery.NewDeviceID(), JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_4, Maker: f.org,
		Ownership: joinery.Ownership{Org: f.org}, CreatedAt: now}
	n := joinery.NewDevice{Device: d, KeySet: joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: devEUI,
		Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Nwk: joinery.SealedRoot{Use: joinery.Sealed("x")}}}
	rows, err := f.db.CommitRows(ctx, joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{n}}, joinery.AuditEntry{At: now})
	if err != nil || rows[0].Status != joinery.RowCreated {
		t.Fatalf("%+v, %v", rows, err)
	}
	return d, must[string](t)(keys.OwnerToken(ctx, d.ID, 0))
}

func (f *fixture) state(t testing.TB, d joinery.Device) joinery.ActivationState {
	t.Helper()
	return must[joinery.ActivationState](t)(f.db.Device(t.Context(), d.ID))
}

// answer is an answer as it came.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends a request over TLS as it is; certs are the client's.
func (f *fixture) send(t testing.TB, certs []tls.Certificate, method, path, body string, header ...string) answer {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: f.config(certs...)}
	defer transport.CloseIdleConnections()
	return f.sendBy(t, transport, f.url, method, path, body, header...)
}

func (f *fixture) sendBy(t testing.TB, by http.RoundTripper, url, method, path, body string, header ...string) answer {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, url+path, in))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := judged{t, by}.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text := must[[]byte](t)(io.ReadAll(res.Body))
	return answer{res.StatusCode, res.Header, string(text)}
}

// message checks the form of a refusal and gives its text.
func (a answer) message(t testing.TB) string {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%d %s: Content-Type %q", a.status, a.body, got)
	}
	return refusal([]byte(a.body))
}

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return authority{must[*x509.Certificate](t)(x509.ParseCertificate(der)), key}
}

// leaf makes a certificate with its key, a client's unless edit says otherwise.
func (a authority) leaf(t testing.TB, edit ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: must[*big.Int](t)(rand.Int(rand.Reader, big.NewInt(1<<62))), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, e := range edit {
		e(template)
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: must[*x509.Certificate](t)(x509.ParseCertificate(der))}
}
