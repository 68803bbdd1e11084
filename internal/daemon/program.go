package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"joinery/internal/api"
	"joinery/internal/config"
	"joinery/internal/interop"
	"joinery/internal/refusal"
)

// Options are what a Program is told besides its configuration.
type Options struct {
	// Successor waits for the lock of the database, until the context of Open
	// ends, instead of failing while another server holds it.
	Successor bool
	// Log is where the server reports; nil is nowhere.
	Log *slog.Logger
	// Now is the clock, nil the system's: what is written down, the windows in
	// which something counts, and whether a certificate is valid. Tests set it.
	Now func() time.Time
}

// Program is a server: opened, with its listeners bound, but not yet serving.
type Program struct {
	config  config.Config
	log     *slog.Logger
	now     func() time.Time
	holders holders
	cert    *certificate

	interop  *interop.Server
	refusals *refusal.Recorder
	api      *api.Server
	ops      *ops
	opsHTTP  *http.Server

	listeners listeners
	close     sync.Once
	closed    error
}

// listeners are the bound sockets; the TCP ones of api and ops are nil where
// none is configured.
type listeners struct {
	interop, socket, api, ops net.Listener
}

// all gives the listeners that there are.
func (l listeners) all() (list []net.Listener) {
	for _, one := range []net.Listener{l.interop, l.socket, l.api, l.ops} {
		if one != nil {
			list = append(list, one)
		}
	}
	return list
}

// Open takes the lock of the database, opens state and keys, and binds every
// listener. c must be checked and resolved; see config.Load. What Open opened it
// closes when it fails.
func Open(ctx context.Context, c config.Config, o Options) (_ *Program, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Program{config: c, log: o.Log, now: o.Now}
	if p.holders, err = openHolders(ctx, c, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	registry := newRegistry()
	p.refusals = refusal.NewRecorder(p.holders.db, o.Log)
	rules, err := newRules(ctx, p.holders, p.refusals, o, registry)
	if err != nil {
		return nil, err
	}
	if p.cert, err = newCertificate(c.Interop, o.Now()); err != nil {
		return nil, err
	}
	if p.interop, err = newInterop(c, rules, p.refusals, p.cert, o, registry); err != nil {
		return nil, err
	}
	if p.api, err = newAPI(p.holders, rules, o.Log, registry); err != nil {
		return nil, err
	}
	p.ops = &ops{checks: p.holders.checks(), gatherer: registry}
	p.opsHTTP = &http.Server{
		Handler: p.ops.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	p.listeners, err = bind(c)
	return p, err
}

// bind opens every listener, or none.
func bind(c config.Config) (l listeners, err error) {
	defer func() {
		if err != nil {
			for _, bound := range l.all() {
				_ = bound.Close()
			}
			l = listeners{}
		}
	}()
	if l.interop, err = net.Listen("tcp", c.Interop.Address); err != nil {
		return l, fmt.Errorf("interop.address: %w", err)
	}
	if err = c.API.CheckSocket(); err != nil {
		return l, err
	}
	if l.socket, err = api.ListenSocket(c.API.Socket); err != nil {
		return l, err
	}
	if c.API.Address != "" {
		if l.api, err = api.ListenLoopback(c.API.Address); err != nil {
			return l, fmt.Errorf("api.address: %w", err)
		}
	}
	if c.Ops.Address != "" {
		if l.ops, err = net.Listen("tcp", c.Ops.Address); err != nil {
			return l, fmt.Errorf("ops.address: %w", err)
		}
	}
	return l, nil
}

// InteropAddr is where networks connect.
func (p *Program) InteropAddr() net.Addr { return p.listeners.interop.Addr() }

// APIAddr is where clients with an API key connect; nil where that is off.
func (p *Program) APIAddr() net.Addr { return addr(p.listeners.api) }

// OpsAddr is where monitoring connects; nil where that is off.
func (p *Program) OpsAddr() net.Addr { return addr(p.listeners.ops) }

func addr(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

func text(a net.Addr) string {
	if a == nil {
		return "off"
	}
	return a.String()
}

// Run serves until ctx ends or a listener fails, and then lets requests in
// flight finish. It returns nil when it was told to stop and everything was
// answered. Close comes after it. It is called once.
func (p *Program) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	fail := func(err error) { stop(failure{err}) }
	var running sync.WaitGroup
	serve := func(what string, serve func(net.Listener) error, l net.Listener) {
		if l == nil {
			return
		}
		running.Go(func() {
			if err := serve(l); err != nil {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	serve("interop listener", p.interop.Serve, p.listeners.interop)
	serve("operator socket", p.api.Serve, p.listeners.socket)
	serve("API listener", p.api.Serve, p.listeners.api)
	serve("monitoring listener", p.serveOps, p.listeners.ops)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	running.Go(func() { p.reloadOnHangup(ctx, hangup) })
	running.Go(func() { p.endWithDatabase(ctx, fail) })

	p.log.Info("serving", "interop", p.InteropAddr().String(), "socket", p.config.API.Socket,
		"api", text(p.APIAddr()), "ops", text(p.OpsAddr()), "epoch", p.holders.db.Epoch(), "version", Version())
	// Told last: whoever waits for it may connect at once.
	if err := notify("READY=1"); err != nil {
		fail(err)
	}
	<-ctx.Done()
	err := p.drain()
	running.Wait()
	if f, ok := errors.AsType[failure](context.Cause(ctx)); ok {
		err = errors.Join(f.error, err)
	}
	return err
}

// failure is the cause of a stop that nobody asked for.
type failure struct{ error }

// endWithDatabase ends the server when its database takes no more writes: only
// opening it anew helps, which is what a service manager's restart does.
func (p *Program) endWithDatabase(ctx context.Context, fail func(error)) {
	select {
	case <-ctx.Done():
	case <-p.holders.db.Failed():
		fail(p.holders.db.Failure())
	}
}

func (p *Program) serveOps(l net.Listener) error {
	if err := p.opsHTTP.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain stops accepting and waits for requests in flight. Monitoring goes last,
// so that it can see the rest stop.
func (p *Program) drain() error {
	p.log.Info("stopping", "drain_timeout", p.config.Limits.DrainTimeout.String())
	p.ops.setStopping()
	stopping := notify("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Limits.DrainTimeout)
	defer cancel()
	var joins, calls error
	var doors sync.WaitGroup
	doors.Go(func() { joins = p.interop.Shutdown(ctx) })
	doors.Go(func() { calls = p.api.Shutdown(ctx) })
	doors.Wait()
	if err := p.opsHTTP.Shutdown(ctx); err != nil {
		_ = p.opsHTTP.Close()
	}
	return errors.Join(stopping, joins, calls)
}

// reloadOnHangup reads the interop certificate anew at each SIGHUP.
func (p *Program) reloadOnHangup(ctx context.Context, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if err := p.cert.reload(p.now()); err != nil {
				p.log.Error("the old certificate stays in force", "error", err)
				continue
			}
			p.log.Info("certificate read anew")
		}
	}
}

// Close gives everything back: listeners that never served, keys, then the
// database and its lock. It may be called again.
func (p *Program) Close() error {
	p.close.Do(func() {
		for _, l := range p.listeners.all() {
			_ = l.Close() // closed already where Run served it
		}
		p.refusals.Close() // writes what it has
		p.closed = errors.Join(p.holders.keys.Close(), p.holders.db.Close())
	})
	return p.closed
}
