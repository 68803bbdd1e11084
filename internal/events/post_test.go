package events

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
)

// asked counts what is read of the feed.
type asked struct {
	Store
	events atomic.Int64
}

func (a *asked) Events(ctx context.Context, q joinery.EventQuery) (joinery.EventPage, error) {
	a.events.Add(1)
	return a.Store.Events(ctx, q)
}

// post gives the couriers of a server that leads.
func (f *fixture) post() *post {
	f.t.Helper()
	return newPost(&Runner{Service: f.Service, wake: make(chan struct{}, 1)})
}

// look looks at all webhooks until a condition holds.
func (f *fixture) look(p *post, until func() bool) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); !until(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatal("it does not come to that")
		}
		ok(f.t, p.round(f.t.Context()))
	}
}

// Where nothing is new, a look reads nothing for a webhook that has all.
func TestNothingIsReadForNothing(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	store := &asked{Store: f.store}
	f.store = store
	for range 3 {
		f.add(r)
	}
	r.verify = nil // each signs with a secret of its own
	p := f.post()
	f.look(p, func() bool { return len(r.got()) == 3+2+1 })
	p.wait()
	ok(t, p.round(t.Context())) // what is left to look at
	p.wait()
	before := store.events.Load()
	for range 10 {
		ok(t, p.round(t.Context()))
		p.wait()
	}
	if n := store.events.Load() - before; n != 0 {
		t.Errorf("the feed was read %d times", n)
	}
	want := f.happen(f.ours.Org, 1)
	f.look(p, func() bool { return slices.Contains(r.got(), want) })
	p.wait()
}

// Receivers that answer slowly hold no more than the share of their
// organisation, and leave the rest to others.
func TestSlowReceiversAreBounded(t *testing.T) {
	f, slow, quick := newFixture(t), newReceiver(t), newReceiver(t)
	var at, most atomic.Int64
	let := make(chan struct{})
	open := sync.OnceFunc(func() { close(let) })
	t.Cleanup(open) // before the receiver is closed
	slow.answers(func(map[string]string) int {
		n := at.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-let
		at.Add(-1)
		return 200
	})
	for range maxWebhooks {
		f.add(slow, joinery.EventDeviceSuspended)
	}
	slow.verify = nil // each signs with a secret of its own
	for device := joinery.DeviceID(1); device <= 20; device++ {
		f.happen(f.ours.Org, device)
	}
	p := f.post()
	ctx, cancel := context.WithCancel(t.Context())
	defer p.wait()
	defer cancel()
	ok(t, p.round(ctx))
	f.look(p, func() bool { return at.Load() == orgSlots })
	w, secret, err := f.Add(t.Context(), f.theirs, joinery.Webhook{URL: quick.url(), Types: []joinery.EventType{joinery.EventDeviceSuspended}})
	ok(t, err)
	quick.knows(secret)
	want := f.happen(f.theirs.Org, 1)
	f.look(p, func() bool { return slices.Contains(quick.got(), want) })
	if most.Load() > orgSlots {
		t.Errorf("%d requests at once to the receivers of one organisation", most.Load())
	}
	if w.Org != f.theirs.Org {
		t.Errorf("%+v", w)
	}
	cancel()
	open()
}

// What is under way ends when its secret is taken back, or the webhook is
// removed; while two secrets sign it goes on.
func TestRoundsEndWithTheirTerms(t *testing.T) {
	ctx := t.Context()
	for name, act := range map[string]struct {
		do   func(f *fixture, id joinery.WebhookID) error
		ends bool
	}{
		"rotate":     {func(f *fixture, id joinery.WebhookID) error { _, _, err := f.Rotate(ctx, f.ours, id, 0); return err }, false},
		"rotate now": {func(f *fixture, id joinery.WebhookID) error { _, _, err := f.Rotate(ctx, f.ours, id, -1); return err }, true},
		"remove":     {func(f *fixture, id joinery.WebhookID) error { return f.Remove(ctx, f.ours, id) }, true},
		"off": {func(f *fixture, id joinery.WebhookID) error {
			return f.db.DisableWebhook(ctx, id, "a test", joinery.AuditEntry{At: f.timestamp(), Event: joinery.AuditWebhookDisabled, Org: f.ours.Org})
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, r := newFixture(t), newReceiver(t)
			c := f.add(r, joinery.EventDeviceSuspended)
			entered, let := make(chan struct{}), make(chan struct{})
			open := sync.OnceFunc(func() { close(let) })
			t.Cleanup(open)
			first := sync.OnceFunc(func() { close(entered); <-let })
			r.answers(func(map[string]string) int { first(); return 200 })
			f.happen(f.ours.Org, 1)
			p := f.post()
			ok(t, p.round(ctx))
			<-entered
			ok(t, act.do(f, c.w.ID))
			ok(t, p.round(ctx))
			ended := make(chan struct{})
			go func() { p.wait(); close(ended) }()
			select {
			case <-ended:
				if !act.ends {
					t.Error("it ended")
				}
			case <-time.After(map[bool]time.Duration{true: 5 * time.Second, false: 100 * time.Millisecond}[act.ends]):
				if act.ends {
					t.Error("it goes on")
				}
			}
			open()
			<-ended
		})
	}
}
