package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/api"
	"joinery/internal/attest"
	"joinery/internal/auth"
	"joinery/internal/claim"
	"joinery/internal/custodylog"
	"joinery/internal/events"
	"joinery/internal/export"
	"joinery/internal/fleet"
	"joinery/internal/keyring"
	"joinery/internal/keyring/soft"
	"joinery/internal/provisioning"
	"joinery/internal/refusal"
	"joinery/internal/rekey"
	"joinery/internal/rotation"
	"joinery/internal/seal"
	"joinery/internal/service"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/internal/webhook"
	"joinery/lorawan"

	"filippo.io/age"
)

// keyFile is made once for all tests of this package: making RSA keys takes
// longer than most of them.
var keyFile struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if keyFile.dir != "" {
		_ = os.RemoveAll(keyFile.dir)
	}
	os.Exit(code)
}

func makeKeyFile() (err error) {
	if keyFile.dir, err = os.MkdirTemp("", "joinery-api-test"); err != nil {
		return err
	}
	for _, name := range []string{"server.id", "custody.id"} {
		id, err := age.GenerateX25519Identity()
		if err == nil {
			err = os.WriteFile(filepath.Join(keyFile.dir, name), []byte(id.String()+"\n"), 0o600)
		}
		if err != nil {
			return err
		}
	}
	in := func(name string) string { return filepath.Join(keyFile.dir, name) }
	unlock := soft.Unlock{IdentityFile: in("server.id")}
	if err := soft.Init(soft.InitOptions{
		KeyFile: in("server.age"), Unlock: unlock,
		CustodyFile: in("custody.age"), CustodyUnlock: soft.Unlock{IdentityFile: in("custody.id")},
	}); err != nil {
		return err
	}
	_, err = soft.NewMaster(in("server.age"), unlock, "test-master")
	return err
}

func openKeyring(t testing.TB) *keyring.Keyring {
	t.Helper()
	keyFile.Do(func() { keyFile.err = makeKeyFile() })
	if keyFile.err != nil {
		t.Fatal(keyFile.err)
	}
	token, err := soft.Open(t.Context(), soft.Options{
		KeyFile: filepath.Join(keyFile.dir, "server.age"),
		Unlock:  soft.Unlock{IdentityFile: filepath.Join(keyFile.dir, "server.id")},
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := keyring.New(token)
	t.Cleanup(func() { _ = keys.Close() })
	return keys
}

// system is what the server's wiring tells about itself.
type system struct{ *keyring.Keyring }

func (s system) Custody() []client.Custody {
	return []client.Custody{{Origin: "sealed", Level: "in-memory", Served: true}}
}

func (s system) Masters() (out []client.MasterKey) {
	for _, m := range s.Keyring.Masters() {
		out = append(out, client.MasterKey(m))
	}
	return out
}

// fixture is a management API over real services, store and keyring, on a real
// socket and a real TCP port.
type fixture struct {
	*api.Server
	auth     *auth.Service
	signIn   *auth.SignIn
	services api.Services
	keys     *keyring.Keyring
	db       *store.DB
	socket   string
	url      string
	log      *logBuffer
	refusals *refusal.Recorder
	attempts *attempts
	custody  *custodylog.Service

	operator *client.Client // on the socket
	orgA     joinery.OrgID
	keyA     string // API key of orgA
	orgB     joinery.OrgID
	keyB     string
}

// logBuffer is a log that tests may read while it is written.
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

// start runs a fixture with two organisations.
func start(t testing.TB, change ...func(*api.Options)) *fixture {
	t.Helper()
	return startWith(t, auth.SignInOptions{}, change...)
}

// startWith is start where people sign in as signIn says.
func startWith(t testing.TB, signIn auth.SignInOptions, change ...func(*api.Options)) *fixture {
	t.Helper()
	tcp, err := api.ListenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, bench := t.(*testing.B) // a figure counts the disk in
	opt := store.Options{Path: filepath.Join(dir, "joinery.db"), UnsafeNoSync: !bench}
	sqlitetest.Create(t, opt.Path)
	db, err := store.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	f := &fixture{db: db, keys: openKeyring(t), log: new(logBuffer), socket: filepath.Join(dir, "s")}
	log := slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	devices := fleet.New(db, f.keys, fleet.Options{Log: log})
	if err := devices.Directory().Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.auth = auth.New(db, nil)
	f.url = "http://localhost" + strings.TrimPrefix(tcp.Addr().String(), "127.0.0.1")
	f.signIn = newSignIn(t, db, f.url, signIn, log)
	f.refusals = refusal.NewRecorder(db, log)
	t.Cleanup(f.refusals.Close)
	f.attempts = &attempts{Recorder: f.refusals}
	owners := claim.New(db, db, f.keys, claim.Options{AnswerAfter: -1, PerCaller: 1 << 20, PerDevice: 1 << 20})
	terms, err := service.Start(t.Context(), db, service.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	attestations, err := attest.Start(t.Context(), db, attest.Options{Log: log, Verifier: "js.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	exports := export.New(db, export.Options{Server: "js.example.com", Log: log})
	rekeying := rekey.New(db, f.keys, exports, func(e lorawan.EUI64) bool { return e[0] == 0x70 }, log, time.Now)
	f.services = api.Services{
		Service: terms,
		System:  system{f.keys}, Keys: f.auth, People: auth.NewPeople(db, nil), SignIn: f.signIn, Organisations: devices, Ranges: devices, Signers: devices,
		Peers: devices, KEKs: devices, Devices: devices, Nonces: devices,
		Ownership: owners, Disputes: owners,
		Imports: provisioning.New(db, db, f.keys), Audit: devices, Refusals: refusal.New(db, f.refusals), Attempts: f.attempts, Answers: db,
		Rotation:     rotation.New(db, f.keys, time.Now),
		Exports:      exports,
		Attestations: attestations,
		Rekeying:     rekeying, RekeyApprovals: rekeying, RekeyBatches: rekeying, RekeyFiles: rekeying, JoinServers: rekeying, Arrivals: rekeying,
		Events: events.New(db, f.keys, webhook.NewSender(webhook.Policy{}, "joinery/test", nil), events.Options{Encode: api.EncodeEvent}),
	}
	if f.custody, err = custodylog.New(db, f.keys, custodylog.Options{Origin: "log.example", Log: log}); err == nil {
		err = f.custody.Begin(t.Context())
	}
	if err == nil {
		err = f.publish(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	f.services.CustodyLog = f.custody
	options := api.Options{Version: "1.2.3", Log: log, Services: f.services}
	for _, c := range change {
		c(&options)
	}
	f.serve(t, tcp, options)
	f.addOrganisations(t)
	return f
}

// publish takes what was done into the custody log, and signs it.
func (f *fixture) publish(ctx context.Context) error {
	return errors.Join(f.custody.CatchUp(ctx), f.custody.Publish(ctx))
}

func (f *fixture) serve(t testing.TB, tcp net.Listener, options api.Options) {
	t.Helper()
	var err error
	if f.Server, err = api.New(options); err != nil {
		t.Fatal(err)
	}
	socket, err := api.ListenSocket(f.socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- f.Serve(socket) }()
	go func() { done <- f.Serve(tcp) }()
	t.Cleanup(func() {
		// Connections that were made and not used keep a server for five seconds.
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	if f.operator, err = client.New(client.Options{Socket: f.socket}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.operator.Close)
}

// scriptRights is all that an API key of an organisation can have.
var scriptRights = (joinery.EveryKind().Rights() &^ joinery.RightsOf(joinery.RightExportApprove)).List()

func (f *fixture) addOrganisations(t testing.TB) {
	t.Helper()
	for _, o := range []struct {
		name string
		id   *joinery.OrgID
		key  *string
	}{{"Acme", &f.orgA, &f.keyA}, {"Borealis", &f.orgB, &f.keyB}} {
		made, err := f.operator.AddOrganisation(t.Context(), client.NewOrganisation{Name: o.name})
		if err != nil {
			t.Fatal(err)
		}
		key, err := f.operator.MakeAPIKey(t.Context(), client.NewAPIKey{Name: o.name + " script", Organisation: made.ID, Scopes: scriptRights})
		if err != nil {
			t.Fatal(err)
		}
		*o.id, *o.key = made.ID, key.Text
	}
}

// as gives a client with an API key, over TCP.
func (f *fixture) as(t testing.TB, key string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Server: f.url, APIKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// acting gives an operator's client that acts for an organisation.
func (f *fixture) acting(t testing.TB, org joinery.OrgID) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Socket: f.socket, Organisation: org})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// answer is an answer as it came.
type answer struct {
	status int
	header http.Header
	body   string
}

// problem reads the answer as a problem.
func (a answer) problem(t testing.TB) client.Problem {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type %q of %d %s", got, a.status, a.body)
	}
	var p client.Problem
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	if p.Status != a.status || p.Type != "urn:joinery:problem:"+string(p.Code) || p.RequestID != a.header.Get("X-Request-Id") || p.RequestID == "" {
		t.Fatalf("%d, %v: problem %+v", a.status, a.header, p)
	}
	return p
}

// send sends a request over TCP as it is; key "" for none.
func (f *fixture) send(t testing.TB, key, method, path, body string, header ...string) answer {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return f.roundTrip(t, http.DefaultTransport, req)
}

// sendOnSocket is send by the operator, on his socket.
func (f *fixture) sendOnSocket(t testing.TB, method, path string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://server"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.socket)
	}, DisableKeepAlives: true}
	return f.roundTrip(t, socket, req)
}

func (f *fixture) roundTrip(t testing.TB, by http.RoundTripper, req *http.Request) answer {
	t.Helper()
	res, err := by.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

// direct sends a request past every listener.
func direct(s *api.Server, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sealedKEK seals a KEK to the fixture's server.
func (f *fixture) sealedKEK(t testing.TB, role, label string, key []byte) client.NewKEK {
	t.Helper()
	h, k, err := seal.SealKEK(f.keys.TransportKey(), role, label, key)
	if err != nil {
		t.Fatal(err)
	}
	return client.NewKEK{Role: role, Label: label, Seal: client.SealHeader(h), Wrapped: k.Wrapped, MAC: k.MAC}
}

// sealedRow seals the AppKey of a row to the fixture's server.
func (f *fixture) sealedRow(t testing.TB, row client.SealedKeyRow, key []byte) (client.SealHeader, client.SealedKeyRow) {
	t.Helper()
	s, err := seal.NewSealer(f.keys.TransportKey())
	if err != nil {
		t.Fatal(err)
	}
	sealed := seal.SealedRow{
		Line: row.Line, JoinEUI: row.JoinEUI, DevEUI: row.DevEUI, MACVersion: row.MACVersion, Root10: row.Root10,
		UsedDevNonces: row.UsedDevNonces, JoinNonceFloor: row.JoinNonceFloor,
	}
	if err := s.SealRow(&sealed, nil, key); err != nil {
		t.Fatal(err)
	}
	row.AppKey, row.MAC = sealed.AppKey, sealed.MAC
	return client.SealHeader(s.Header()), row
}

func code(err error) string {
	if err == nil {
		return ""
	}
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return string(p.Code)
	}
	return fmt.Sprintf("%T %v", err, err)
}
