package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"joinery/internal/api"
	"joinery/internal/config"
	"joinery/internal/handover"
	"joinery/internal/interop"
	"joinery/internal/refusal"
	"joinery/internal/store"
)

// core is what stands on the open database: rules, doors, and the taps through
// which the doors get connections. A Program has one, and makes another only to
// go on after a successor took the database and failed.
type core struct {
	log      *slog.Logger
	holders  holders
	refusals *refusal.Recorder
	interop  *interop.Server
	api      *api.Server
	ops      *ops
	opsHTTP  *http.Server

	joins    *handover.Gate
	calls    *handover.Gate
	retiring atomic.Bool // each connection of the API ends with its next answer
	taps     map[string]*handover.Tap
}

// Bounds of waiting at a gate. A join has the time in which it must have an
// answer anyway; people at the API can wait for a start.
const callPatience = 30 * time.Second

// newCore builds everything on h, which stays the caller's to close when this
// fails.
func newCore(ctx context.Context, c config.Config, h holders, cert *certificate, log *slog.Logger) (*core, error) {
	k := &core{
		log: log, holders: h,
		joins: handover.NewGate(c.Limits.AnswerTimeout), calls: handover.NewGate(callPatience),
		taps: map[string]*handover.Tap{},
	}
	registry := newRegistry()
	k.refusals = refusal.NewRecorder(h.db, log)
	rules, err := newRules(ctx, h, k.refusals, log, registry)
	if err != nil {
		return nil, err
	}
	if k.interop, err = newInterop(c, rules, k.refusals, cert, k.joins, log, registry); err != nil {
		return nil, err
	}
	if k.api, err = newAPI(h, rules, k.aroundAPI, log, registry); err != nil {
		return nil, err
	}
	k.ops = &ops{checks: h.checks(), gatherer: registry}
	k.opsHTTP = &http.Server{
		Handler: k.ops.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return k, nil
}

// aroundAPI is the gate of the management API.
func (k *core) aroundAPI(here http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere, err := k.calls.Enter(r.Context())
		if k.retiring.Load() {
			w.Header().Set("Connection", "close")
		}
		switch {
		case err != nil:
			http.Error(w, "the server is being started anew; try again", http.StatusServiceUnavailable)
		case elsewhere != nil:
			elsewhere.ServeHTTP(w, r)
		default:
			defer k.calls.Leave()
			here.ServeHTTP(w, r)
		}
	})
}

// serve opens the doors on sockets. fail is told why a door does not serve any
// more, unless that was asked for.
func (k *core) serve(sockets []handover.Socket, running *sync.WaitGroup, fail func(error)) {
	doors := map[string]struct {
		what  string
		serve func(net.Listener) error
	}{
		socketInterop:  {"interop listener", k.interop.Serve},
		socketOperator: {"operator socket", k.api.Serve},
		socketAPI:      {"API listener", k.api.Serve},
		socketOps:      {"monitoring listener", k.serveOps},
	}
	for _, s := range sockets {
		door, ok := doors[s.Name]
		if !ok {
			continue
		}
		tap := handover.NewTap(s.Listener)
		k.taps[s.Name] = tap
		running.Go(func() {
			if err := door.serve(tap); err != nil {
				fail(fmt.Errorf("%s: %w", door.what, err))
			}
		})
	}
}

func (k *core) serveOps(l net.Listener) error {
	if err := k.opsHTTP.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// shut accepts nothing more on the named sockets, or on all; open undoes it.
func (k *core) shut(names ...string) error {
	return k.eachTap((*handover.Tap).Shut, names)
}

func (k *core) open(names ...string) error {
	return k.eachTap((*handover.Tap).Open, names)
}

func (k *core) eachTap(do func(*handover.Tap) error, names []string) error {
	if len(names) == 0 {
		names = socketNames
	}
	var errs []error
	for _, name := range names {
		if tap := k.taps[name]; tap != nil {
			errs = append(errs, do(tap))
		}
	}
	return errors.Join(errs...)
}

// retire ends each connection with its next answer.
func (k *core) retire() {
	k.interop.Retire(true)
	k.retiring.Store(true)
}

// relayTo has another server answer what still comes, and retires this one.
func (k *core) relayTo(joins, calls http.Handler) {
	k.retire()
	k.joins.Open(joins)
	k.calls.Open(calls)
}

// poll is how often linger looks.
const poll = 10 * time.Millisecond

// linger waits until every connection has had its last answer, or ended, but no
// longer than d. Connections of the API count where all is set.
func (k *core) linger(ctx context.Context, d time.Duration, all bool) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	look := time.NewTicker(poll)
	defer look.Stop()
	for k.interop.Connections() > 0 || all && k.api.Connections() > 0 {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// end closes the doors after requests in flight, which ctx cuts off. Monitoring
// goes last, so that it can see the rest stop.
func (k *core) end(ctx context.Context) error {
	var joins, calls error
	var doors sync.WaitGroup
	doors.Go(func() { joins = k.interop.Shutdown(ctx) })
	doors.Go(func() { calls = k.api.Shutdown(ctx) })
	doors.Wait()
	if err := k.opsHTTP.Shutdown(ctx); err != nil {
		_ = k.opsHTTP.Close()
	}
	return errors.Join(joins, calls)
}

// close gives the database back.
func (k *core) close() error {
	k.refusals.Close() // writes what it has
	return k.holders.db.Close()
}

// reopen opens the database again for a Program whose successor failed with it.
func (p *Program) reopen(ctx context.Context) (*core, error) {
	ctx, cancel := context.WithTimeout(ctx, reopenTimeout)
	defer cancel()
	db, err := openDatabase(ctx, p.config.Database, true, p.log)
	if err != nil {
		return nil, err
	}
	return p.build(ctx, db)
}

// build makes the core on db, which it closes when it fails.
func (p *Program) build(ctx context.Context, db *store.DB) (*core, error) {
	k, err := newCore(ctx, p.config, holders{db: db, keys: p.keys}, p.cert, p.log)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return k, nil
}
