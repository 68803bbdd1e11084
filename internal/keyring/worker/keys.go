package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/remote"
)

// Options say which worker to start, and when to replace it.
type Options struct {
	// Program is the worker's program, Args what it is called with, Env what it
	// finds in its environment besides the server's.
	Program string
	Args    []string
	Env     []string
	// Config is what the worker reads from its standard input. It is asked anew at
	// each start, and holds no secret.
	Config []byte
	// MaxResident is how much memory a worker may have, in bytes, before it is
	// replaced; 0 is any.
	MaxResident int64
	// Locked lets Start succeed where the token refuses the PIN: every verb fails
	// then, until Reopen. A service that ended instead would be started again by its
	// manager, and try the PIN again.
	Locked bool
	// Log is where what happens to workers is told; nil is nowhere.
	Log *slog.Logger

	every time.Duration // between looks at a worker; tests hurry
}

// Times of the watch.
const (
	lookEvery    = 2 * time.Second
	lookTimeout  = 2 * time.Second
	patience     = 2 * time.Second // of a verb while no worker serves
	youngest     = 10 * time.Second
	shortestWait = 100 * time.Millisecond
	longestWait  = 30 * time.Second
	longestOften = 500 * time.Millisecond // where workers open well, and then end
	maxMisses    = 3
)

// Keys is a keyring in a worker. It is safe for concurrent use.
type Keys struct {
	opt     Options
	log     *slog.Logger
	stats   stats
	current atomic.Pointer[process] // nil while none serves
	orders  chan order
	ended   chan struct{} // closed when the watch has ended
	leaving sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when any of this changes
	info    remote.Info   // of the worker that served last
	refused error         // the token refused the PIN: nothing is started
	failure error         // why no worker serves now
	closed  bool
	admit   func(context.Context, []keyring.Master) error
}

var _ keyring.Verbs = (*Keys)(nil)

// order is something that somebody wants of the watch.
type order struct {
	what what
	done chan error // takes the outcome; nil where nobody asks
}

type what int

const (
	toReplace what = iota // the worker by another
	toReopen              // the token, also where it refused the PIN
	toStop                // since the token refused the PIN in the worker's own try
	toEnd
)

// Start starts a worker and waits until it serves.
func Start(ctx context.Context, o Options) (*Keys, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.every == 0 {
		o.every = lookEvery
	}
	k := &Keys{
		opt: o, log: o.Log, orders: make(chan order), ended: make(chan struct{}), changed: make(chan struct{}),
	}
	p, err := start(ctx, &k.opt)
	switch {
	case err == nil:
		k.install(p)
	case errors.Is(err, keyring.ErrPIN) && o.Locked:
		k.refuse(err)
	default:
		return nil, err
	}
	go k.watch()
	return k, nil
}

// install lets p serve.
func (k *Keys) install(p *process) {
	info := p.Info()
	k.log.Info("keyring opened", "backend", info.Backend, "token", info.Token, "process", p.pid(),
		"masters", len(info.Masters), "took", time.Since(p.started).String())
	for _, c := range info.Custody {
		k.log.Info("custody", "keys", c.Origin.String(), "profile", c.Profile, "level", c.Level.String(), "served", c.Served, "why", c.Why)
	}
	k.change(func() {
		k.info, k.failure = info, nil
		k.current.Store(p)
	})
}

// refuse notes that the token refused the PIN.
func (k *Keys) refuse(err error) {
	k.log.Error("the token refused the PIN: it is not tried again, since tokens lock themselves after a few tries; "+
		"put the right one in place, then send SIGHUP, or start the server anew", "error", err)
	k.change(func() { k.refused = fmt.Errorf("%w; put the right one in place, then send SIGHUP", err) })
}

// change changes what others may wait for.
func (k *Keys) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

// serving gives the worker to ask, and waits for one where there is none, but not
// long. not is one that will answer no more.
func (k *Keys) serving(ctx context.Context, not *process) (*process, error) {
	if p := k.current.Load(); p != nil && p != not {
		return p, nil
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		k.mu.Lock()
		p, refused, failure, closed, changed := k.current.Load(), k.refused, k.failure, k.closed, k.changed
		k.mu.Unlock()
		switch {
		case closed:
			return nil, keyring.ErrClosed
		case p != nil && p != not:
			return p, nil
		case p == nil && refused != nil:
			return nil, fmt.Errorf("%w: %w", keyring.ErrToken, refused)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			if failure == nil {
				failure = errors.New("its process is being started")
			}
			return nil, fmt.Errorf("%w: %w", keyring.ErrToken, failure)
		}
	}
}

// maxTries is how often a verb is asked whose worker ends under it. What a worker
// died of may be the verb itself.
const maxTries = 2

// do asks a worker for a verb. Verbs change nothing, so one whose worker ended
// under it is asked again of the next.
func (k *Keys) do(ctx context.Context, verb remote.Verb, ask func(*remote.Client) error) error {
	began := time.Now()
	err := k.ask(ctx, ask)
	k.stats.note(verb, time.Since(began), err)
	if err != nil && (errors.Is(err, keyring.ErrToken) || errors.Is(err, keyring.ErrLimit)) {
		return joinery.WrapError(joinery.CodeUnavailable, err, "the keys cannot be used right now; try again")
	}
	return err
}

func (k *Keys) ask(ctx context.Context, ask func(*remote.Client) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var gone *process
	for tries := 1; ; {
		p, err := k.serving(ctx, gone)
		if err != nil {
			return err
		}
		err = ask(p.Client)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, remote.ErrRetired): // it was not begun
		case errors.Is(err, remote.ErrLost) && tries < maxTries:
			tries++
		case errors.Is(err, keyring.ErrPIN):
			go func() { _ = k.order(toStop, nil) }() // whoever closes the keys stops it, too
			return fmt.Errorf("%w: %w", keyring.ErrToken, err)
		default:
			return err
		}
		gone = p
	}
}

// order gives the watch an order; ErrClosed where there is no watch any more.
func (k *Keys) order(w what, done chan error) error {
	select {
	case k.orders <- order{w, done}:
		return nil
	case <-k.ended:
		return keyring.ErrClosed
	}
}

// Replace starts another worker in place of the one that serves, and lets that
// one finish what it has. Where no other can be started the old one stays.
func (k *Keys) Replace(ctx context.Context) error { return k.await(ctx, toReplace) }

// Reopen opens the token anew: it tries a PIN that was refused once more, and puts
// another worker in the place of one that serves, which sees what came into the token
// meanwhile. Where no other can be started the old one stays.
func (k *Keys) Reopen(ctx context.Context) error { return k.await(ctx, toReopen) }

func (k *Keys) await(ctx context.Context, w what) error {
	done := make(chan error, 1)
	if err := k.order(w, done); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Admit has f look at the master keys of the worker that serves, and of each that
// is to serve after it: one that f refuses does not.
func (k *Keys) Admit(ctx context.Context, f func(context.Context, []keyring.Master) error) error {
	k.mu.Lock()
	k.admit = f
	masters, serves := k.info.Masters, k.current.Load() != nil
	k.mu.Unlock()
	if !serves {
		return nil
	}
	return f(ctx, masters)
}

// Refused is why nothing is tried any more until Reopen; nil where all is tried.
func (k *Keys) Refused() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refused
}

// Close waits for the verbs in flight and ends the worker. Later verbs fail with
// keyring.ErrClosed.
func (k *Keys) Close() error {
	k.change(func() { k.closed = true })
	_ = k.order(toEnd, nil)
	<-k.ended
	k.leaving.Wait()
	return nil
}
