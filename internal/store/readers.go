package store

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// pool is connections that only read.
type pool struct {
	free   chan conn
	opened int // of which some may be in use
}

func newPool(size int) *pool { return &pool{free: make(chan conn, size)} }

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
func (d *DB) borrow(ctx context.Context, p *pool, fn func(conn) error) error {
	select {
	case <-d.closed:
		return storeError(ErrClosed)
	default:
	}
	select {
	case c := <-p.free:
		defer func() { p.free <- c }()
		return storeError(fn(c))
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closed:
		return storeError(ErrClosed)
	}
}

// readJoin runs fn for a join: one look-up by a key, which is not worth being
// interrupted.
func (d *DB) readJoin(ctx context.Context, fn func(conn) error) error {
	return d.borrow(ctx, d.joins, fn)
}

// read runs fn for everybody else. A caller whose ctx ends gets ctx.Err(), and
// the connection is free for the next one.
func (d *DB) read(ctx context.Context, fn func(conn) error) error {
	err := d.borrow(ctx, d.readers, func(c conn) error {
		c.SetInterrupt(ctx.Done())
		defer c.SetInterrupt(nil)
		return fn(c)
	})
	if ctx.Err() != nil && sqlite.ErrCode(err) == sqlite.ResultInterrupt {
		return ctx.Err()
	}
	return err
}

// snapshot is read where fn sees one state of the database.
func (d *DB) snapshot(ctx context.Context, fn func(conn) error) error {
	return d.read(ctx, func(c conn) (err error) {
		if err := c.exec("BEGIN"); err != nil {
			return err
		}
		defer func() {
			c.SetInterrupt(nil) // or the transaction would not end
			if !c.AutocommitEnabled() {
				err = firstError(err, c.exec("ROLLBACK"))
			}
		}()
		return fn(c)
	})
}
