package events

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/internal/webhook"
)

var keys *keyring.Keyring

func TestMain(m *testing.M) { os.Exit(keyringtest.Main(m, "test-master", &keys)) }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// home is where the receivers of these tests listen.
var home = webhook.Policy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, PlainHTTP: true}

// fixture is a Service over a database and a keyring, with two organisations.
type fixture struct {
	*Service
	t       *testing.T
	db      *store.DB
	clock   *clock
	ours    joinery.Caller
	theirs  joinery.Caller
	boss    joinery.Caller
	written int
}

// clock is set by tests.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, db: sqlitetest.New(t), clock: &clock{at: time.Now()}, boss: joinery.Caller{Operator: true, Name: "socket"}}
	f.Service = New(f.db, keys, webhook.NewSender(home, "joinery/test", nil), Options{Now: f.clock.now, Encode: encode})
	for name, c := range map[string]*joinery.Caller{"Acme": &f.ours, "Else": &f.theirs} {
		o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: f.clock.now()}
		ok(t, f.db.AddOrg(t.Context(), o, joinery.AuditEntry{At: o.CreatedAt, Event: joinery.AuditOrgAdded}))
		*c = joinery.Caller{Org: o.ID, Name: name}
	}
	ok(t, f.db.BeginFeed(t.Context()))
	return f
}

// encode is the body of a delivery in these tests.
func encode(e joinery.Event) ([]byte, error) {
	note := ""
	if e.Audit != nil {
		note = e.Audit.Detail["n"]
	}
	return json.Marshal(map[string]string{"id": e.ID.String(), "type": string(e.Type), "device": e.Device.String(), "n": note})
}

// happen writes what is an event of org, about a device or none, and gives its
// number.
func (f *fixture) happen(org joinery.OrgID, device joinery.DeviceID) string {
	f.t.Helper()
	f.written++
	n := fmt.Sprint(f.written)
	ok(f.t, f.db.Record(f.t.Context(), joinery.AuditEntry{
		At: f.timestamp(), Event: joinery.AuditDeviceSuspended, Org: org, Device: device, Detail: map[string]string{"n": n},
	}))
	_, err := f.db.Sequence(f.t.Context(), false)
	ok(f.t, err)
	return n
}

// add adds a webhook of ours and gives its courier.
func (f *fixture) add(r *receiver, types ...joinery.EventType) *courier {
	f.t.Helper()
	w, secret, err := f.Add(f.t.Context(), f.ours, joinery.Webhook{URL: r.url(), Types: types})
	ok(f.t, err)
	r.knows(secret)
	_, err = f.db.Sequence(f.t.Context(), false) // that it was added is an event, too
	ok(f.t, err)
	w.Cursor.Tag = 0
	return newCourier(f.Service, w)
}

// rounds lets c deliver until there is nothing more to do at once.
func (f *fixture) rounds(c *courier) {
	f.t.Helper()
	for more := true; more; {
		w, err := f.db.Webhook(f.t.Context(), c.w.ID)
		ok(f.t, err)
		c.take(w)
		more, err = c.round(f.t.Context())
		ok(f.t, err)
	}
}

func (f *fixture) stored(c *courier) joinery.Webhook {
	f.t.Helper()
	w, err := f.db.Webhook(f.t.Context(), c.w.ID)
	ok(f.t, err)
	return w
}

// receiver is a server that checks each signature with the library that
// receivers use, and answers as a test wants.
type receiver struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	verify  []*standardwebhooks.Webhook // of all secrets that it knows
	answer  func(body map[string]string) int
	header  http.Header
	taken   []map[string]string
	ids     []string
	refused int
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{t: t, answer: func(map[string]string) int { return http.StatusNoContent }, header: http.Header{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) url() string { return r.server.URL + "/joins" }

func (r *receiver) knows(secret string) {
	r.t.Helper()
	v, err := standardwebhooks.NewWebhook(secret)
	ok(r.t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verify = append(r.verify, v)
}

// answers sets what is answered from now on.
func (r *receiver) answers(answer func(map[string]string) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func always(status int) func(map[string]string) int {
	return func(map[string]string) int { return status }
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var content map[string]string
	if err == nil {
		err = json.Unmarshal(body, &content)
	}
	if err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %v: %v", req.Method, req.Header, err)
	}
	r.mu.Lock()
	for _, v := range r.verify {
		if err := v.VerifyIgnoringTimestamp(body, req.Header); err != nil { // the clocks of these tests are their own
			r.t.Errorf("signature: %v", err)
		}
	}
	if content["id"] != req.Header.Get("webhook-id") {
		r.t.Errorf("webhook-id %q, in the body %q", req.Header.Get("webhook-id"), content["id"])
	}
	answer := r.answer
	r.mu.Unlock()
	status := answer(content)
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, values := range r.header {
		w.Header()[name] = values
	}
	if status < 300 {
		r.taken, r.ids = append(r.taken, content), append(r.ids, content["id"])
	} else {
		r.refused++
	}
	w.WriteHeader(status)
}

// got gives the numbers of what was taken, in order.
func (r *receiver) got() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.taken {
		list = append(list, c["n"])
	}
	return list
}
