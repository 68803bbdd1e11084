package fault

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery/internal/sim"
)

// joinsPerSecond is the load under which nothing may fail.
const joinsPerSecond = 200

// How long the load lasts, and how often the server is restarted meanwhile.
func restarts() (times int, pause time.Duration) {
	if os.Getenv("JOINERY_LONG") != "" {
		return 20, 6 * time.Second
	}
	return 3, 500 * time.Millisecond
}

// newBusyFleet is a fleet large enough that a device is always free to join.
func newBusyFleet(t *testing.T) *fleet {
	return newFleet(t, dose{devices: 1200, claims: 1})
}

// load lets devices join, 200 a second whatever the server does, until stop,
// which fails the test for each join without a right answer and tells how many
// there were.
type load struct {
	f       *fleet
	end     context.CancelFunc
	ticking sync.WaitGroup
	joining sync.WaitGroup
	free    chan *member

	mu     sync.Mutex
	sent   int
	failed []error
	slow   time.Duration
}

func (f *fleet) load() *load {
	ctx, end := context.WithCancel(f.t.Context())
	l := &load{f: f, end: end, free: make(chan *member, len(f.members))}
	for _, m := range f.members {
		l.free <- m
	}
	l.ticking.Go(func() {
		tick := time.NewTicker(time.Second / joinsPerSecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.joining.Go(l.joinOne)
			}
		}
	})
	return l
}

func (l *load) joinOne() {
	began := time.Now()
	var err error
	select {
	case m := <-l.free:
		err = l.f.joinOnce(m)
		l.free <- m
	default:
		err = fmt.Errorf("every device waits for an answer")
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	l.slow = max(l.slow, took)
	if err != nil {
		l.failed = append(l.failed, fmt.Errorf("%s after %v: %w", began.Format("15:04:05.000"), took, err))
	}
}

// joinOnce joins once and checks the answer, and that JoinNonces rise.
func (f *fleet) joinOnce(m *member) error {
	r, err := f.ns.Join(context.WithoutCancel(f.t.Context()), m.Device, sim.JoinOptions{})
	if err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return err
	}
	if n := len(m.fresh); n > 0 && m.fresh[n-1] >= r.Accepted.JoinNonce {
		return fmt.Errorf("device %s: JoinNonce %d after %d", m.DevEUI(), r.Accepted.JoinNonce, m.fresh[n-1])
	}
	m.acknowledge(f.t, r)
	return nil
}

// stop ends the load and judges it.
func (l *load) stop() {
	l.f.t.Helper()
	l.end()
	l.ticking.Wait()
	l.joining.Wait()
	l.f.t.Logf("%d joins, %d failed, the slowest took %v", l.sent, len(l.failed), l.slow)
	for _, err := range l.failed[:min(10, len(l.failed))] {
		l.f.t.Error(err)
	}
	if l.sent == 0 {
		l.f.t.Error("nobody joined")
	}
}

// P23: the running server hands over to a successor, again and again, and no
// join fails.
func TestHandOverUnderLoad(t *testing.T) {
	f := newBusyFleet(t)
	l := f.load()
	times, pause := restarts()
	for range times {
		time.Sleep(pause)
		before := f.server.PID()
		ok(t, f.server.Succeed(t.Context()))
		if f.server.PID() == before {
			t.Error("the same process serves")
		}
	}
	time.Sleep(pause)
	l.stop()
	f.checkJoins()
	if n := strings.Count(f.server.Log(), `msg="handed over"`); n != times {
		t.Errorf("%d servers handed over, want %d:\n%s", n, times, f.server.Log())
	}
	for line := range strings.Lines(f.server.Log()) {
		if strings.Contains(line, `msg="handed over"`) {
			t.Log(strings.TrimSpace(line))
		}
	}
	ok(t, f.server.Stop())
	f.fsck()
}
