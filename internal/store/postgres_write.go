package store

import (
	"context"
	"errors"
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
		if err := s.lock(s.ctx, pgWriterLock); err != nil {
			return err
		}
		if err := fn(&tx{conn: conn{s}}); err != nil {
			return err
		}
		return s.script("COMMIT")
	})
}

// lock asks for a lock until it is free.
func (s *pgSession) lock(ctx context.Context, try string) error {
	for end := time.Now().Add(writerWait); ; {
		got, err := conn{s}.integer("SELECT " + try)
		switch {
		case err != nil:
			return err
		case got != 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return joinery.Errorf(joinery.CodeUnavailable, "another server writes for too long; try again later")
		}
		time.Sleep(writerPoll)
	}
}

// pgFleetLock is held by whoever checks peers, KEKs, ranges or signers against
// each other and changes them then.
const pgFleetLock = "1248815473, CAST(CAST(to_regclass('joinery_schema') AS oid) AS int)"

// lockFleet implements engine.
func (e *postgresDB) lockFleet(ctx context.Context) (release func(), err error) {
	acquiring, cancel := context.WithTimeout(ctx, pgLimit)
	defer cancel()
	c, err := e.others.Acquire(acquiring)
	if err != nil {
		return nil, storeError(contactError(err))
	}
	s := &pgSession{ctx: context.WithoutCancel(ctx), conn: c.Conn(), limit: pgLimit}
	release = func() {
		if err := s.script("SELECT pg_advisory_unlock_all()"); err != nil {
			_ = s.conn.Close(s.ctx) // which gives the lock back as well
		}
		c.Release()
	}
	if err := s.lock(ctx, "pg_try_advisory_lock("+pgFleetLock+")"); err != nil {
		release()
		return nil, storeError(err)
	}
	return release, nil
}
