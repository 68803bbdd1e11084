package store

import (
	"fmt"

	"zombiezen.com/go/sqlite"
)

// The log and the disk.
//
// After a failed fsync nobody knows what is on disk: the kernel may have dropped
// what it could not write and calls those pages clean, so that the next fsync
// succeeds without them, and a reader of the file sees what a power cut would
// take away. So a failed fsync is the end of this writer (see distrust), nothing
// is answered from what it wrote, and whoever opens the database next writes all
// of the log out once more before anything else (see settle).
//
// SQLite copies the log back by itself, but ignores what goes wrong there. So
// the writer does it, in the same place and as often.

// settle copies all of the log into the database file, syncs that, and empties
// the log. What an earlier process wrote and failed to sync is on disk after it,
// or the database does not open. A reader outside of this server, a backup
// program say, can hold the log; then it is left as it is.
func (c conn) settle() error {
	busy, err := c.integer("PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && busy != 0 {
		_, err = c.integer("PRAGMA wal_checkpoint(PASSIVE)")
	}
	return err
}

// checkpoint copies the log back where it has grown to a size. It runs between
// transactions.
func (w *writer) checkpoint() {
	if w.isBroken() != nil {
		return
	}
	frames, err := w.c.logFrames("NOOP")
	if err == nil && frames >= w.checkpointAt {
		_, err = w.c.logFrames("PASSIVE")
	}
	if err != nil {
		w.log.Warn("the write-ahead log was not copied back", "error", err)
	}
	w.distrust(err)
}

// logFrames runs a checkpoint of a mode and gives the pages in the log.
func (c conn) logFrames(mode string) (frames int, err error) {
	_, err = c.one("PRAGMA wal_checkpoint("+mode+")", func(r *row) error {
		r.int() // busy: some of it is still read
		frames = int(r.int())
		return nil
	})
	return frames, err
}

// distrust ends the writer where err is a failed fsync, and gives err. It
// refuses all that waits and all that comes.
func (w *writer) distrust(err error) error {
	switch sqlite.ErrCode(err) {
	case sqlite.ResultIOErrFsync, sqlite.ResultIOErrDirFsync:
	default:
		return err
	}
	err = fmt.Errorf("%w: %w", ErrUnsynced, err)
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
	w.log.Error("the disk failed to keep what was written; nothing more is written until the server is started again", "error", err)
	close(w.failed)
	return err
}

// isBroken gives why the writer ended, nil while it works.
func (w *writer) isBroken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// Failed is closed when the database takes no more writes and only opening it
// anew can help; Failure says why. A server then does best to end: its service
// manager starts it again.
func (d *DB) Failed() <-chan struct{} {
	if d.w == nil {
		return nil
	}
	return d.w.failed
}

// Failure is why Failed was closed.
func (d *DB) Failure() error { return storeError(d.w.isBroken()) }
