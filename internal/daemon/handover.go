package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"joinery/internal/api"
	"joinery/internal/handover"
)

// reopenTimeout is how long a server waits for the database that a failed
// successor may still hold.
const reopenTimeout = 15 * time.Second

// reception is where successors ask for the work.
type reception struct {
	tap   *handover.Tap
	ready chan *handover.Successor // who can take over now
	close func()
}

// openReception talks to successors while this server goes on, one after the
// other.
func (p *Program) openReception(ctx context.Context, running *sync.WaitGroup) *reception {
	ctx, cancel := context.WithCancel(ctx)
	r := &reception{ready: make(chan *handover.Successor), close: cancel}
	for _, s := range p.sockets {
		if s.Name == socketHandover {
			r.tap = handover.NewTap(s.Listener)
		}
	}
	context.AfterFunc(ctx, func() { _ = r.tap.Close() })
	running.Go(func() {
		for {
			conn, err := r.tap.Accept()
			if err != nil {
				return
			}
			p.meet(ctx, conn, r.ready)
		}
	})
	return r
}

// meet talks to one who connected, until it is ready or gone.
func (p *Program) meet(ctx context.Context, conn net.Conn, ready chan<- *handover.Successor) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return
	}
	s, err := handover.Meet(ctx, unix, databaseName(p.config.Database), p.giveSockets)
	if err != nil {
		p.log.Warn("a successor did not get as far as taking over; this server goes on", "error", err)
		return
	}
	select {
	case ready <- s:
	case <-ctx.Done():
		_ = s.Refuse("it ends, or has handed over to another")
	}
}

// handOver gives the work to a successor. gone tells that it has it, and that
// this server has ended but for Close. Else this server goes on, or fails.
func (p *Program) handOver(ctx context.Context, s *handover.Successor, running *sync.WaitGroup, fail func(error)) (gone bool, err error) {
	defer func() { _ = s.Close() }()
	p.log.Info("handing over", "successor", s.PID)
	k, began := p.core, time.Now()
	if err := p.reception.tap.Shut(); err != nil {
		return false, err
	}
	phases := phases{last: began}
	relay, yielded, err := p.letGo(ctx, s, &phases)
	switch {
	case err == nil:
		p.reception.close()
	case !yielded:
		p.log.Warn("the hand-over failed before the database was let go; this server goes on", "error", err)
		_ = s.Refuse("it could not let go of the database; its log says why")
		k.joins.Open(nil)
		k.calls.Open(nil)
		return false, errors.Join(k.open(), p.reception.tap.Open())
	default:
		p.log.Warn("the successor failed with the database; this server takes it back", "error", err)
		return false, errors.Join(p.takeBack(ctx, running, fail), p.reception.tap.Open())
	}
	if relay != nil {
		defer func() { _ = relay.Close() }()
		k.relayTo(relay.Handler(socketInterop, nil), relay.Handler(socketAPI, api.SocketUser))
	} else {
		k.retire()
	}
	p.health.Store(&ops{}) // nothing is left here that a restart would mend
	p.log.Info("handed over", "successor", s.PID, "took", time.Since(began).String(), "phases", phases.String())
	p.leaveSockets()
	if err := notify(fmt.Sprintf("MAINPID=%d", s.PID)); err != nil {
		p.log.Warn("the service manager does not know of the successor", "error", err)
	}
	return true, p.takeLeave(ctx)
}

// letGo does what a successor needs before it can serve, and waits until it
// does. yielded tells, with an error, that the database is closed.
func (p *Program) letGo(ctx context.Context, s *handover.Successor, took *phases) (_ *handover.Relay, yielded bool, err error) {
	k := p.core
	if !s.Yield { // both serve, on one database
		return nil, false, k.shut()
	}
	// People first: an import may take its time, while joins go on.
	if err := k.shut(socketOperator, socketAPI, socketAPITLS); err != nil {
		return nil, false, err
	}
	calls, cancel := context.WithTimeout(ctx, p.config.Limits.DrainTimeout)
	defer cancel()
	if err := k.calls.Shut(calls); err != nil {
		p.log.Warn("requests to the management API take too long and will be cut off")
	}
	refusals, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	k.refusals.Sync(refusals) // so that little is left for later
	took.mark("calls")
	if err := k.shut(); err != nil {
		return nil, false, err
	}
	joins, cancel := context.WithTimeout(ctx, p.config.Limits.AnswerTimeout)
	defer cancel()
	if err := k.joins.Shut(joins); err != nil {
		return nil, false, fmt.Errorf("wait for joins in flight: %w", err)
	}
	took.mark("joins")
	p.letGoAt(time.Now())
	if err := k.close(); err != nil {
		return nil, true, fmt.Errorf("close the database: %w", err)
	}
	took.mark("close")
	// From here on ctx has no say: without an owner the database stays for the
	// one or the other.
	if err := s.Yielded(context.WithoutCancel(ctx), func() { p.letGoAt(time.Now()) }); err != nil {
		return nil, true, fmt.Errorf("wait for the successor to serve: %w", err)
	}
	took.mark("successor")
	relay, err := s.Relay(ctx)
	return relay, true, err
}

// letGoAt tells the watchdog that the database is let go of, or that whoever
// takes it gave a sign of life.
func (p *Program) letGoAt(t time.Time) {
	p.letting.Store(&t)
	p.health.Store(nil)
}

// phases tells how long each part of a hand-over took.
type phases struct {
	last time.Time
	text []string
}

func (p *phases) mark(name string) {
	now := time.Now()
	p.text = append(p.text, name+" "+now.Sub(p.last).Round(100*time.Microsecond).String())
	p.last = now
}

func (p *phases) String() string { return strings.Join(p.text, ", ") }

// takeLeave answers on the connections that are left, through the successor, and
// ends with the last of them. Each ends with its next answer; one that has no
// next request ends as any idle one does, so that no client sees a difference.
func (p *Program) takeLeave(ctx context.Context) error {
	k, limits := p.core, p.config.Limits
	_ = k.opsHTTP.Close() // monitoring asks again
	if exclusive(p.config.Database) {
		// Requests that took too long were given up, but may not have noticed.
		left, cancel := context.WithTimeout(ctx, limits.AnswerTimeout)
		defer cancel()
		if err := k.calls.Emptied(left); err != nil {
			p.log.Warn("requests to the management API are cut off")
		}
		if err := p.keys.Close(); err != nil {
			return err
		}
	}
	k.linger(ctx, limits.IdleTimeout+limits.RequestTimeout)
	p.lingerRelayed(ctx)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), limits.DrainTimeout)
	defer cancel()
	return k.end(last)
}

// lingerRelayed waits for what a predecessor of this server still relays.
func (p *Program) lingerRelayed(ctx context.Context) {
	if p.relayed == nil {
		return
	}
	select {
	case <-p.relayed:
	case <-ctx.Done():
	}
}

// takeBack goes on after a successor failed with the database: everything that
// stands on it is made anew, and what waits is answered there.
func (p *Program) takeBack(ctx context.Context, running *sync.WaitGroup, fail func(error)) error {
	old := p.core
	next, err := p.reopen(ctx)
	if err != nil {
		old.relayTo(unavailable, unavailable)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.Limits.DrainTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("take the database back from a successor that failed: %w", err), old.end(last))
	}
	p.core = next
	p.health.Store(next.ops)
	old.relayTo(next.answerHere(), next.api.Handler())
	_ = old.opsHTTP.Close()
	next.serve(p.sockets, running, fail)
	running.Go(func() { endWithDatabase(ctx, next.holders, fail) })
	running.Go(func() { next.followJoins(ctx) })
	running.Go(func() { next.lookAfterTerms(ctx) })
	running.Go(func() { next.runExports(ctx, p.custody) })
	running.Go(func() { next.runHandovers(ctx) })
	running.Go(func() {
		limits := p.config.Limits
		old.linger(ctx, limits.IdleTimeout+limits.RequestTimeout)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), limits.DrainTimeout)
		defer cancel()
		if err := old.end(last); err != nil {
			p.log.Warn("requests on connections from before a failed hand-over were cut off", "error", err)
		}
	})
	return nil
}

// reopen makes another core, on the database that a successor left.
func (p *Program) reopen(ctx context.Context) (*core, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reopenTimeout)
	defer cancel()
	k, err := newCore(p.config, p.log, p.now)
	if err != nil {
		return nil, err
	}
	if err := p.takeDatabase(ctx, k, true); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

// unavailable answers where nobody can.
var unavailable = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the server could not be started anew", http.StatusServiceUnavailable)
})

// answerHere answers joins that came to another core of this process.
func (k *core) answerHere() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.interop.ServeRelayed(w, r, r.TLS.PeerCertificates)
	})
}

// answerRelayed answers what the predecessor relays.
func (p *Program) answerRelayed() http.Handler {
	k := p.core
	calls := k.aroundAPI(k.api.Handler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := handover.ReadRelayed(r)
		switch {
		case err != nil:
			http.Error(w, "relayed wrongly", http.StatusBadGateway)
		case m.Door == socketInterop:
			k.interop.ServeRelayed(w, r, m.Chain)
		default:
			calls.ServeHTTP(w, api.AsPresented(api.AsSocketUser(r, m.User), m.Chain))
		}
	})
}
