package events

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joinery"
	"joinery/internal/webhook"
)

// neighbours is a Leader that knows another server, which left joins unnamed.
type neighbours struct {
	Leader
	mu      sync.Mutex
	source  joinery.EventSource
	unnamed int
	looks   int
	gone    bool
}

func (n *neighbours) Sources(context.Context) ([]joinery.EventSource, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return nil, nil
	}
	return []joinery.EventSource{n.source}, nil
}

func (n *neighbours) RecoverFeed(context.Context, joinery.EventSource, time.Duration) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looks++
	found := n.unnamed
	n.unnamed = 0
	return found, nil
}

func (n *neighbours) ForgetSource(context.Context, joinery.EventSource) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = true
	return nil
}

// set changes n.
func (n *neighbours) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// state gives how often n was looked into, and what is unnamed.
func (n *neighbours) state() (looks, unnamed int, gone bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.looks, n.unnamed, n.gone
}

// watch lets a Runner look after n, in a bubble with a clock of its own.
func watch(t *testing.T, n *neighbours) *Runner {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r := &Runner{Service: New(nil, nil, webhook.NewSender(home, "joinery/test", nil), Options{}), leader: n, wake: make(chan struct{}, 1)}
	go r.recover(ctx)
	return r
}

// A server that had nothing to do, was looked into, then joins a device and
// crashes before it named that: the join is found within half a minute.
func TestFindsJoinsOfAnIdleServerThatCrashed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &neighbours{}
		r := watch(t, n)
		for range 4 {
			time.Sleep(25 * time.Second) // its beat stands: nothing to name
			synctest.Wait()
			if looks, _, _ := n.state(); looks == 0 {
				t.Fatal("it was not looked into")
			}
			n.set(func() { n.unnamed = 1 })
			time.Sleep(30*time.Second - settleTime)
			synctest.Wait()
			if looks, unnamed, _ := n.state(); unnamed != 0 {
				t.Fatalf("a join is unnamed for %s after %d looks", 30*time.Second-settleTime, looks)
			}
		}
		if got := r.Stats().Recovered; got != 4 {
			t.Errorf("%d joins are found, want 4", got)
		}
	})
}

// One that is gone is looked into less and less, and forgotten in the end.
func TestForgetsServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &neighbours{}
		watch(t, n)
		time.Sleep(forgetAfter + time.Minute)
		synctest.Wait()
		if looks, _, gone := n.state(); !gone || looks > 80 {
			t.Errorf("forgotten: %v, after %d looks", gone, looks)
		}
	})
}

// One that shows life is left alone.
func TestLeavesLivingServersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &neighbours{}
		watch(t, n)
		for range 60 {
			time.Sleep(time.Second)
			synctest.Wait()
			n.set(func() { n.source.Beat++ })
		}
		if looks, _, _ := n.state(); looks != 0 {
			t.Errorf("it was looked into %d times", looks)
		}
	})
}

// A webhook that has not taken what is twice as old as the feed is kept is
// switched off, with notice, and the feed is pruned.
func TestLeavesLateWebhooks(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	late, has := f.add(r, joinery.EventDeviceSuspended), f.add(r, joinery.EventDeviceResumed)
	r.verify = nil
	for range 3 {
		f.happen(f.ours.Org, 1)
	}
	f.rounds(has) // nothing for it; its place is written down all the same
	held := error(nil)
	f.hold = func() error { return held }
	run := &Runner{Service: f.Service, opt: RunOptions{Keep: keepFor}}
	seen := map[joinery.WebhookID]time.Time{}
	f.clock.add(2*keepFor - time.Hour)
	if ok(t, run.leaveLate(t.Context(), seen)); len(seen) != 0 {
		t.Errorf("%d are late too early", len(seen))
	}
	f.clock.add(2 * time.Hour)
	ok(t, run.leaveLate(t.Context(), seen))
	if len(seen) != 1 || f.stored(late).Disabled != "" {
		t.Errorf("%d are late, and the first has no time to go on: %q", len(seen), f.stored(late).Disabled)
	}
	seen[late.w.ID] = seen[late.w.ID].Add(-pruneEvery)
	held = joinery.Errorf(joinery.CodeUnavailable, "fenced")
	ok(t, run.leaveLate(t.Context(), seen))
	if len(seen) != 0 || f.stored(late).Disabled != "" {
		t.Error("it is switched off by a server that delivers nothing")
	}
	held = nil
	seen[late.w.ID] = time.Now().Add(-pruneEvery)
	ok(t, run.leaveLate(t.Context(), seen))
	if f.stored(late).Disabled == "" || f.stored(has).Disabled != "" {
		t.Errorf("off: %q and %q", f.stored(late).Disabled, f.stored(has).Disabled)
	}
	if n, err := f.db.PruneEvents(t.Context(), f.now().Add(-keepFor), 100); err != nil || n == 0 {
		t.Errorf("%d pages are forgotten, %v", n, err)
	}
}

// ending is a Sequencer that knows whether it was ended.
type ending struct {
	Sequencer
	ended, touched bool
}

func (e *ending) EndFeed(context.Context) error { e.ended = true; return nil }

func (e *ending) Sequence(_ context.Context, touch bool) (bool, error) {
	e.touched = e.touched || touch
	return false, nil
}

// A server whose joins may go on is not forgotten.
func TestStaysWhereJoinsGoOn(t *testing.T) {
	for _, drained := range []bool{true, false} {
		e := &ending{}
		r := &Runner{Service: New(nil, nil, webhook.NewSender(home, "joinery/test", nil), Options{}), sequencer: e, stop: func() {}}
		r.Close(drained)
		if e.ended != drained || e.touched == drained {
			t.Errorf("drained %v: ended %v, named what is left %v", drained, e.ended, e.touched)
		}
	}
}
