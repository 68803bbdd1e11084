package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"joinery/internal/config"
	"joinery/internal/handover"
	"joinery/internal/keyring"
	"joinery/internal/store"
)

// Options are what a Program is told besides its configuration.
type Options struct {
	// Successor takes over from the server that runs with the same configuration,
	// if there is one. Where nothing is to be taken over but another process holds
	// the database, it waits for that, until the context of Open ends.
	Successor bool
	// Migrate brings a database with an older schema to this program's.
	Migrate bool
	// Upgrade is the command that SIGUSR2 starts as this server's successor; empty
	// is none.
	Upgrade []string
	// Custody is the command that does approved exports, where the configuration
	// says that the server starts it.
	Custody []string
	// Log is where the server reports; nil is nowhere.
	Log *slog.Logger
	// Now is the clock, nil the system's: what is written down, the windows in
	// which something counts, and whether a certificate is valid. Tests set it.
	Now func() time.Time
}

// Program is a server: opened, with its sockets bound, but not yet serving.
type Program struct {
	config  config.Config
	upgrade []string
	custody []string
	migrate bool
	log     *slog.Logger
	now     func() time.Time
	keys    keyring.Verbs
	certs   certificates
	sockets []handover.Socket
	given   given

	// core is replaced, by Run alone, when a successor failed with the database.
	core *core
	// predecessor is there from Open to Run, in a server that takes over; relayed
	// is closed when that one has nothing more to relay.
	predecessor *handover.Predecessor
	relayed     <-chan struct{}
	// reception is where successors of this server ask; nil where that cannot be.
	reception *reception
	// health is what the watchdog looks at; nil while nobody here holds the
	// database, which is since letting.
	health  atomic.Pointer[ops]
	letting atomic.Pointer[time.Time]

	rereading sync.Mutex // the key file, by one at a time

	close  sync.Once
	closed error
}

// Open opens state and keys, and binds every socket, or takes all of it over. c
// must be checked and resolved; see config.Load. What Open opened it closes when
// it fails; a server that was to be taken over then goes on.
func Open(ctx context.Context, c config.Config, o Options) (_ *Program, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Program{config: c, upgrade: o.Upgrade, custody: o.Custody, migrate: o.Migrate, log: o.Log, now: o.Now}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	passed, err := handover.FromServiceManager(socketNames...)
	if err != nil {
		return nil, err
	}
	p.sockets = passed // for Close
	if p.core, err = newCore(c, p.log, p.now); err != nil {
		return nil, err
	}
	if o.Successor {
		return p, p.openSuccessor(ctx, passed)
	}
	return p, p.open(ctx, passed)
}

// open takes the database first: its lock keeps a second server out, before
// anything else is touched.
func (p *Program) open(ctx context.Context, passed []handover.Socket) (err error) {
	db, err := p.openDatabase(ctx, false)
	if err != nil {
		return err
	}
	if err := p.openKeys(ctx); err != nil {
		return errors.Join(err, db.Close())
	}
	if err := p.core.build(ctx, p.config, holders{db: db, keys: p.keys}, p.certs); err != nil {
		return err
	}
	p.sockets, err = bind(p.config, passed)
	return err
}

// openSuccessor takes the database last, when everything else is there, so that
// it is nobody's for a moment only.
func (p *Program) openSuccessor(ctx context.Context, passed []handover.Socket) error {
	if err := p.openKeys(ctx); err != nil {
		return err
	}
	predecessor, inherited, err := handover.Succeed(ctx, p.config.API.HandoverSocket(), databaseName(p.config.Database))
	if errors.Is(err, handover.ErrNobody) {
		p.log.Info("no server to take over from: waiting for the database, if another process holds it")
		if err := p.takeDatabase(ctx, p.core, true); err != nil {
			return err
		}
		// Now, as whoever held the database may have held the addresses.
		p.sockets, err = bind(p.config, passed)
		return err
	}
	if err != nil {
		return err
	}
	p.predecessor = predecessor
	if err := closedKeys(p.keys); err != nil {
		return err // that one has the keys, and goes on
	}
	if p.sockets, err = bind(p.config, append(inherited, passed...)); err != nil {
		return err
	}
	if exclusive(p.config.Database) {
		if err := predecessor.Yield(ctx); err != nil {
			return err
		}
		return p.takeYielded(ctx)
	}
	return p.takeDatabase(ctx, p.core, true)
}

// yieldedTimeout is how long a successor waits for a database that should be free.
var yieldedTimeout = 5 * time.Second

// takeYielded takes the database that the predecessor let go of, or lost when it
// crashed. Another process may have been quicker. That is not waited out, as the
// sockets are in hand: a server that came to life much later, with no more than a
// lock that happens to be free, would take them from whoever serves by then.
func (p *Program) takeYielded(ctx context.Context) error {
	for end := time.Now().Add(yieldedTimeout); ; time.Sleep(yieldedPoll) {
		err := p.takeDatabase(ctx, p.core, false)
		if !errors.Is(err, store.ErrLocked) || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
	}
}

// yieldedPoll is how often it looks.
const yieldedPoll = 10 * time.Millisecond

// openKeys opens what needs no database.
func (p *Program) openKeys(ctx context.Context) (err error) {
	if p.certs, err = newCertificates(p.config, p.now()); err != nil {
		return err
	}
	keys, err := openKeyring(ctx, p.config, p.log, true)
	if err != nil {
		return err // an interface that holds nil is not nil
	}
	p.keys = keys
	return nil
}

// InteropAddr is where networks connect.
func (p *Program) InteropAddr() net.Addr { return p.addrOf(socketInterop) }

// APIAddr is where clients with an API key connect; nil where that is off.
func (p *Program) APIAddr() net.Addr { return p.addrOf(socketAPI) }

// APITLSAddr is where the API speaks TLS; nil where that is off.
func (p *Program) APITLSAddr() net.Addr { return p.addrOf(socketAPITLS) }

// OpsAddr is where monitoring connects; nil where that is off.
func (p *Program) OpsAddr() net.Addr { return p.addrOf(socketOps) }

// Run serves until ctx ends, a door fails or a successor took over, and then lets
// requests in flight finish. It returns nil when it was told to stop, or took
// leave, and everything was answered. Close comes after it. It is called once.
func (p *Program) Run(ctx context.Context) error {
	thriftily()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	fail := func(err error) { stop(failure{err}) }
	var running sync.WaitGroup
	p.core.serve(p.sockets, &running, fail)
	running.Go(func() { endWithDatabase(ctx, p.core.holders, fail) })
	running.Go(func() { p.core.followJoins(ctx) })
	running.Go(func() { p.core.lookAfterTerms(ctx) })
	running.Go(func() { p.core.runExports(ctx, p.custody) })
	running.Go(func() { p.core.runHandovers(ctx) })
	p.health.Store(p.core.ops)
	if err := p.confirm(); err != nil {
		fail(err)
	}
	p.onSignals(ctx, &running)
	p.reception = p.openReception(ctx, &running)
	p.log.Info("serving", "interop", p.describe(socketInterop), "socket", p.config.API.Socket,
		"api", p.describe(socketAPI), "api_tls", p.describe(socketAPITLS), "ops", p.describe(socketOps), "epoch", p.core.holders.db.Epoch(), "version", Version())
	giveBack()
	// Told last: whoever waits for it may connect at once.
	if err := notify("READY=1"); err != nil {
		fail(err)
	}
	running.Go(func() { p.feedWatchdog(ctx) })

	err := p.serveOn(ctx, &running, fail)
	stop(nil)
	running.Wait()
	if f, ok := errors.AsType[failure](context.Cause(ctx)); ok {
		err = errors.Join(f.error, err)
	}
	return err
}

// serveOn waits for the end, whichever comes: being told to stop, or a successor
// that takes over.
func (p *Program) serveOn(ctx context.Context, running *sync.WaitGroup, fail func(error)) error {
	for {
		select {
		case <-ctx.Done():
			return p.drain()
		case s := <-p.reception.ready:
			gone, err := p.handOver(ctx, s, running, fail)
			if gone || err != nil {
				return err
			}
		}
	}
}

// endWithDatabase ends the server when its database takes no more writes: only
// opening it anew helps, which is what a service manager's restart does.
func endWithDatabase(ctx context.Context, h holders, fail func(error)) {
	select {
	case <-ctx.Done():
	case <-h.db.Failed():
		fail(h.db.Failure())
	}
}

// failure is the cause of a stop that nobody asked for.
type failure struct{ error }

// confirm tells the predecessor, if there is one, that this server serves.
func (p *Program) confirm() (err error) {
	if p.predecessor == nil {
		return nil
	}
	p.relayed, err = p.predecessor.Serving(p.answerRelayed(), p.sockets)
	return errors.Join(err, p.predecessor.Close())
}

// lastRequests is how long a server that was told to stop goes on to read from
// connections that are idle: a request may be on its way, and a connection that
// is closed under it fails it. The answer tells the client to use another.
const lastRequests = time.Second

// drain stops: balancers first see /readyz say no, then nothing new is accepted,
// then connections end with their next answer, or when idle, and then what is in
// flight finishes.
func (p *Program) drain() error {
	limits, k := p.config.Limits, p.core
	p.log.Info("stopping", "drain_delay", limits.DrainDelay.String(), "drain_timeout", limits.DrainTimeout.String())
	k.ops.setStopping()
	stopping := notify("STOPPING=1")
	k.retire()
	time.Sleep(limits.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), limits.DrainTimeout)
	defer cancel()
	shut := k.shut(socketInterop, socketOperator, socketAPI, socketAPITLS)
	p.closeSockets(socketOps)
	k.interop.Drain(ctx, lastRequests)
	p.lingerRelayed(ctx)
	if ctx.Err() != nil { // what a predecessor relays may still be on its way
		k.cutOff.Store(true)
	}
	return errors.Join(stopping, shut, k.end(ctx))
}

// onSignals reads the certificates anew at each SIGHUP, and the key file or the token,
// whose PIN it tries again if that was refused; replaces the process that has the keys at each SIGUSR1, and starts a
// successor at each SIGUSR2.
func (p *Program) onSignals(ctx context.Context, running *sync.WaitGroup) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	running.Go(func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				if s == syscall.SIGUSR2 {
					p.startSuccessor()
					continue
				}
				if s == syscall.SIGUSR1 {
					running.Go(func() { p.replaceKeys(ctx) })
					continue
				}
				running.Go(func() { p.rereadKeys(ctx) })
				if err := p.certs.reload(p.now()); err != nil {
					p.log.Error("the old certificate stays in force", "error", err)
					continue
				}
				p.log.Info("certificate read anew")
			}
		}
	})
}

// Close gives everything back: sockets, keys, then the database and its lock. It
// may be called again.
func (p *Program) Close() error {
	p.close.Do(func() {
		var errs []error
		if p.predecessor != nil {
			_ = p.predecessor.Close()
		}
		p.closeSockets("") // closed already where Run ended well
		if p.keys != nil {
			errs = append(errs, p.keys.Close())
		}
		if p.core != nil {
			errs = append(errs, p.core.close())
		}
		p.closed = errors.Join(errs...)
	})
	return p.closed
}
