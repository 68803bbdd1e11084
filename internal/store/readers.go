package store

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// pool is connections that only read.
type pool struct {
	free   chan *sqliteConn
	opened int // of which some may be in use
}

func newPool(size int) *pool { return &pool{free: make(chan *sqliteConn, size)} }

// fill opens every connection of the pool.
func (p *pool) fill(o Options) error {
	for range cap(p.free) {
		c, err := openConn(o.Path, append(commonPragmas(o, readerCache), "query_only = ON")...)
		if err != nil {
			return err
		}
		p.free <- c
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

// borrow runs fn on a connection of p. fn sees one state of the database if it
// runs one statement; see snapshot.
func (e *sqliteDB) borrow(ctx context.Context, p *pool, fn func(*sqliteConn) error) error {
	select {
	case <-e.closed:
		return storeError(ErrClosed)
	default:
	}
	select {
	case c := <-p.free:
		defer func() { p.free <- c }()
		return storeError(fn(c))
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closed:
		return storeError(ErrClosed)
	}
}

// readJoin implements engine: one look-up by a key is not worth being
// interrupted.
func (e *sqliteDB) readJoin(ctx context.Context, fn func(conn) error) error {
	return e.borrow(ctx, e.joins, func(c *sqliteConn) error { return fn(conn{c}) })
}

// read implements engine. When ctx ends the statement is interrupted, and the
// connection is free for the next one.
func (e *sqliteDB) read(ctx context.Context, fn func(conn) error) error {
	return e.interruptible(ctx, func(c *sqliteConn) error { return fn(conn{c}) })
}

func (e *sqliteDB) interruptible(ctx context.Context, fn func(*sqliteConn) error) error {
	err := e.borrow(ctx, e.readers, func(c *sqliteConn) error {
		c.SetInterrupt(ctx.Done())
		defer c.SetInterrupt(nil)
		return fn(c)
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
