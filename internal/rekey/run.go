package rekey

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
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
	settled bool // what earlier runs left of pins is ended
	warned  bool // that it could not be
}

// turn is when a Join Server is asked again: after failed tries, or after so long
// without news.
type turn struct {
	failed uint32
	quiet  time.Duration
	next   time.Time
}

// NewRunner makes a Runner. hold tells why nothing may be done now, or nil: while a
// database may be older than what it answered, nobody is told of it.
func (s *Service) NewRunner(link Link, log *slog.Logger, hold func() error) *Runner {
	return &Runner{service: s, link: link, log: log, hold: hold, servers: map[joinery.JoinServerID]*turn{}}
}

// Bounds of how often receipts are asked for while something waits for them: at
// first often, then ever more rarely. New orders are looked for every maxQuiet.
const (
	minQuiet = time.Second
	maxQuiet = 30 * time.Second
)

// hurry has the runner look at once.
func (s *Service) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends: it arms the devices of batches, and asks Join Servers,
// neither of which waits for the other.
func (r *Runner) Run(ctx context.Context) {
	var batches sync.WaitGroup
	batches.Go(func() { r.service.workBatches(ctx, r.log, r.hold) })
	defer batches.Wait()
	for {
		r.turn(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.pause()):
		case <-r.service.wake:
			for _, t := range r.servers {
				t.quiet = 0
				if t.failed == 0 {
					t.next = time.Time{}
				}
			}
		}
	}
}

// pause is until somebody is due.
func (r *Runner) pause() time.Duration {
	pause := maxQuiet
	for _, t := range r.servers {
		if !t.next.IsZero() {
			pause = min(pause, max(t.next.Sub(r.service.now()), minQuiet/10))
		}
	}
	return pause
}

// turn asks each Join Server that is due.
func (r *Runner) turn(ctx context.Context) {
	if r.hold != nil && r.hold() != nil {
		return // which is told elsewhere
	}
	r.settlePins(ctx)
	if err := r.service.expireParked(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("what other Join Servers handed over and nobody accepted cannot be looked at now", "error", err)
	}
	list, err := r.service.store.JoinServers(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("orders to rekey cannot be looked at now", "error", err)
		}
		return
	}
	known := r.servers
	r.servers = map[joinery.JoinServerID]*turn{} // without those that were unpinned
	for _, j := range list {
		t := known[j.ID]
		if t == nil {
			t = &turn{}
		}
		r.servers[j.ID] = t
	}
	for _, j := range list {
		t := r.servers[j.ID]
		if j.URL == "" || r.service.now().Before(t.next) || ctx.Err() != nil {
			continue
		}
		went, err := r.service.Pass(ctx, r.link, j)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.calls[1].Add(1)
			t.failed++
			var spread [1]byte   // so that not all servers ask at once
			rand.Read(spread[:]) // never fails (crypto/rand)
			wait := backoff(t.failed)
			t.next = r.service.now().Add(wait/2 + wait/512*time.Duration(spread[0]))
			r.log.Warn("a Join Server could not be asked", "server", j.Name, "tries", t.failed, "error", err)
			continue
		}
		if went.Asked {
			r.calls[0].Add(1)
		}
		t.failed, t.next = 0, time.Time{}
		switch {
		case !went.Waits:
			t.quiet = 0
		case went.News:
			t.quiet = minQuiet
		default:
			t.quiet = min(max(2*t.quiet, minQuiet), maxQuiet)
		}
		if went.Waits {
			t.next = r.service.now().Add(t.quiet)
		}
	}
}

// settlePins ends what a server that was killed, or had no database, left of pins: once,
// and in each turn until it went well.
func (r *Runner) settlePins(ctx context.Context) {
	if r.settled {
		return
	}
	err := r.service.settlePins(ctx, "server")
	r.settled = err == nil
	if err != nil && ctx.Err() == nil && !r.warned {
		r.warned = true
		r.log.Warn("what pinned Join Servers that were removed or changed leave cannot be ended now; it is tried again with every turn", "error", err)
	}
}

// Calls tells how many turns with Join Servers went well, and how many did not.
func (r *Runner) Calls() (well, failed uint64) { return r.calls[0].Load(), r.calls[1].Load() }

// Passages counts orders by how far their hand-over has come.
func (r *Runner) Passages(ctx context.Context) (map[joinery.PassageState]int, error) {
	return r.service.store.PassageCounts(ctx)
}

// Turn is what a turn with a Join Server was.
type Turn struct {
	Asked bool // there was something to ask
	News  bool // and it went on
	Waits bool // something there waits still
}

// Pass has one turn with a Join Server: offers what is due, and reads the receipts
// that there are where something waits for them.
func (s *Service) Pass(ctx context.Context, link Link, to joinery.JoinServer) (t Turn, err error) {
	for more := true; more; {
		if more, err = s.offerDue(ctx, link, to); err != nil {
			return t, err
		}
		t.Asked, t.News = t.Asked || more, t.News || more
	}
	_, waits, err := s.store.NextPassage(ctx, to.ID)
	for page, more := 0, waits; more && err == nil && page < maxPages; page++ {
		t.Asked = true
		before := to.Cursor
		if to, err = s.server(ctx, to.ID); err != nil { // how far they were read
			return t, err
		}
		t.News = t.News || to.Cursor != before
		more, err = s.readReceipts(ctx, link, to)
	}
	if err == nil && waits {
		before := to.Cursor
		if to, err = s.server(ctx, to.ID); err == nil {
			t.News = t.News || to.Cursor != before
			_, t.Waits, err = s.store.NextPassage(ctx, to.ID)
		}
	}
	return t, err
}
