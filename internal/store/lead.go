package store

import (
	"context"

	"joinery"
)

// Lead takes the right to do what one server does for all; held is nil where
// another server has it. Else it tells whether the right is lost by now, and
// release, called once, gives it back. A leader that dies or hangs loses it
// within seconds. A SQLite file has no other server.
func (d *DB) Lead(ctx context.Context) (held func() error, release func(), err error) {
	if d.readOnly {
		return nil, nil, storeError(ErrClosed)
	}
	return d.engine.lead(ctx)
}

// lead implements engine.
func (*sqliteDB) lead(context.Context) (held func() error, release func(), err error) {
	return func() error { return nil }, func() {}, nil
}

// pgLeadLock is held by the leader, in a transaction that must show life.
const pgLeadLock = "pg_try_advisory_xact_lock(1248815474, CAST(CAST(to_regclass('joinery_schema') AS oid) AS int))"

// lead implements engine. The lock is that of the fleet in all but its name: see
// fleetLock.
func (e *postgresDB) lead(ctx context.Context) (held func() error, release func(), err error) {
	l, giveBack, err := e.beginLock(ctx)
	if err != nil {
		return nil, nil, err
	}
	got, err := conn{l.s}.integer("SELECT " + pgLeadLock)
	if err != nil || got == 0 {
		giveBack()
		return nil, nil, storeError(err)
	}
	l.ended.Go(l.live)
	held = func() error {
		if err := l.held(); err != nil {
			return joinery.WrapError(joinery.CodeUnavailable, err, "another server may lead by now")
		}
		return nil
	}
	return held, func() {
		close(l.ending)
		l.ended.Wait()
		giveBack()
	}, nil
}
