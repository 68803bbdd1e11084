package store

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// reader is a connection that only reads.
type reader struct {
	*sqliteConn
	// snapshot is the generation of the snapshot that the connection holds, as
	// readers of joins do; 0 is none. See news.
	snapshot uint64
}

// hold gives the reader a snapshot that is of generation or newer.
func (r *reader) hold(generation uint64) error {
	if r.snapshot == generation {
		return nil
	}
	if err := r.letGo(); err != nil {
		return err
	}
	// The transaction of BEGIN begins with what is first read in it.
	if err := r.exec("BEGIN"); err != nil {
		return err
	}
	r.snapshot = generation
	return nil
}

// letGo ends the snapshot that the reader may hold.
func (r *reader) letGo() error {
	r.snapshot = 0
	if r.AutocommitEnabled() {
		return nil
	}
	return r.exec("ROLLBACK")
}

// pool is connections that only read.
type pool struct {
	free   chan *reader
	opened int // of which some may be in use
}

func newPool(size int) *pool { return &pool{free: make(chan *reader, size)} }

// fill opens every connection of the pool.
func (p *pool) fill(o Options, cacheKiB int) error {
	for range cap(p.free) {
		c, err := openConn(o.Path, append(commonPragmas(o, cacheKiB), "query_only = ON")...)
		if err != nil {
			return err
		}
		p.free <- &reader{sqliteConn: c}
		p.opened++
	}
	return nil
}

// close waits for the connections in use and closes all.
func (p *pool) close() (err error) {
	for range p.opened {
		err = firstError(err, (<-p.free).Close())
	}
	return err
}

// letGo ends every snapshot that readers of p hold. It waits for those that
// are in use.
func (p *pool) letGo() (err error) {
	taken := make([]*reader, p.opened)
	for i := range taken {
		taken[i] = <-p.free
		err = firstError(err, taken[i].letGo())
	}
	for _, r := range taken {
		p.free <- r
	}
	return err
}

// borrow runs fn on a connection of p. fn sees one state of the database if it
// runs one statement; see snapshot.
func (e *sqliteDB) borrow(ctx context.Context, p *pool, fn func(*reader) error) error {
	select {
	case <-e.closed:
		return storeError(ErrClosed)
	default:
	}
	select {
	case r := <-p.free:
		defer func() { p.free <- r }()
		return storeError(fn(r))
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closed:
		return storeError(ErrClosed)
	}
}

// readJoin implements engine: one look-up by a key is not worth being
// interrupted.
func (e *sqliteDB) readJoin(ctx context.Context, fn func(conn) error) error {
	return e.borrow(ctx, e.joins, func(r *reader) error {
		if err := r.letGo(); err != nil {
			return err
		}
		return fn(conn{r.sqliteConn})
	})
}

// read implements engine. When ctx ends the statement is interrupted, and the
// connection is free for the next one.
func (e *sqliteDB) read(ctx context.Context, fn func(conn) error) error {
	return e.interruptible(ctx, func(c *sqliteConn) error { return fn(conn{c}) })
}

func (e *sqliteDB) interruptible(ctx context.Context, fn func(*sqliteConn) error) error {
	err := e.borrow(ctx, e.readers, func(r *reader) error {
		r.SetInterrupt(ctx.Done())
		defer r.SetInterrupt(nil)
		return fn(r.sqliteConn)
	})
	if ctx.Err() != nil && sqlite.ErrCode(err) == sqlite.ResultInterrupt {
		return ctx.Err()
	}
	return err
}

// snapshot implements engine.
func (e *sqliteDB) snapshot(ctx context.Context, fn func(conn) error) error {
	return e.interruptible(ctx, func(c *sqliteConn) (err error) {
		if err := c.exec("BEGIN"); err != nil {
			return err
		}
		defer func() {
			c.SetInterrupt(nil) // or the transaction would not end
			if !c.AutocommitEnabled() {
				err = firstError(err, c.exec("ROLLBACK"))
			}
		}()
		return fn(conn{c})
	})
}

// copying implements engine.
func (e *sqliteDB) copying(ctx context.Context, fn func(conn) error) error {
	return e.snapshot(ctx, fn)
}
