package store

import (
	"fmt"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"joinery"
)

// begin reads who we are, and unless we only read raises the epoch, and the
// fence where this is not known to be the database that was open here last.
func (e *sqliteDB) begin(d *DB, c *sqliteConn, why purpose) error {
	if err := c.pragma("wal_autocheckpoint = 0"); err != nil {
		return err
	}
	if err := c.pragma(fmt.Sprintf("journal_size_limit = %d", 4*walPages*pageSize)); err != nil {
		return err
	}
	s, found, err := conn{c}.storeRow()
	if err == nil && !found {
		err = fmt.Errorf("%w: %s lacks its store row: it is half a copy, which the same joinery migrate finishes, "+
			"or damaged; then restore a backup", ErrNotDatabase, e.path)
	}
	switch {
	case err != nil:
		return err
	case why == toServe:
		if err = c.emptyLog(); err == nil {
			s, err = e.settle(c, s)
		}
	case why == toMove:
		err = e.original(c, s)
	}
	if err == nil {
		d.accept(s)
	}
	return err
}

// settle takes the database for this server: it raises the epoch, makes file and
// mark known to each other, and gives the row as it is then.
func (e *sqliteDB) settle(c *sqliteConn, s storeRow) (storeRow, error) {
	if err := s.fence.movedError("sqlite:" + e.path); err != nil {
		return s, err
	}
	var err error
	if e.marks, err = openMark(e.path); err != nil {
		return s, err
	}
	here, err := findPlace(e.path, e.marks)
	if err != nil {
		return s, err
	}
	var strange string
	switch {
	case s.opened:
		if strange, err = here.strangeness(conn{c}, s); err != nil {
			return s, err
		}
	case here.marked && here.mark.epoch > 0: // whoever makes a database where one was takes the mark away
		strange = "a copy from before the last upgrade took its place, or another database"
	default:
		s.instance = newInstance()
		here.mark = mark{instance: s.instance}
		// On disk before the database has it, with epoch 0: neither a crash nor a
		// power cut between the two makes a new database look like a copied one.
		if err := e.marks.begin(e.path, here.mark); err != nil {
			return s, err
		}
	}
	if strange != "" {
		s.instance = newInstance()
		here.mark = mark{}
	}
	s.epoch, s.home, s.opened = s.epoch+1, here.home, true
	raise := strange != "" && (s.fence.State == FenceNone || s.fence.Jump != 0)
	if raise {
		s.fence = Fence{State: FenceForked, Since: now(), Note: strange}
	}
	err = c.immediate(func(t *tx) error {
		t.operator = s.operator
		err := t.exec("UPDATE store SET epoch = ?, instance = ?, home = ?", s.epoch, s.instance[:], s.home)
		if err == nil {
			err = t.exec("DROP TABLE IF EXISTS " + progressTable) // of the move that brought it here
		}
		if err == nil && raise {
			err = t.raiseFence(s.fence, "joinery")
		}
		return err
	})
	if err != nil {
		return s, err
	}
	e.noted = mark{instance: s.instance, epoch: s.epoch, activation: here.mark.activation}
	if err := e.marks.write(e.noted); err != nil {
		return s, err
	}
	// The mark is overwritten in place from now on, so this one sync is enough
	// for a whole mark to be there after a power cut.
	return s, e.marks.f.Sync()
}

// original refuses a file that is not known to be the one that was served here.
func (e *sqliteDB) original(c *sqliteConn, s storeRow) (err error) {
	if e.marks, err = openMark(e.path); err != nil || !s.opened {
		return err
	}
	here, err := findPlace(e.path, e.marks)
	if err != nil {
		return err
	}
	strange, err := here.strangeness(conn{c}, s)
	if err == nil && strange != "" {
		err = fmt.Errorf("%w: %s: %s; confirm first that it counts, with joinery restore confirm", ErrFenced, e.path, strange)
	}
	return err
}

// now is the time as it is stored.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// noteJoin leaves in the mark which join was committed last. It costs no
// fsync: what the disk loses of it only makes the mark older.
func (e *sqliteDB) noteJoin(id joinery.ActivationID) {
	e.noted.activation = id
	if err := e.marks.write(e.noted); err != nil {
		e.log.Warn("the mark file does not take the last join; a rewound database may go unnoticed", "error", err)
	}
}

// immediate runs fn between BEGIN and COMMIT, on a connection that no writer has.
func (c *sqliteConn) immediate(fn func(*tx) error) (err error) {
	end, err := sqlitex.ImmediateTransaction(c.Conn)
	if err != nil {
		return err
	}
	defer end(&err)
	return fn(&tx{conn: conn{&sqliteConn{Conn: c.Conn, inTransaction: true}}})
}
