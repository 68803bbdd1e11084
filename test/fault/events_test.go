package fault

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/lorawan"
	"joinery/test/rig"
)

// receiver is somebody's server that gets events. It verifies each with the
// library of Standard Webhooks, and is down, slow or unwilling as its mood is.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	id     joinery.WebhookID
	verify *standardwebhooks.Webhook

	// disorder: several servers name joins in the feed, each its own.
	disorder bool

	mu     sync.Mutex
	mood   mood
	seen   map[join]int    // joins that it took, and how often
	events map[string]join // by the id of their event
	newest map[lorawan.EUI64]lorawan.JoinNonce
	asked  int
}

// join names one accepted join.
type join struct {
	device lorawan.EUI64
	nonce  lorawan.JoinNonce
}

type mood int

const (
	willing mood = iota
	refusing
	slow
	hangingUp
	moods
)

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, seen: map[join]int{}, events: map[string]join{}, newest: map[lorawan.EUI64]lorawan.JoinNonce{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) set(m mood) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mood = m
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.asked++
	mood := r.mood
	r.mu.Unlock()
	switch mood {
	case refusing:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case hangingUp:
		panic(http.ErrAbortHandler)
	case slow:
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the server died meanwhile
	}
	if err := r.verify.Verify(body, req.Header); err != nil {
		r.t.Errorf("an event is not signed as it should be: %v", err)
	}
	var e client.Event
	if err := json.Unmarshal(body, &e); err != nil {
		r.t.Errorf("an event cannot be read: %v", err)
	}
	r.take(e)
}

// take notes a join. Events of a device come in the order of its joins, but for
// those that come again.
func (r *receiver) take(e client.Event) {
	if e.Data.Join == nil {
		return
	}
	j := join{e.Data.DevEUI, e.Data.Join.JoinNonce}
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, known := r.events[e.ID.String()]; known && was != j {
		r.t.Errorf("event %s is of two joins", e.ID)
	}
	r.events[e.ID.String()] = j
	if r.seen[j]++; r.seen[j] == 1 {
		if j.nonce <= r.newest[j.device] && !r.disorder {
			r.t.Errorf("device %s: the join with JoinNonce %d came after that with %d", j.device, j.nonce, r.newest[j.device])
		}
		r.newest[j.device] = max(r.newest[j.device], j.nonce)
	}
}

// missing gives how many joins that were acknowledged did not come.
func (r *receiver) missing(f *fleet) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range f.members {
		for nonce := range m.nonces {
			if r.seen[join{m.DevEUI(), nonce}] == 0 {
				n++
			}
		}
	}
	return n
}

// await waits until nothing is missing.
func (r *receiver) await(f *fleet, patience time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(patience); r.missing(f) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			out, err := f.server.Ctl(r.t.Context(), "", "webhook", "list")
			r.t.Fatalf("%d of %d acknowledged joins did not come; %s %v\n%s", r.missing(f), f.acknowledged(), out, err, f.server.Log())
		}
	}
}

// allowReceivers lets a server that is not running send to this machine.
func allowReceivers(t *testing.T, server *rig.Server) {
	t.Helper()
	path := server.Path("joinery.yaml")
	c, err := config.Read(path)
	ok(t, err)
	c.Webhooks = config.Webhooks{AllowNetworks: "127.0.0.1/32", AllowHTTP: true}
	file, err := os.Create(path)
	ok(t, err)
	ok(t, config.Print(file, c))
	ok(t, file.Close())
}

// listens adds a webhook for the receiver, which hears nothing of the joins up to
// then.
func (r *receiver) listens(f *fleet) {
	r.t.Helper()
	for _, m := range f.members {
		for nonce := range m.nonces {
			r.seen[join{m.DevEUI(), nonce}]++
		}
	}
	made, err := f.api.AddWebhook(r.t.Context(), client.NewWebhook{URL: r.server.URL, Everything: true})
	ok(r.t, err)
	r.id = made.Webhook.ID
	r.verify, err = standardwebhooks.NewWebhook(made.Secret)
	ok(r.t, err)
}

// Killed at any instant, also between a commit and the delivery of its event,
// before receivers that are down, slow and unwilling: every join that was
// acknowledged is told of, and none that was not committed.
func TestEventsSurvive(t *testing.T) {
	d := doseOf()
	d.claims = 0
	f := newFleetIn(t, d, t.TempDir(), func(s *rig.Server) { allowReceivers(t, s) })
	r := newReceiver(t)
	r.listens(f)
	for kill := range max(d.kills/2, 4) {
		r.set(mood(kill) % moods)
		f.live(time.Duration(100+rand.IntN(500)) * time.Millisecond)
		f.fsck()
		ok(t, f.server.Start(t.Context()))
	}
	r.set(willing)
	ok(t, f.api.EnableWebhook(t.Context(), r.id, client.WebhookEnabling{})) // do not wait for the next try
	r.await(f, time.Minute)
	f.checkJoins()
	f.checkFeed(r)
	t.Logf("%d joins acknowledged, %d events of joins, %d requests to the receiver", f.acknowledged(), len(r.events), r.asked)
}

// checkFeed looks for every acknowledged join in the feed, and for every join in
// the feed, and every one that was delivered, in the log of its device.
func (f *fleet) checkFeed(r *receiver) {
	f.t.Helper()
	told := map[join]bool{}
	for e, err := range f.api.Events(f.t.Context(), client.EventsPageQuery{Types: "device.joined", Limit: 500}) {
		ok(f.t, err)
		told[join{e.Data.DevEUI, e.Data.Join.JoinNonce}] = true
	}
	stored := map[join]bool{}
	for _, m := range f.members {
		for a, err := range f.api.Activations(f.t.Context(), f.ids[m.DevEUI()], client.ActivationsQuery{}) {
			ok(f.t, err)
			stored[join{m.DevEUI(), a.JoinNonce}] = true
		}
		for nonce := range m.nonces {
			if !told[join{m.DevEUI(), nonce}] {
				f.t.Errorf("device %s: the acknowledged join with JoinNonce %d is not in the feed", m.DevEUI(), nonce)
			}
		}
	}
	for j := range stored {
		if !told[j] {
			f.t.Errorf("device %s: the stored join with JoinNonce %d is not in the feed", j.device, j.nonce)
		}
	}
	for j := range told {
		if !stored[j] {
			f.t.Errorf("device %s: the feed tells of a join with JoinNonce %d that was never committed", j.device, j.nonce)
		}
	}
	for _, j := range r.events {
		if !stored[j] {
			f.t.Errorf("device %s: a join with JoinNonce %d was delivered that was never committed", j.device, j.nonce)
		}
	}
}
