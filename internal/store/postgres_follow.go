package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// How soon a server knows what another one changed. PostgreSQL tells it at once;
// where that gets lost the next look finds it. A look that is not answered in
// pgLimit counts as contact lost.
const (
	followEvery = 500 * time.Millisecond
	followAgain = 200 * time.Millisecond
)

// following is how the following goes.
type following struct {
	lost atomic.Pointer[error] // why nothing is heard; nil while all is well
}

// Follow calls changed when another server may have changed peers, KEKs or
// JoinEUI ranges, and lost, again and again, while nobody can know: then what is
// in memory must not be relied on. changed comes after lost, too, when there is
// contact again, and at the beginning. current is called with each time at which
// a look began that found nothing but what changed was called for. Whoever must
// not rely on what is older than a while watches that by these times: where the
// server stood still, no call comes. Follow returns at once; the calls come from
// one goroutine and end when the store closes. A SQLite file has no other
// server.
func (d *DB) Follow(changed func(), current func(asOf time.Time), lost func(error)) {
	if !d.readOnly {
		d.engine.follow(changed, current, lost)
	}
}

// follow implements engine.
func (e *postgresDB) follow(changed func(), current func(time.Time), lost func(error)) {
	e.running.Go(func() {
		for !e.isClosed() {
			err := e.followOnce(changed, current)
			if e.isClosed() {
				return
			}
			if errors.Is(err, ErrNewerSchema) || errors.Is(err, ErrNotDurable) {
				// Each connection is judged when it is made, and refused.
				e.joins.Reset()
				e.others.Reset()
			}
			e.following.lost.Store(&err)
			lost(err)
			select {
			case <-e.closed:
			case <-time.After(followAgain):
			}
		}
	})
}

// followOnce follows over one connection until it breaks.
func (e *postgresDB) followOnce(changed func(), current func(time.Time)) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	c, err := e.listen(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), followAgain)
		defer cancel()
		_ = c.Close(closing)
	}()
	s := &pgSession{ctx: ctx, conn: c, limit: pgLimit}
	for seen := int64(-1); ; {
		began := time.Now()
		now, err := e.look(s)
		if err != nil {
			return err
		}
		if now != seen {
			changed()
			seen = now
			e.following.lost.Store(nil)
		}
		current(began)
		waiting, cancel := context.WithTimeout(ctx, followEvery)
		_, err = c.WaitForNotification(waiting)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return contactError(err)
		}
	}
}

// listen makes the connection over which a server follows.
func (e *postgresDB) listen(ctx context.Context) (_ *pgx.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, pgLimit)
	defer cancel()
	c, err := pgConnect(ctx, e.options)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.Close(ctx)
		}
	}()
	if err := e.judge(ctx, c); err != nil {
		return nil, err
	}
	return c, (&pgSession{ctx: ctx, conn: c}).script("LISTEN joinery")
}

// look gives the count of changes, from a schema that we may serve and a server
// that loses no commit, and looks at the fence.
func (e *postgresDB) look(s *pgSession) (fleet int64, err error) {
	var servesFrom int64
	_, err = s.one("SELECT fleet, serves_from FROM joinery_schema", func(r *row) error {
		fleet, servesFrom = r.int(), r.int()
		return nil
	})
	if err == nil && servesFrom > int64(e.schema) {
		err = fmt.Errorf("%w: it was migrated; this program is too old for it", ErrNewerSchema)
	}
	if err != nil {
		return 0, err
	}
	return fleet, firstError(e.judgeDurable(s), e.lookAtFence(conn{s}))
}

// heard gives why changes of other servers are not heard; nil where they are,
// or nobody asked.
func (f *following) heard() error {
	if err := f.lost.Load(); err != nil {
		return fmt.Errorf("changes by other servers are not heard: %w", *err)
	}
	return nil
}
