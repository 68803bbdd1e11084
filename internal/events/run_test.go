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
