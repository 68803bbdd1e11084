package store

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// After a failed fsync nobody knows what is on disk: the kernel may have dropped
// what it could not write and calls those pages clean, so that the next fsync
// succeeds without them, and a reader of the file sees what a power cut would
// take away. So a failed fsync is the end of the writer, nothing is answered
// from what it wrote, and whoever opens the database next writes all of the log
// out once more before anything else. SQLite itself would go on.

// emptyLog copies all of the log into the database file, syncs that, and empties
// the log. What an earlier process wrote and failed to sync is on disk after it,
// or the database does not open. A program beside this server, a backup say, can
// hold the log; then it stays, copied as far as that lets it.
func (c *sqliteConn) emptyLog() error {
	if err := c.pragma("wal_checkpoint(TRUNCATE)"); err != nil {
		return fmt.Errorf("copy the write-ahead log back: %w", err)
	}
	return nil
}

// unsynced is why the last sync failed that did, until somebody tells of it. SQLite
// passes on only that it failed.
var unsynced atomic.Pointer[error]

// distrust ends the writer where err is a failed fsync, and gives err. All that
// waits is refused, and all that comes.
func (w *writer) distrust(err error) error {
	switch sqlite.ErrCode(err) {
	case sqlite.ResultIOErrFsync, sqlite.ResultIOErrDirFsync:
	default:
		return err
	}
	if why := unsynced.Swap(nil); why != nil {
		err = fmt.Errorf("%w: %w", err, *why)
	}
	return w.end(fmt.Errorf("%w: %w", ErrUnsynced, err), "the disk failed to keep what was written; nothing more is written until the server is started again")
}

// end refuses all that waits, and all that comes, with err, and gives it.
func (w *writer) end(err error, why string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return err
	}
	w.broken = err
	for _, j := range w.joins {
		j.result <- err
	}
	for _, o := range w.others {
		o.result <- err
	}
	w.joins, w.others = nil, nil
	w.log.Error("the store writes nothing any more until it is opened anew", "why", why, "error", err)
	close(w.failed)
	return err
}

// isBroken gives why the writer ended, nil while it works.
func (w *writer) isBroken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// failed implements engine.
func (e *sqliteDB) failed() <-chan struct{} {
	if e.w == nil {
		return nil
	}
	return e.w.failed
}

// failure implements engine.
func (e *sqliteDB) failure() error { return storeError(e.w.isBroken()) }

// inPlace ends the writer where another file stands at the path of the database,
// or none: this one was moved away under it. Its lock went along and so keeps
// nobody from another one, and what is written here nobody will read again.
func (w *writer) inPlace() error {
	now, err := os.Stat(w.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case os.SameFile(w.file, now):
		return nil
	}
	return w.end(fmt.Errorf("%w: the file at %s was moved away or replaced while it was open", ErrSucceeded, w.path),
		"the database was taken away; nothing more is written until the server is started again")
}
