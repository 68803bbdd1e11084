package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"joinery/client"
	"joinery/internal/api"
	"joinery/lorawan"
)

// TestIfMatch changes a device and a peer only as they were read.
func TestIfMatch(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	c := f.as(t, f.keyA)
	ctx := t.Context()
	var read, changed string
	if _, err := c.Device(ctx, w.device.ID, client.ReadETag(&read)); err != nil || read == "" {
		t.Fatalf("ETag %q, %v", read, err)
	}
	bind := client.NewBinding{NetID: lorawan.NetID{0, 0, 0x42}, AppSKey: "clear"}
	if err := c.Bind(ctx, w.device.ID, bind, client.IfMatch(read)); err != nil {
		t.Fatal(err)
	}
	other := bind
	other.NetID = lorawan.NetID{0, 0, 0x43}
	for what, change := range map[string]func(...client.CallOption) error{
		"bind":    func(o ...client.CallOption) error { return c.Bind(ctx, w.device.ID, other, o...) },
		"unbind":  func(o ...client.CallOption) error { return c.Unbind(ctx, w.device.ID, o...) },
		"suspend": func(o ...client.CallOption) error { return c.SuspendDevice(ctx, w.device.ID, o...) },
		"delete":  func(o ...client.CallOption) error { return c.DeleteDevice(ctx, w.device.ID, o...) },
	} {
		if err := change(client.IfMatch(read)); code(err) != "precondition" {
			t.Errorf("%s as it was before: %v", what, err)
		}
	}
	d, err := c.Device(ctx, w.device.ID, client.ReadETag(&changed))
	if err != nil || changed == read || d.Binding == nil || d.Suspended {
		t.Errorf("ETag %s and then %s, %+v, %v", read, changed, d, err)
	}
	if err := c.SuspendDevice(ctx, w.device.ID, client.IfMatch(`"other", `+changed)); err != nil {
		t.Error(err)
	}
	if err := c.ResumeDevice(ctx, w.device.ID, client.IfMatch("*")); err != nil {
		t.Error(err)
	}

	peers, err := f.operator.Peers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.operator.Peer(ctx, peers[0].ID, client.ReadETag(&read))
	if err != nil {
		t.Fatal(err)
	}
	change := client.PeerChange{PeerSettings: p.PeerSettings}
	change.Name = "Network A2"
	change.NetIDs = append([]lorawan.NetID{{0, 0, 0x77}}, change.NetIDs...)
	if _, err := f.operator.ChangePeer(ctx, p.ID, change, client.IfMatch(read), client.ReadETag(&changed)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.operator.ChangePeer(ctx, p.ID, change, client.IfMatch(read)); code(err) != "precondition" {
		t.Errorf("a peer as it was before: %v", err)
	}
	if _, err := f.operator.Peer(ctx, p.ID, client.ReadETag(&read)); err != nil || read != changed {
		t.Errorf("ETag %s of the change, %s when read, %v", changed, read, err)
	}
	if err := f.operator.RemovePeer(ctx, p.ID, client.IfMatch(changed)); err != nil {
		t.Error(err)
	}

	for path, tag := range map[string]string{
		"/api/v1/devices/" + w.device.ID.String() + "/suspend": "no quotes",
		"/api/v1/organisations":                                `"x"`,
	} {
		if a := f.send(t, w.operatorKey, http.MethodPost, path, `{"name":"x"}`, "If-Match", tag); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

const someKey = "2f1c9d7e-5a44-4b6e-9a0f-1d2c3b4a5968"

// TestIdempotencyKey sends requests again, with the same content and another.
func TestIdempotencyKey(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	post := func(key, path, body, name string) answer {
		return f.send(t, key, http.MethodPost, path, body, "Idempotency-Key", name)
	}
	first := post(w.operatorKey, "/api/v1/organisations", `{"name":"Once"}`, someKey)
	if first.status != http.StatusCreated || first.header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %v %s", first.status, first.header, first.body)
	}
	again := post(w.operatorKey, "/api/v1/organisations", `{"name":"Once"}`, someKey)
	if again.status != first.status || again.body != first.body || again.header.Get("Idempotency-Replayed") != "true" ||
		again.header.Get("Content-Type") != first.header.Get("Content-Type") {
		t.Errorf("again: %d %v %s", again.status, again.header, again.body)
	}
	if a := post(w.operatorKey, "/api/v1/organisations", `{"name":"Twice"}`, someKey); a.status != http.StatusUnprocessableEntity {
		t.Errorf("with another body: %d %s", a.status, a.body)
	}
	if a := post(f.keyA, "/api/v1/api-keys", `{"name":"mine"}`, someKey); a.status != http.StatusCreated {
		t.Errorf("of another caller: %d %s", a.status, a.body)
	}
	if a := post(w.operatorKey, "/api/v1/organisations", `{"name":"x"}`, "short"); a.status != http.StatusUnprocessableEntity {
		t.Errorf("a short key: %d %s", a.status, a.body)
	}

	// A refusal changes nothing and is not kept: the same request may be sent
	// again when what stood against it is gone.
	const other = "another-key-of-the-same-caller"
	if a := post(w.operatorKey, "/api/v1/organisations", `{"name":""}`, other); a.status != http.StatusUnprocessableEntity {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := post(w.operatorKey, "/api/v1/organisations", `{"name":"Third"}`, other); a.status != http.StatusCreated {
		t.Errorf("after a refusal: %d %s", a.status, a.body)
	}
}

// TestSecretAnswersAreNotKept makes an API key twice under one name: there is one
// key, and its text is nowhere in the database.
func TestSecretAnswersAreNotKept(t *testing.T) {
	f := start(t)
	first := f.send(t, f.keyA, http.MethodPost, "/api/v1/api-keys", `{"name":"mine"}`, "Idempotency-Key", someKey)
	again := f.send(t, f.keyA, http.MethodPost, "/api/v1/api-keys", `{"name":"mine"}`, "Idempotency-Key", someKey)
	if first.status != http.StatusCreated || again.status != http.StatusConflict || strings.Contains(again.body, "joinery_key_") {
		t.Errorf("%d, and again %d %s", first.status, again.status, again.body)
	}
	keys, err := f.as(t, f.keyA).APIKeys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// TestIdempotencyKeyAtOnce sends one request many times at the same moment: it is
// done once, and each answer is that of the first or says to ask again.
func TestIdempotencyKeyAtOnce(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	const many = 20
	answers := make([]answer, many)
	var running sync.WaitGroup
	for i := range many {
		running.Go(func() {
			answers[i] = f.send(t, w.operatorKey, http.MethodPost, "/api/v1/signers", marshal(t, client.NewSigner{
				Organisation: f.orgA, Name: fmt.Sprint("line ", 2), Certificate: sameCertificate(t), Master: "test-master", Generation: 1,
				JoinEUIs: euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF"), DevEUIs: euiRange(t, "0004A31000000000", "0004A310FFFFFFFF"),
			}), "Idempotency-Key", someKey)
		})
	}
	running.Wait()
	// Connections that were opened at once and not used hold a shutdown up.
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	made := 0
	for _, a := range answers {
		switch a.status {
		case http.StatusCreated:
			made++
		case http.StatusConflict:
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	signers, err := f.operator.Signers(t.Context())
	if err != nil || len(signers) != 2 || made == 0 {
		t.Errorf("%d signers, %d answers, %v", len(signers), made, err)
	}
}

var oneCertificate struct {
	sync.Once
	der []byte
}

func sameCertificate(t testing.TB) []byte {
	oneCertificate.Do(func() { oneCertificate.der = certificate(t) })
	return oneCertificate.der
}

// TestRequestIDs: an id that is sent names the request, one that could be a key
// does not.
func TestRequestIDs(t *testing.T) {
	f := start(t)
	for sent, taken := range map[string]bool{
		someKey: true, "trace.1-2": true, "": false, "jk_1-2": false, strings.Repeat("ab", 16): false, "a-" + strings.Repeat("b", 100): false, "a-b\u00e9": false,
	} {
		a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices/"+"dev_0000000000002", "", "X-Request-Id", sent)
		if p := a.problem(t); (p.RequestID == sent) != taken {
			t.Errorf("%q became %q", sent, p.RequestID)
		}
		if taken && !strings.Contains(f.log.String(), sent) {
			t.Errorf("%q is not in the log", sent)
		}
	}
}

// TestRateLimit uses a credential's quota up. Others have theirs.
func TestRateLimit(t *testing.T) {
	f := start(t, func(o *api.Options) { o.PerMinute = 5 })
	for left := 4; left >= 0; left-- {
		a := f.send(t, f.keyA, http.MethodGet, "/api/v1/status", "")
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("RateLimit"), fmt.Sprintf(`"caller";r=%d;t=`, left)) ||
			a.header.Get("RateLimit-Policy") != `"caller";q=5;w=60` {
			t.Errorf("%d left: %d %v", left, a.status, a.header)
		}
	}
	a := f.send(t, f.keyA, http.MethodGet, "/api/v1/status", "")
	if p := a.problem(t); a.status != http.StatusTooManyRequests || p.Code != "rate_limited" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := f.send(t, f.keyB, http.MethodGet, "/api/v1/status", ""); a.status != http.StatusOK {
		t.Errorf("another credential: %d", a.status)
	}
	for range 10 {
		if _, err := f.operator.Status(t.Context()); err != nil {
			t.Fatalf("on the socket: %v", err)
		}
	}
}

// TestAnswersHoldNoBody looks into the database for what was sent and answered.
func TestAnswersHoldNoBody(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	token := "A1B2C3D4E5F60"
	body := marshal(t, client.NewClaim{JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI, OwnerToken: token})
	f.send(t, f.keyB, http.MethodPost, "/api/v1/claims", body, "Idempotency-Key", someKey)
	sum := sha256.Sum256([]byte(body))
	for _, found := range f.searchDatabase(t, token, someKey, string(sum[:]), hex.EncodeToString(sum[:])) {
		t.Errorf("the database holds %q", found)
	}
}

// searchDatabase gives which texts are in the files of the database.
func (f *fixture) searchDatabase(t testing.TB, texts ...string) (found []string) {
	t.Helper()
	dir := filepath.Dir(f.socket)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if bytes.Contains(b, []byte(text)) {
				found = append(found, text)
			}
		}
	}
	return found
}

// TestNobodyLeavesNoMark: requests without a credential are not told apart by
// their Idempotency-Key, whoever sends them.
func TestNobodyLeavesNoMark(t *testing.T) {
	f := start(t)
	begin := func(name string) (login client.Login) {
		t.Helper()
		a := f.send(t, "", http.MethodPost, "/api/v1/login", `{"name":"`+name+`"}`, "Idempotency-Key", someKey)
		if err := json.Unmarshal([]byte(a.body), &login); err != nil || login.Secret == "" || a.header.Get("Idempotency-Replayed") != "" {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		return login
	}
	if first, second := begin("one"), begin("two"); first.Secret == second.Secret {
		t.Error("two programs have one secret")
	}
}
