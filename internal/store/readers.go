package store

import (
	"context"

	"zombiezen.com/go/sqlite"
)

// reader is a connection that only reads.
type reader struct {
	conn
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
func (p *pool) fill(o Options) error {
	for range cap(p.free) {
		c, err := openConn(o.Path, append(commonPragmas(o, readerCache), "query_only = ON")...)
		if err != nil {
			return err
		}
		p.free <- &reader{conn: c}
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
func (d *DB) borrow(ctx context.Context, p *pool, fn func(*reader) error) error {
	select {
	case <-d.closed:
		return storeError(ErrClosed)
	default:
	}
	select {
	case r := <-p.free:
		defer func() { p.free <- r }()
		return storeError(fn(r))
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closed:
		return storeError(ErrClosed)
	}
}

// readJoin runs fn for a join: one look-up by a key, which is not worth being
// interrupted.
func (d *DB) readJoin(ctx context.Context, fn func(conn) error) error {
	return d.borrow(ctx, d.joins, func(r *reader) error {
		if err := r.letGo(); err != nil {
			return err
		}
		return fn(r.conn)
	})
}

// read runs fn for everybody else. A caller whose ctx ends gets ctx.Err(), and
// the connection is free for the next one.
func (d *DB) read(ctx context.Context, fn func(conn) error) error {
	err := d.borrow(ctx, d.readers, func(r *reader) error {
		r.SetInterrupt(ctx.Done())
		defer r.SetInterrupt(nil)
		return fn(r.conn)
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
