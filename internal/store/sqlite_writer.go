package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"

	"zombiezen.com/go/sqlite"

	"joinery"
)

// writer is the one goroutine that writes. Joins go first: what waits of them
// is taken as one batch, and between two batches runs at most one other
// transaction, so that neither starves.
type writer struct {
	c     *sqliteConn
	path  string
	file  os.FileInfo // what stood at path when it was opened
	epoch int64
	news  *news // what the readers of joins are told
	// sequence is told what joins are on disk.
	sequence *sequence
	readers  *pool // those readers
	stmts    joinStatements
	log      *slog.Logger
	// committed is told the last join of each batch that is on disk.
	committed func(joinery.ActivationID)

	changes int64 // rows written through c, as of the last transaction's beginning
	long    bool  // whether the write-ahead log was found to be long
	logged  int64 // about how many pages the write-ahead log has grown by since it was copied back

	// commitFault, where a test sets it, runs in place of the statement COMMIT.
	commitFault func(commit func() error) error

	checkpointAt int64         // pages in the log from which it is copied back
	failed       chan struct{} // closed when broken is set

	waiting
	done chan struct{}
}

// yields is how often the writer lets others run before it takes what waits.
// On one CPU a caller that was answered can ask again only if the writer steps
// aside; without that batches would be of one.
const yields = 8

// maxBatch bounds what one failing batch has to do again.
const maxBatch = 512

// startWriter starts a writer on c, which is the writer's to close from now on.
func (e *sqliteDB) startWriter(c *sqliteConn, epoch int64, log *slog.Logger) (*writer, error) {
	w := &writer{
		c: c, path: e.path, epoch: epoch, news: e.news, sequence: e.sequence, readers: e.joins, log: log, committed: e.noteJoin,
		checkpointAt: walPages, failed: make(chan struct{}), waiting: newWaiting(), done: make(chan struct{}),
	}
	err := w.stmts.prepare(c)
	if err == nil {
		w.file, err = os.Stat(e.path)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	go w.loop()
	return w, nil
}

// stop refuses what still waits and ends the loop.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	<-w.done
}

func (w *writer) loop() {
	defer close(w.done)
	for range w.wake {
		for {
			for range yields {
				runtime.Gosched()
			}
			batch, other, closed := w.take()
			if closed {
				return
			}
			if len(batch) == 0 && other == nil {
				break
			}
			if len(batch) > 0 {
				w.commitBatch(batch)
			}
			if other != nil {
				other.result <- w.otherTransaction(other)
			}
			w.checkpoint()
		}
	}
}

// otherTransaction runs a transaction that is not a join's.
func (w *writer) otherTransaction(other *otherWrite) error {
	aside := false
	err := w.transaction(func(t *tx) error {
		err := other.run(t)
		aside = t.aside
		return err
	})
	if !aside {
		w.news.next() // before anybody relies on the change
	}
	return err
}

// take gives the next batch of joins and one other transaction. After stop it
// refuses all that waits.
func (w *writer) take() (batch []*joinCommit, other *otherWrite, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		w.refuseAll(ErrClosed)
		return nil, nil, true
	}
	batch, w.joins = takeBatch(w.joins)
	if len(w.others) > 0 {
		other = w.others[0]
		w.others = slices.Delete(w.others, 0, 1)
	}
	return batch, other, false
}

// transaction implements engine.
func (e *sqliteDB) transaction(ctx context.Context, fn func(*tx) error) error {
	return e.w.other(ctx, fn)
}

// transaction runs fn between BEGIN and COMMIT. A COMMIT that fails is an
// error, although the transaction may be on disk: see write.
func (w *writer) transaction(fn func(*tx) error) (err error) {
	if err := w.begin(); err != nil {
		return err
	}
	defer func() { err = firstError(err, w.rollback()) }()
	if err := fn(&tx{conn: conn{&sqliteConn{Conn: w.c.Conn, inTransaction: true}}}); err != nil {
		return err
	}
	return w.commit()
}

// begin starts a transaction and makes sure that no other server has opened the
// database since we did.
func (w *writer) begin() error {
	if err := w.isBroken(); err != nil { // since the work was taken from its queue
		return err
	}
	if err := w.inPlace(); err != nil {
		return err
	}
	if err := run(w.stmts.begin); err != nil {
		return err
	}
	var epoch int64
	_, err := w.c.one("SELECT epoch, total_changes() FROM store", func(r *row) error {
		epoch = r.int()
		before := w.changes
		w.changes = r.int()
		w.logged += pagesWritten(w.changes - before)
		return nil
	})
	if err == nil && epoch != w.epoch {
		err = fmt.Errorf("%w: epoch %d is now %d", ErrSucceeded, w.epoch, epoch)
	}
	if err != nil {
		return firstError(err, w.rollback())
	}
	return nil
}

func (w *writer) commit() error {
	if w.commitFault != nil {
		return w.commitFault(func() error { return w.distrust(run(w.stmts.commit)) })
	}
	return w.distrust(run(w.stmts.commit))
}

// pagesWritten estimates how many pages a transaction of so many rows wrote: a
// join writes two rows, its key set's on a page of its own, and the activation
// on a page that the whole batch shares.
func pagesWritten(rows int64) int64 { return rows/2 + 2 }

// checkpoint copies the log back into the database when it has become long, and
// sees to it that the next transaction begins the log anew: no reader of joins
// may hold a snapshot from before. Who else reads for long, as backups do, keeps
// the log growing until it is done.
func (w *writer) checkpoint() {
	if w.logged < w.checkpointAt || w.isBroken() != nil {
		return
	}
	crowd.Add(1)
	defer crowd.Add(-1)
	w.news.next()
	err := w.readers.letGo()
	var log, copied int64
	if err == nil {
		_, err = w.c.one("PRAGMA wal_checkpoint(PASSIVE)", func(r *row) error {
			r.int() // whether somebody else is at it
			log, copied = r.int(), r.int()
			return nil
		})
		err = w.distrust(err)
	}
	if err = firstError(err, w.readers.letGo()); err != nil {
		w.log.Error("the write-ahead log cannot be copied back into the database and goes on growing", "error", err)
	}
	w.logged = 0
	if copied < log {
		w.logged = w.checkpointAt / 2 // again soon
	}
	if long := log >= longLog; long != w.long {
		w.long = long
		if long {
			w.log.Warn("the write-ahead log grows, because somebody reads for long: a backup, a checkup, or another program", "MiB", log*pageSize>>20)
		} else {
			w.log.Info("the write-ahead log begins anew")
		}
	}
}

// longLog is the length of the log, in pages, that operators are told of.
const longLog = 16 * walPages

// rollback ends a transaction that is still open; after some errors SQLite has
// ended it already.
func (w *writer) rollback() error {
	if w.c.AutocommitEnabled() {
		return nil
	}
	return run(w.stmts.rollback)
}

// run executes a prepared statement that returns no rows.
func run(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	return firstError(err, stmt.Reset())
}
