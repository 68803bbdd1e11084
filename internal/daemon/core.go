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
	"joinery/internal/attest"
	"joinery/internal/config"
	"joinery/internal/events"
	"joinery/internal/export"
	"joinery/internal/handover"
	"joinery/internal/interop"
	"joinery/internal/keyring"
	"joinery/internal/refusal"
	"joinery/internal/rekey"
	"joinery/internal/rekeylink"
	"joinery/internal/service"
	"joinery/internal/ttjs"

	"github.com/prometheus/client_golang/prometheus"
)

// core is what stands on the open database: rules, doors, and the taps through
// which the doors get connections. A Program has one, and makes another only to
// go on after a successor took the database and failed.
type core struct {
	log      *slog.Logger
	now      func() time.Time
	registry *prometheus.Registry
	holders  holders
	refusals *refusal.Recorder
	events   *events.Runner
	service  *service.Service
	attest   *attest.Service
	export   *export.Service
	passing  *rekey.Runner
	link     *rekeylink.Client
	// serving ends when the core gives its database back; see lookAfterTerms.
	serving    context.Context //nolint:containedctx // a life, and no request
	endServing context.CancelFunc
	interop    *interop.Server
	api        *api.Server
	v2         *ttjs.Server
	apiCert    *certificate
	ops        *ops
	opsHTTP    *http.Server

	joins    *handover.Gate
	calls    *handover.Gate
	retiring atomic.Bool // each connection of the API ends with its next answer
	cutOff   atomic.Bool // joins were in flight when it ended, and may be committed yet
	taps     map[string]*handover.Tap
}

// Bounds of waiting at a gate. A join has the time in which it must have an
// answer anyway; people at the API can wait for a start.
const callPatience = 30 * time.Second

// newCore makes what needs no database yet.
func newCore(c config.Config, log *slog.Logger, now func() time.Time) (_ *core, err error) {
	k := &core{
		log: log, now: now, registry: newRegistry(),
		joins: handover.NewGate(c.Limits.AnswerTimeout), calls: handover.NewGate(callPatience),
		taps: map[string]*handover.Tap{},
	}
	k.api, err = newAPI(c.API, k.aroundAPI, log, k.registry)
	return k, err
}

// build makes the rest on h, which is the core's from now on, also when this
// fails.
func (k *core) build(ctx context.Context, c config.Config, h holders, certs certificates) error {
	k.holders = h
	k.refusals = refusal.NewRecorder(h.db, k.log)
	if err := h.noteMasters(ctx); err != nil {
		return err
	}
	if err := noteKeys(ctx, h.db, h.keys.Generations()); err != nil {
		return err
	}
	rules, err := newRules(ctx, c, h, k.refusals, k.log, k.now, k.registry)
	if err != nil {
		return err
	}
	k.service = rules.service
	k.attest = rules.attest
	k.serving, k.endServing = context.WithCancel(context.Background())
	if k.events, err = startEvents(ctx, c, h, rules.events, rules.custody); err != nil {
		return err
	}
	k.export = rules.export
	if k.interop, err = newInterop(c, rules, k.refusals, certs.interop, k.joins, k.log, k.now, k.registry); err != nil {
		return err
	}
	if k.v2, err = newV2(h, rules, k.api, k.refusals, k.log, k.now); err != nil {
		return err
	}
	k.apiCert = certs.api
	if err := k.buildHandovers(rules, certs); err != nil {
		return err
	}
	k.api.Attach(services(h, rules, k.refusals, k.v2, rekeylink.NewDoor(rules.rekey, k.api, k.log, k.now)))
	k.ops = &ops{checks: h.checks(), gatherer: k.registry, keysHint: h.keysHint}
	k.ops.noteMasters = func(ctx context.Context, list []keyring.Master) error { return noteMasters(ctx, h.db, list) }
	k.ops.noteKeys = func(ctx context.Context, g keyring.Generations) error { return noteKeys(ctx, h.db, g) }
	k.opsHTTP = &http.Server{
		Handler: k.ops.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
	}
	return nil
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
		socketAPITLS:   {"API's TLS listener", func(l net.Listener) error { return k.api.ServeTLS(l, k.apiCert.get) }},
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

// followJoins keeps listings by last join current, until ctx ends or the database
// is another server's.
func (k *core) followJoins(ctx context.Context) {
	k.holders.db.FollowJoins(ctx, func(err error) {
		k.log.Warn("listings by last join do not follow the joins now", "error", err)
	})
}

// lookAfterTerms reminds owners of the ends of service terms, watches the clock, and
// tells owners what ended of what their devices have shown, until ctx ends or the database is given back.
func (k *core) lookAfterTerms(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.serving, cancel)()
	var other sync.WaitGroup
	other.Go(func() { k.attest.Run(ctx) })
	k.service.Run(ctx)
	other.Wait()
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
// longer than d.
func (k *core) linger(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	look := time.NewTicker(poll)
	defer look.Stop()
	for k.interop.Connections() > 0 || k.api.Connections() > 0 {
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
	if joins != nil {
		k.cutOff.Store(true)
	}
	if err := k.opsHTTP.Shutdown(ctx); err != nil {
		_ = k.opsHTTP.Close()
	}
	return errors.Join(joins, calls)
}

// close gives the database back, if it was there.
func (k *core) close() error {
	if k.holders.db == nil {
		return nil
	}
	if k.endServing != nil {
		k.endServing()
	}
	k.refusals.Close() // writes what it has
	if k.events != nil {
		k.events.Close(!k.cutOff.Load()) // after the last event
	}
	if k.link != nil {
		k.link.Close()
	}
	var v2 error
	if k.v2 != nil {
		v2 = k.v2.Close()
	}
	return errors.Join(v2, k.holders.db.Close())
}

// takeDatabase makes k complete. With wait it waits for the lock of the database.
func (p *Program) takeDatabase(ctx context.Context, k *core, wait bool) error {
	db, err := p.openDatabase(ctx, wait)
	if err != nil {
		return err
	}
	return k.build(ctx, p.config, holders{db: db, keys: p.keys}, p.certs)
}
