package rekey

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"joinery"
)

// Runner hands orders over to the Join Servers that are reached, and reads their
// receipts.
type Runner struct {
	service *Service
	link    Link
	log     *slog.Logger
	hold    func() error
	servers map[joinery.JoinServerID]*turn
	calls   [2]atomic.Uint64
}

// turn is when a Join Server is asked again.
type turn struct {
	failed uint32
	next   time.Time
}

// NewRunner makes a Runner. hold tells why nothing may be done now, or nil: while a
// database may be older than what it answered, nobody is told of it.
func (s *Service) NewRunner(link Link, log *slog.Logger, hold func() error) *Runner {
	return &Runner{service: s, link: link, log: log, hold: hold, servers: map[joinery.JoinServerID]*turn{}}
}

// pollEvery is how often receipts are asked for while something waits for them, and
// new orders are looked for.
const pollEvery = 30 * time.Second

// hurry has the runner look at once.
func (s *Service) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (r *Runner) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		r.turn(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.service.wake:
		}
	}
}

// turn asks each Join Server that is due.
func (r *Runner) turn(ctx context.Context) {
	if r.hold != nil && r.hold() != nil {
		return // which is told elsewhere
	}
	list, err := r.service.store.JoinServers(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("orders to rekey cannot be looked at now", "error", err)
		}
		return
	}
	for _, j := range list {
		t := r.servers[j.ID]
		if t == nil {
			t = &turn{}
			r.servers[j.ID] = t
		}
		if j.URL == "" || r.service.now().Before(t.next) || ctx.Err() != nil {
			continue
		}
		asked, err := r.service.Pass(ctx, r.link, j)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.calls[1].Add(1)
			t.failed++
			wait := backoff(t.failed)
			t.next = r.service.now().Add(wait/2 + rand.N(wait/2))
			r.log.Warn("a Join Server could not be asked", "server", j.Name, "tries", t.failed, "error", err)
		default:
			if asked {
				r.calls[0].Add(1)
			}
			t.failed, t.next = 0, time.Time{}
		}
	}
}

// Calls tells how many turns with Join Servers went well, and how many did not.
func (r *Runner) Calls() (well, failed uint64) { return r.calls[0].Load(), r.calls[1].Load() }

// Passages counts orders by how far their hand-over has come.
func (r *Runner) Passages(ctx context.Context) (map[joinery.PassageState]int, error) {
	return r.service.store.PassageCounts(ctx)
}

// Pass has one turn with a Join Server: offers what is due, and reads the receipts
// that there are where something waits for them. It tells whether there was
// anything to ask.
func (s *Service) Pass(ctx context.Context, link Link, to joinery.JoinServer) (asked bool, err error) {
	for {
		any, err := s.offerDue(ctx, link, to)
		if err != nil {
			return true, err
		}
		if !any {
			break
		}
		asked = true
	}
	_, waits, err := s.store.NextPassage(ctx, to.ID)
	for more := waits; more && err == nil; {
		asked = true
		if to, err = s.server(ctx, to.ID); err != nil { // how far they were read
			return asked, err
		}
		more, err = s.readReceipts(ctx, link, to)
	}
	return asked, err
}
