package api_test

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/api"
	"joinery/lorawan"
)

func TestSocketIsTheOperator(t *testing.T) {
	f := start(t)
	s, err := f.operator.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !s.Caller.Operator || s.Caller.Organisation != 0 || !strings.HasPrefix(s.Caller.Name, "socket uid ") {
		t.Errorf("caller %+v", s.Caller)
	}
	if !s.Ready || s.Version != "1.2.3" || len(s.Masters) != 1 || s.Masters[0].Name != "test-master" || len(s.Custody) != 1 || s.TransportKID != f.keys.TransportKey().KID() {
		t.Errorf("status %+v", s)
	}
	info, err := os.Stat(f.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v (%v)", info.Mode(), err)
	}
	key, err := f.operator.TransportKey(t.Context())
	if err != nil || key.KID != s.TransportKID || !strings.Contains(key.PEM, "PUBLIC KEY") || strings.Contains(key.PEM, "PRIVATE") {
		t.Errorf("transport key %+v, %v", key, err)
	}
}

// TestSocketWithAPIKey: a key says who calls, also to root.
func TestSocketWithAPIKey(t *testing.T) {
	f := start(t)
	c, err := client.New(client.Options{Socket: f.socket, APIKey: f.keyA})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Status(t.Context())
	if err != nil || s.Caller.Operator || s.Caller.Organisation != f.orgA {
		t.Fatalf("caller %+v, %v", s.Caller, err)
	}
	wrong, err := client.New(client.Options{Socket: f.socket, APIKey: "joinery_key_wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Status(t.Context()); code(err) != "unauthenticated" {
		t.Fatalf("a wrong key on the socket: %v", err)
	}
}

func TestTCPNeedsAnAPIKey(t *testing.T) {
	f := start(t)
	for name, header := range map[string][]string{
		"none": nil, "empty": {"Authorization", ""}, "no scheme": {"Authorization", f.keyA},
		"Basic": {"Authorization", "Basic " + f.keyA}, "cut": {"Authorization", "Bearer " + f.keyA[:40]},
		"wrong secret": {"Authorization", "Bearer " + f.keyA[:30] + "0000" + f.keyA[34:]},
		"socket name":  {"Authorization", "Bearer socket uid 0"},
	} {
		a := f.send(t, "", http.MethodGet, "/api/v1/devices", "", header...)
		p := a.problem(t)
		if a.status != http.StatusUnauthorized || p.Code != joinery.CodeUnauthenticated || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %+v", name, a.status, p)
		}
		if strings.Contains(a.body, f.keyA[20:40]) {
			t.Errorf("%s: the answer repeats the key", name)
		}
	}
	if a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices", ""); a.status != http.StatusOK {
		t.Errorf("a valid key: %d %s", a.status, a.body)
	}
	// Lower-case scheme (RFC 9110 §11.1: schemes are case-insensitive).
	if a := f.send(t, "", http.MethodGet, "/api/v1/devices", "", "Authorization", "bearer "+f.keyA); a.status != http.StatusOK {
		t.Errorf("a lower-case scheme: %d", a.status)
	}
	if strings.Contains(f.log.String(), f.keyA[18:]) {
		t.Error("the log holds an API key")
	}
}

func TestActingForAnOrganisation(t *testing.T) {
	f := start(t)
	s, err := f.acting(t, f.orgA).Status(t.Context())
	if err != nil || s.Caller.Organisation != f.orgA || !s.Caller.Operator {
		t.Errorf("an operator acting for A is %+v, %v", s.Caller, err)
	}
	for header, want := range map[string]int{
		f.orgA.String(): http.StatusOK, f.orgB.String(): http.StatusForbidden,
		joinery.NewOrgID().String(): http.StatusForbidden, "nonsense": http.StatusNotFound, "": http.StatusNotFound,
	} {
		a := f.send(t, f.keyA, http.MethodGet, "/api/v1/status", "", client.OrganisationHeader, header)
		if a.status != want {
			t.Errorf("key of A acting for %q: %d, want %d", header, a.status, want)
		}
	}
}

func TestRevokedKeyStopsAtOnce(t *testing.T) {
	f := start(t)
	a := f.as(t, f.keyA)
	keys, err := a.APIKeys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if err := a.RevokeAPIKey(t.Context(), keys[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Status(t.Context()); code(err) != "unauthenticated" {
		t.Fatalf("a revoked key: %v", err)
	}
}

func TestListenersRefuseWhatOthersCanReach(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.com:80", "8.8.8.8:53", "nonsense", "[fe80::1]:0"} {
		if l, err := api.ListenLoopback(addr); err == nil {
			_ = l.Close()
			t.Errorf("%s was listened on", addr)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "127.8.9.10:0", "localhost:0"} {
		l, err := api.ListenLoopback(addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		_ = l.Close()
	}
	// A listener that somebody else made is refused by Serve.
	all, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Options{Services: start(t).services})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(all); err == nil {
		t.Error("Serve took a listener on all addresses")
	}
}

func TestListenSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := api.ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.ListenSocket(path); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("a second server on a living socket: %v", err)
	}
	// Killed: the file stays, and nobody answers.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	again, err := api.ListenSocket(path)
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	_ = again.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ListenSocket(file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file was overwritten")
	}
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""}, {"GET", "/api/v1", 404, ""}, {"GET", "/api/v2/devices", 404, ""},
		{"GET", "/api/v1/nonsense", 404, ""}, {"GET", "/api/v1//devices", 404, ""},
		{"GET", "/api/v1/devices/", 404, ""}, {"GET", "/api/v1/../v1/devices", 404, ""},
		{"PATCH", "/api/v1/devices", 405, "GET, HEAD"}, {"DELETE", "/api/v1/claims", 405, "POST"},
		{"POST", "/api/v1/openapi.json", 405, "GET, HEAD"},
	} {
		a := f.send(t, f.keyA, c.method, c.path, "")
		a.problem(t)
		if a.status != c.status || a.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q", c.method, c.path, a.status, a.header.Get("Allow"))
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	f := start(t)
	big := `{"name":"` + strings.Repeat("x", 300<<10) + `"}`
	a := f.send(t, f.keyA, http.MethodPost, "/api/v1/claims", big)
	if p := a.problem(t); a.status != http.StatusRequestEntityTooLarge || p.Code != joinery.CodeTooLarge {
		t.Errorf("%d %+v", a.status, p)
	}
	deep := strings.Repeat("[", 100_000)
	if a := f.send(t, f.keyA, http.MethodPost, "/api/v1/claims", deep); a.status != http.StatusBadRequest {
		t.Errorf("deep nesting: %d %s", a.status, a.body)
	}
	if a := f.send(t, f.keyA, http.MethodPost, "/api/v1/claims", `{"name":"x"}`, "Content-Type", "text/xml"); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("XML: %d %s", a.status, a.body)
	}
	a = f.send(t, f.keyA, http.MethodPost, "/api/v1/claims", "")
	if p := a.problem(t); a.status != http.StatusBadRequest || p.Code != joinery.CodeInvalid {
		t.Errorf("no body: %d %+v", a.status, p)
	}
}

// TestBrokenBodyIsTheClientsFault: a body that breaks off is no failure of ours.
func TestBrokenBodyIsTheClientsFault(t *testing.T) {
	f := start(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	head := "POST /api/v1/claims HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.keyA +
		"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"nam\r\nnot a length\r\n"
	if _, err := conn.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 400 ") {
		t.Fatalf("%v: %s", err, b[:n])
	}
}

// TestInternalErrorsStayInside: a panic and a failure without a code are
// answered alike, logged once, and their text does not get out.
func TestInternalErrorsStayInside(t *testing.T) {
	canary := make([]byte, 16)
	_, _ = rand.Read(canary)
	text := hex.EncodeToString(canary)
	f := start(t)
	for name, devices := range map[string]api.Devices{
		"panic": broken{panicWith: text}, "failure": broken{fail: text},
	} {
		services := f.services
		services.Devices = devices
		s, err := api.New(api.Options{Services: services})
		if err != nil {
			t.Fatal(err)
		}
		w := direct(s, http.MethodGet, "/api/v1/devices", "")
		if w.Code != http.StatusUnauthorized {
			t.Fatalf("%s without a key: %d", name, w.Code)
		}
		f2 := start(t, func(o *api.Options) { o.Devices = devices })
		a := f2.send(t, f2.keyA, http.MethodGet, "/api/v1/devices", "")
		if p := a.problem(t); a.status != 500 || p.Code != joinery.CodeInternal || strings.Contains(a.body, text) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if got := strings.Count(f2.log.String(), `"level":"ERROR"`); got != 1 {
			t.Errorf("%s: %d lines of errors in the log:\n%s", name, got, f2.log)
		}
		if name == "panic" && strings.Contains(f2.log.String(), text) {
			t.Error("the log holds the value of a panic")
		}
		// Names and lines, and none of the arguments that Go's stack prints.
		if log := f2.log.String(); name == "panic" && (!strings.Contains(log, "broken.do:") || strings.Contains(log, "goroutine ") || strings.Contains(log, "0x")) {
			t.Errorf("the log shows a panic as:\n%s", log)
		}
	}
}

// TestWholeLife goes once through everything that has no other test here.
func TestWholeLife(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	joinEUI, _ := lorawan.ParseEUI64("70B3D57ED0000000")
	devEUI, _ := lorawan.ParseEUI64("0004A310001AA90A")
	made, err := f.operator.AssignJoinEUIRange(ctx, client.NewJoinEUIRange{EUIRange: client.EUIRange{First: joinEUI, Last: joinEUI}, Organisation: f.orgA})
	if err != nil || made.Organisation != f.orgA {
		t.Fatalf("range %+v, %v", made, err)
	}
	a := f.as(t, f.keyA)
	d := f.importDevice(t, a, joinEUI, devEUI)
	if d.JoinEUI != joinEUI || d.DevEUI != devEUI || d.Owner != f.orgA || d.OwnershipEpoch != 0 || d.KeySet.Origin != "sealed" {
		t.Fatalf("device %+v", d)
	}
	token, err := a.OwnerToken(ctx, d.ID)
	if err != nil || len(token.OwnerToken) != 13 {
		t.Fatalf("owner token of %d characters, %v", len(token.OwnerToken), err)
	}
	b := f.as(t, f.keyB)
	netID := lorawan.NetID{0, 0, 0x13}
	claimed, err := b.Claim(ctx, client.NewClaim{JoinEUI: joinEUI, DevEUI: devEUI, OwnerToken: token.OwnerToken,
		Binding: &client.NewBinding{NetID: netID, ASID: "as.example.com", AppSKey: "session-key-id"}})
	if err != nil || claimed.Owner != f.orgB || claimed.Maker != f.orgA || claimed.Binding == nil || claimed.Binding.NetID != netID || claimed.Binding.AppSKey != "session-key-id" {
		t.Fatalf("claimed %+v, %v", claimed, err)
	}
	if _, err := a.Device(ctx, d.ID); code(err) != "not_found" {
		t.Errorf("the maker still sees it: %v", err)
	}
	if err := b.Bind(ctx, d.ID, client.NewBinding{NetID: netID, AppSKey: "clear"}); err != nil {
		t.Fatal(err)
	}
	if err := b.SuspendDevice(ctx, d.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.operator.ResetNonces(ctx, d.ID, client.NoncesReset{JoinNonceAtLeast: 77}); err != nil {
		t.Fatal(err)
	}
	got, err := b.Device(ctx, d.ID)
	if err != nil || !got.Suspended || got.Binding.AppSKey != "clear" || got.Binding.Epoch != claimed.Binding.Epoch+1 || got.KeySet.JoinNonce != 77 || got.KeySet.NoncesResetSince.IsZero() {
		t.Errorf("device %+v, %v", got, err)
	}
	if err := b.ResumeDevice(ctx, d.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.Unbind(ctx, d.ID); err != nil {
		t.Fatal(err)
	}
	if joins, err := b.ActivationsPage(ctx, d.ID, client.ActivationsQuery{}); err != nil || len(joins.Items) != 0 {
		t.Errorf("%d activations, %v", len(joins.Items), err)
	}
	if err := b.DeleteDevice(ctx, d.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Device(ctx, d.ID); code(err) != "not_found" {
		t.Errorf("a deleted device: %v", err)
	}
	f.checkAudit(t, "device.imported", "device.owner_token_read", "device.claimed", "device.bound", "device.suspended", "device.resumed", "device.nonces_reset", "device.deleted")
}

// checkAudit looks for events in the operator's audit log.
func (f *fixture) checkAudit(t *testing.T, want ...string) {
	t.Helper()
	seen := map[string]bool{}
	last := int64(0)
	for e, err := range f.operator.Audit(t.Context(), client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.ID <= last || e.At.IsZero() || e.Actor == "" {
			t.Errorf("entry %+v behind %d", e, last)
		}
		last = e.ID
		seen[e.Event] = true
	}
	for _, event := range want {
		if !seen[event] {
			t.Errorf("no %s in the audit log", event)
		}
	}
}
