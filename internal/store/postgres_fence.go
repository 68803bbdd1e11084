package store

import (
	"context"
	"fmt"
	"strings"
)

// A PostgreSQL database is known by its cluster, by where it is in that cluster,
// and by its timeline: a restore to a point in time, and every failover, begins
// a new one, and what was committed on the old one behind that point is lost.
const pgHome = `SELECT 'cluster ' || (SELECT CAST(system_identifier AS text) FROM pg_control_system())
	|| ' database ' || (SELECT CAST(oid AS text) FROM pg_database WHERE datname = current_database())
	|| ' schema ' || CAST(CAST(CAST('joinery_schema' AS regclass) AS oid) AS text)
	|| ' timeline ' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`

// homeOf tells by what the database is known; "" where it does not say, because
// only speaks PostgreSQL's protocol, or keeps these functions from this user.
func (s *pgSession) homeOf() (home string, err error) {
	_, err = s.one(pgHome, func(r *row) error { home = r.text(); return nil })
	switch pgState(err) {
	case "42501", "42883", "0A000", "42P01": // may not, not there, not supported
		return "", nil
	}
	return home, err
}

// strangeHome says by what a database that was at home there is not known to be
// the one that is at home here; "" where it is.
func (e *postgresDB) strangeHome(was, is string) string {
	wasIn, wasLine, _ := strings.Cut(was, " timeline ")
	isIn, isLine, _ := strings.Cut(is, " timeline ")
	switch {
	case was == "" || is == "" || was == is:
		return ""
	case wasIn != isIn:
		return "the database is a copy of the one that was open last, or was moved to another cluster"
	case e.options.TrustFailover:
		return ""
	default:
		return fmt.Sprintf("PostgreSQL went from timeline %s to %s, by a failover or a restore; what was committed last may be lost", wasLine, isLine)
	}
}

// begin reads who we are, and unless we only read raises the epoch, and the
// fence where this is not known to be the database that was opened last.
func (e *postgresDB) begin(ctx context.Context, d *DB, why purpose) error {
	var home string
	var s storeRow
	var found bool
	err := e.using(ctx, e.others, connectTimeout, func(session *pgSession) (err error) {
		if home, err = session.homeOf(); err != nil {
			return err
		}
		s, found, err = conn{session}.storeRow()
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: the database lacks its store row: it is half a copy, which the same joinery migrate finishes, "+
			"or damaged; then restore a backup", ErrNotDatabase)
	}
	if err == nil && why == toMove {
		err = e.original(s, home)
	}
	if err == nil && (why == toMove || why == toUndo) {
		err = e.options.whenAlone(ctx, func() error { return e.alone(ctx) })
	}
	if err == nil && why == toServe {
		if home == "" {
			e.log.Warn("the database does not tell its cluster and timeline: a copy, a restore or a failover goes unnoticed; use joinery restore fence after one")
		}
		err = e.runTransaction(func(t *tx) (err error) {
			if err := t.exec("UPDATE store SET epoch = epoch + 1"); err != nil {
				return err
			}
			s, err = e.settle(t, home)
			return err
		})
	}
	if err == nil {
		d.accept(s)
		e.home.Store(home)
	}
	return err
}

// original refuses a database that is not known to be the one that was served.
func (e *postgresDB) original(s storeRow, home string) error {
	if strange := e.strangeHome(s.home, home); s.opened && strange != "" {
		return fmt.Errorf("%w: %s; confirm first that it counts, with joinery restore confirm", ErrFenced, strange)
	}
	return nil
}

// alone refuses a database that servers have open.
func (e *postgresDB) alone(ctx context.Context) error {
	alone := int64(0)
	err := e.using(ctx, e.others, pgLimit, func(session *pgSession) (err error) {
		// For this moment only: from the next on no server opens it.
		alone, err = conn{session}.integer("SELECT 1 FROM (SELECT pg_try_advisory_lock(" + pgServersLock + ") AS got) AS l WHERE got")
		if err == nil && alone != 0 {
			_, err = conn{session}.integer("SELECT 1 FROM (SELECT pg_advisory_unlock(" + pgServersLock + ") AS gone) AS l WHERE gone")
		}
		return err
	})
	if err == nil && alone == 0 {
		err = fmt.Errorf("%w: servers have it open; stop all of them first", ErrLocked)
	}
	return err
}

// settle makes home the home of the database, and raises the fence where it was
// at home elsewhere.
func (e *postgresDB) settle(t *tx, home string) (s storeRow, err error) {
	if s, _, err = t.storeRow(); err != nil {
		return s, err
	}
	if err := s.fence.movedError(e.options.URL); err != nil {
		return s, err
	}
	t.operator = s.operator
	var strange string
	if s.opened {
		strange = e.strangeHome(s.home, home)
	} else {
		s.instance = newInstance()
	}
	if home != "" {
		s.home = home
	}
	if err := t.exec("UPDATE store SET instance = ?, home = ?", s.instance[:], s.home); err != nil {
		return s, err
	}
	if strange != "" && (s.fence.State == FenceNone || s.fence.Jump != 0) {
		s.fence = Fence{State: FenceForked, Since: now(), Note: strange}
		err = t.raiseFence(s.fence, "joinery")
	}
	return s, err
}

// judgeHome looks at each new connection: behind it may be another timeline than
// behind those before. Whichever server finds that out first raises the fence
// for all.
func (e *postgresDB) judgeHome(s *pgSession) error {
	was, opened := e.home.Load().(string)
	if !opened {
		return nil
	}
	home, err := s.homeOf()
	if err != nil || home == "" || home == was {
		return err
	}
	var row storeRow
	err = inOrder(
		func() error { return s.script("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE") },
		func() error { return e.lock(s.ctx, s, pgWriterLock) },
		func() (err error) { row, err = e.settle(&tx{conn: conn{s}}, home); return err },
		func() error { return s.script("COMMIT") },
	)
	if err = firstError(err, s.rollback()); err != nil {
		return err
	}
	e.fence.Store(&row.fence)
	e.home.Store(home)
	if row.fence.Up() {
		e.log.Error("joins are refused until joinery restore confirm", "fence", row.fence.State, "since", row.fence.Since, "reason", row.fence.Note)
	}
	return nil
}

// lookAtFence reads the fence, which other processes raise and take down.
func (e *postgresDB) lookAtFence(c conn) error {
	s, found, err := c.storeRow()
	if err != nil || !found {
		return err
	}
	was := e.fence.Swap(&s.fence)
	if was != nil && was.Up() && !s.fence.Up() { // confirmed elsewhere; a later one may be here
		if _, err := e.options.witness().write(s.operator, s.floor); err != nil {
			e.log.Warn("how far confirmations have raised JoinNonces is not noted here; give a later one --earlier-confirmations", "error", err)
		}
	}
	return nil
}

// copying implements engine, on a connection of its own.
func (e *postgresDB) copying(ctx context.Context, fn func(conn) error) (err error) {
	c, err := pgConnect(ctx, e.options)
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, c.Close(context.WithoutCancel(ctx))) }()
	if err := e.judge(ctx, c); err != nil {
		return err
	}
	s := &pgSession{ctx: ctx, conn: c}
	if err := s.script(pgWithoutHaste + "; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return err
	}
	return storeError(fn(conn{s})) // closing the connection ends the transaction
}

// pgWithoutHaste takes the limits off a connection that copies the whole state.
const pgWithoutHaste = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0"
