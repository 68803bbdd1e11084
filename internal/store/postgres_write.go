package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"joinery"
)

// Transactions other than joins come one after another, over all servers: each
// first takes this lock, and so finds things as SQLite's one writer does. Joins
// do not take it. What orders them is the version of their key set: a
// transaction that touches a device advances it, and a join that was loaded
// before then loses. A join that commits while such a transaction runs comes
// before it; so whoever reads what joins write (nonces) advances the version
// first, which holds the row until the end.
//
// The lock belongs to this schema: its second number is the table's.
const pgWriterLock = "pg_try_advisory_xact_lock(1248815470, CAST(CAST(to_regclass('joinery_schema') AS oid) AS int))"

// How a transaction waits for those of other servers. It asks again and again,
// because a wait in PostgreSQL looks like a PostgreSQL that hangs.
const (
	writerPoll = 10 * time.Millisecond
	writerWait = 10 * time.Second // longer than any import's
)

// transaction implements engine.
func (e *postgresDB) transaction(ctx context.Context, fn func(*tx) error) error {
	return e.writes.other(ctx, fn)
}

// writeLoop runs the transactions of this server, one by one, until the store
// closes.
func (e *postgresDB) writeLoop() {
	for range e.writes.wake {
		for {
			o, closed := e.writes.takeOther()
			if closed {
				return
			}
			if o == nil {
				break
			}
			err := e.runTransaction(o.run)
			o.result <- err
			if errors.Is(err, errNoContact) {
				e.writes.refuse(err)
			}
		}
	}
}

// takeOther takes the transaction that waits longest.
func (w *waiting) takeOther() (o *otherWrite, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.others) > 0 {
		o, w.others = w.others[0], w.others[1:]
	}
	return o, w.closed
}

// runTransaction runs fn between BEGIN and COMMIT. A COMMIT whose answer is lost
// is an error, although the transaction may be on disk: see write.
func (e *postgresDB) runTransaction(fn func(*tx) error) error {
	return e.using(context.Background(), e.others, pgLimit, func(s *pgSession) (err error) {
		defer func() { err = firstError(err, s.rollback()) }()
		// Plans that were made for empty tables serve an import badly.
		if err := s.script("DISCARD PLANS; BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"); err != nil {
			return err
		}
		if err := firstError(e.lock(s.ctx, s, pgWriterLock), e.holdsFleet()); err != nil {
			return err
		}
		if err := fn(&tx{conn: conn{s}}); err != nil {
			return err
		}
		return s.script("COMMIT")
	})
}

// lock asks for a lock until it is free, or the store closes.
func (e *postgresDB) lock(ctx context.Context, s *pgSession, try string) error {
	for end := time.Now().Add(writerWait); ; {
		got, err := conn{s}.integer("SELECT " + try)
		switch {
		case err != nil:
			return err
		case got != 0:
			return nil
		case time.Now().After(end):
			return joinery.Errorf(joinery.CodeUnavailable, "another server writes for too long; try again later")
		}
		select {
		case <-time.After(writerPoll):
		case <-ctx.Done():
			return ctx.Err()
		case <-e.closed:
			return ErrClosed
		}
	}
}

// pgFleetLock is held by whoever checks peers, KEKs, ranges or signers against
// each other and changes them then.
const pgFleetLock = "pg_try_advisory_xact_lock(1248815473, CAST(CAST(to_regclass('joinery_schema') AS oid) AS int))"

// fleetLock is pgFleetLock in a transaction of its own. A server that hangs lets
// it go without wanting to: PostgreSQL ends a transaction in which nothing
// happens for fleetIdle, which is shorter than others wait for the lock.
// Whoever holds it shows life more often than that.
type fleetLock struct {
	mu     sync.Mutex // of the session
	s      *pgSession
	ending chan struct{}
	ended  sync.WaitGroup
}

const (
	fleetIdle = "5s"
	fleetBeat = time.Second
)

// lockFleet implements engine.
func (e *postgresDB) lockFleet(ctx context.Context) (release func(), err error) {
	l, giveBack, err := e.beginLock(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.lock(ctx, l.s, pgFleetLock); err != nil {
		giveBack()
		return nil, storeError(err)
	}
	e.fleet.Store(l)
	l.ended.Go(l.live)
	return func() {
		e.fleet.CompareAndSwap(l, nil)
		close(l.ending)
		l.ended.Wait()
		giveBack()
	}, nil
}

// beginLock begins a transaction that is to hold a lock for long.
func (e *postgresDB) beginLock(ctx context.Context) (l *fleetLock, giveBack func(), err error) {
	acquiring, cancel := context.WithTimeout(ctx, pgLimit)
	defer cancel()
	c, err := e.others.Acquire(acquiring)
	if err != nil {
		return nil, nil, storeError(contactError(err))
	}
	l = &fleetLock{s: &pgSession{ctx: context.WithoutCancel(ctx), conn: c.Conn(), limit: pgLimit}, ending: make(chan struct{})}
	giveBack = func() {
		_ = l.s.rollback() // where that fails the pool closes the connection
		c.Release()
	}
	err = l.s.script("BEGIN; SET LOCAL idle_in_transaction_session_timeout = '" + fleetIdle + "'")
	if err != nil {
		giveBack()
		return nil, nil, storeError(err)
	}
	return l, giveBack, nil
}

// live shows life until the lock is released.
func (l *fleetLock) live() {
	for {
		select {
		case <-l.ending:
			return
		case <-time.After(fleetBeat):
			_ = l.held() // who writes under it asks again
		}
	}
}

// held tells why the lock is not held any more; nil where it is.
func (l *fleetLock) held() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.s.script("SELECT 1"); err != nil {
		return joinery.WrapError(joinery.CodeUnavailable, err, "the server hung for too long in this change, and others may have come between; try again")
	}
	return nil
}

// holdsFleet is nil unless this server has lost a fleet lock that it has not
// released: then what it checked may not hold any more.
func (e *postgresDB) holdsFleet() error {
	if l := e.fleet.Load(); l != nil {
		return l.held()
	}
	return nil
}
